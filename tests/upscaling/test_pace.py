"""The speed of the last run, stored for `--dry-run`: used if it exists, and not required."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from srgan_cli.engine.ensemble import COPIES
from srgan_cli.upscaling import pace
from srgan_cli.upscaling.pace import Pace

SPEED = Pace("cpu", "bf16", 512, 12.5)


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pace, "_path", lambda: tmp_path / "srgan" / "pace.json")
    return tmp_path / "srgan" / "pace.json"


def test_a_pace_is_remembered_by_its_key() -> None:
    assert pace.recall("a") is None
    pace.remember("a", SPEED)
    assert pace.recall("a") == SPEED
    assert pace.recall("b") is None


def test_only_the_latest_are_kept() -> None:
    for number in range(60):
        pace.remember(str(number), SPEED)
    assert pace.recall("0") is None
    assert pace.recall("59") == SPEED


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"device": "cpu"}}', '{"a": {"megapixels": 1}}'])
def test_a_damaged_cache_is_no_cache(file: Path, text: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    assert pace.recall("a") is None
    pace.remember("a", SPEED)
    assert pace.recall("a") == SPEED


def test_a_speed_of_nothing_is_no_speed() -> None:
    pace.remember("a", Pace("cpu", "fp32", 1, 0.0))
    assert pace.recall("a") is None


def test_a_pace_of_a_busy_machine_does_not_replace_another() -> None:
    busy = replace(SPEED, megapixels_per_second=1.0, was_busy=True)
    pace.remember("a", busy)
    assert pace.recall("a") == busy  # better than nothing
    pace.remember("a", SPEED)
    pace.remember("a", busy)
    assert pace.recall("a") == SPEED


def test_entries_of_earlier_versions_are_read(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"a": {"device": "cpu", "precision": "bf16", "tile_px": 512, "megapixels_per_second": 12.5}}')
    assert pace.recall("a") == SPEED
    assert SPEED.memory_bytes(1000) == 0


def test_memory_grows_with_the_picture_up_to_a_tile() -> None:
    known = replace(SPEED, start_bytes=400, network_bytes=1400, window_px=100_000)
    assert known.memory_bytes(100_000) == 1400
    assert known.memory_bytes(50_000) == 900
    assert known.memory_bytes(10**9) == 400 + round(1000 * 512**2 / 100_000)


def test_a_cache_that_cannot_be_written_is_ignored(file: Path) -> None:
    file.parent.write_text("a file where the folder should be")
    pace.remember("a", SPEED)
    assert pace.recall("a") is None


def test_the_first_ensemble_is_estimated_from_a_run_without() -> None:
    once = replace(SPEED, network_bytes=5)
    eight = once.of_ensemble()
    assert eight.megapixels_per_second == once.megapixels_per_second / COPIES
    assert (eight.network_bytes, eight.of_one_copy) == (0, True)
