"""Folders of pictures for a crew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.upscaling.pictures import picture


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    for number in range(12):
        picture(tmp_path / "in" / f"{number:02}.png", 20 + number, 16, seed=number)
    return tmp_path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Pictures with and without transparency, that are made band by band."""
    picture(tmp_path / "in" / "a.png", 40, 70)
    picture(tmp_path / "in" / "b.png", 40, 70, mode="RGBA", seed=1)
    return tmp_path


@pytest.fixture(params=["scratch", "memory"])
def scratch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "scratch":
        monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 1000)
    return bool(request.param == "scratch")
