"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upscaling.pictures import picture


@pytest.fixture(autouse=True)
def _here(here: Path) -> None:
    """All of them work there."""


@pytest.fixture
def photos(here: Path) -> Path:
    for name in ("b.jpg", "a.png", "deep/c.PNG", "deep/er/d.webp"):
        picture(here / "photos" / name)
    (here / "photos" / "notes.txt").write_text("no picture")
    return Path("photos")
