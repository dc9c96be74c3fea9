"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dataset.photos import pixels, put


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        put(tmp_path / "photos" / f"{seed}.png", pixels(seed))
    return tmp_path / "photos"
