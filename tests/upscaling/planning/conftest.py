"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upscaling.pictures import picture


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tests work in a folder of their own, with names as a person types them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(here: Path) -> Path:
    for name in ("b.jpg", "a.png", "deep/c.PNG", "deep/er/d.webp"):
        picture(here / "photos" / name)
    (here / "photos" / "notes.txt").write_text("no picture")
    return Path("photos")
