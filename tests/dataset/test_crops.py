"""Crops from the cache: their positions, their frequency, and their preparation ahead of need."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srgan_cli.dataset import crops as data_module
from srgan_cli.dataset.crops import Batch, Cache, Crops
from tests.dataset.photos import CROP_PX, cached, pixels, put


def drawn(cache: Cache, steps: int, **changes: Any) -> list[Batch]:
    options: dict[str, Any] = {"seed": 7, "batch": 4, "crop_px": CROP_PX, "scale": 2, "augment": True}
    crops = Crops(cache, **{**options, **changes})
    try:
        return [next(crops) for _ in range(steps)]
    finally:
        crops.close()


def same(one: Batch, other: Batch) -> bool:
    return one.step == other.step and torch.equal(one.high, other.high)


def test_a_batch_is_bytes_in_channels_last(photos: Path) -> None:
    batch = drawn(cached(photos), 1)[0]
    assert (batch.high.shape, batch.high.dtype, batch.low) == ((4, 3, CROP_PX, CROP_PX), torch.uint8, None)
    assert batch.high.is_contiguous(memory_format=torch.channels_last)


def test_crops_are_cut_from_the_pictures(photos: Path) -> None:
    cache = cached(photos)
    windows = [
        np.lib.stride_tricks.sliding_window_view(cache.high(i, k), (CROP_PX, CROP_PX, 3)).reshape(-1, CROP_PX**2 * 3)
        for i in range(len(cache))
        for k in range(cache.levels(i))
    ]
    found = {window.tobytes() for part in windows for window in part}
    for batch in drawn(cache, 8, augment=False):
        assert all(crop.permute(1, 2, 0).numpy().tobytes() in found for crop in batch.high)


def test_the_same_seed_gives_the_same_crops_and_another_one_others(photos: Path) -> None:
    cache = cached(photos)
    first, again, other = drawn(cache, 5), drawn(cache, 5), drawn(cache, 5, seed=8)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a.high, b.high) for a, b in zip(first, other, strict=True))
    assert not same(first[0], first[1])
    drawn(cache, 1, seed=2**64 + 5)  # a rollback may push it over the edge


def test_a_run_that_goes_on_sees_what_it_would_have_seen(photos: Path) -> None:
    cache = cached(photos)
    assert all(same(a, b) for a, b in zip(drawn(cache, 9)[4:], drawn(cache, 5, first_step=4), strict=True))


@pytest.mark.parametrize("world", [2, 4])
def test_several_processes_share_the_batch_of_one(photos: Path, world: int) -> None:
    cache = cached(photos)
    whole = drawn(cache, 3, batch=8)
    fractions = [drawn(cache, 3, batch=8 // world, rank=rank, world=world) for rank in range(world)]
    for step in range(3):
        assert torch.equal(torch.cat([fraction[step].high for fraction in fractions]), whole[step].high)


def test_every_picture_is_met_once_before_any_is_met_again(photos: Path) -> None:
    for seed in range(6):  # each picture in one grey of its own
        put(photos / f"{seed}.png", np.full((40, 48, 3), 40 * seed, np.uint8))
    met = [int(crop[0, 0, 0]) // 40 for b in drawn(cached(photos, min_std=0), 12, batch=2) for crop in b.high]
    rounds = [met[at : at + 6] for at in range(0, 24, 6)]
    assert all(sorted(each) == list(range(6)) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1


def test_all_eight_moves_occur_and_are_the_square_s(tmp_path: Path) -> None:
    square = pixels(0, CROP_PX, CROP_PX)
    put(tmp_path / "one" / "a.png", square)
    moves = {np.rot90(side, augment).tobytes() for side in (square, square[:, ::-1]) for augment in range(4)}
    seen = {crop.permute(1, 2, 0).numpy().tobytes() for b in drawn(cached(tmp_path / "one"), 32) for crop in b.high}
    assert seen == moves
    assert len(moves) == 8


@pytest.mark.parametrize("augment", [True, False])
def test_pairs_are_cut_and_moved_alike(tmp_path: Path, augment: bool) -> None:
    for seed in range(3):
        high = pixels(seed, 41, 50)
        put(tmp_path / "high" / f"{seed}.png", high)
        # Blocks of one colour, so that any move of the pair keeps low[y, x] == high[2y, 2x].
        put(tmp_path / "high" / f"{seed}.png", np.repeat(np.repeat(high[:20, :24], 2, axis=0), 2, axis=1))
        put(tmp_path / "low" / f"{seed}.png", np.ascontiguousarray(high[:20, :24]))
    batches = drawn(cached(tmp_path / "high", low_dirs=(str(tmp_path / "low"),)), 10, augment=augment)
    for batch in batches:
        assert batch.low is not None
        assert batch.low.shape == (4, 3, CROP_PX // 2, CROP_PX // 2)
        assert torch.equal(batch.high[:, :, ::2, ::2], batch.low)
        assert torch.equal(batch.high[:, :, 1::2, 1::2], batch.low)
    assert len({batch.high.numpy().tobytes() for batch in batches}) == 10


def test_the_last_row_and_column_are_reached(tmp_path: Path) -> None:
    picture = pixels(0, CROP_PX + 1, CROP_PX + 1)
    put(tmp_path / "one" / "a.png", picture)
    crops = [
        crop.permute(1, 2, 0).numpy() for b in drawn(cached(tmp_path / "one"), 16, augment=False) for crop in b.high
    ]
    corners = {crop.tobytes() for crop in crops}
    expected = {np.ascontiguousarray(picture[y:, x:][:CROP_PX, :CROP_PX]).tobytes() for y in (0, 1) for x in (0, 1)}
    assert corners == expected


def test_batches_are_made_ahead(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    cut, opened = data_module._move, threading.Event()

    def held(*args: Any) -> None:
        opened.wait(30)
        made.append(1)
        cut(*args)

    monkeypatch.setattr(data_module, "_move", held)
    crops = Crops(cached(photos), seed=0, batch=1, crop_px=CROP_PX, scale=2, augment=True)
    threading.Timer(0.1, opened.set).start()
    began = time.monotonic()
    next(crops)
    waited = time.monotonic() - began
    deadline = time.monotonic() + 30
    while len(made) < data_module._AHEAD and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(made) >= data_module._AHEAD
    began = time.monotonic()
    next(crops)
    assert time.monotonic() - began < waited
    crops.close()


def test_what_goes_wrong_in_a_thread_is_raised_by_next(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(data_module, "_move", broken)
    crops = Crops(cached(photos), seed=0, batch=1, crop_px=CROP_PX, scale=2, augment=True)
    with pytest.raises(OSError, match="the disk is gone"):
        next(crops)
    crops.close()
