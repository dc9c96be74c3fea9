"""What a training run learns from: `scan` (which pictures), `build_cache` (their pixels), `Crops` (endless batches).

Nothing random has a state. A crop follows from the seed, the step and its place in the whole batch, so that a run which
is resumed, or shared out among processes, sees what one process would have seen in one go.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srgan_cli.dataset.cache import Cache, build_cache
from srgan_cli.dataset.pictures import Bytes, read_pixels
from srgan_cli.dataset.scan import Picture, Refusal, Scan, scan

__all__ = ["Batch", "Cache", "Crops", "Picture", "Refusal", "Scan", "build_cache", "read_pixels", "scan"]

# Philox keys (beside the seed) of the places of crops and of the order of pictures; `degradation` has one of its own.
_PLACES, _ORDER = 0x506C6163, 0x4F726472
_AHEAD = 4  # batches that are ready or being made while one is learned from
_THREADS = 2
_WORD = 0xFFFF_FFFF_FFFF_FFFF


@dataclass(frozen=True)
class Batch:
    """Crops of one step: `high` is (N, 3, S, S) uint8, `low` (N, 3, S/scale, S/scale) uint8 or None, if not paired.

    Both are channels_last, which costs nothing, since the pictures are.
    """

    step: int
    high: Tensor
    low: Tensor | None


class Crops:
    """Batches of crops from `first_step` on, without end, made a few steps ahead by threads.

    Each process takes `batch` crops of the whole batch of `world` × `batch`: those from `rank` × `batch` on. Every
    picture is met once before any is met again, in an order that is drawn anew for each lap; which of its levels, and
    where the crop lies, is drawn for each crop. `turns`: one of the eight flips and quarter turns. `pin`: into memory
    that a GPU reads directly.

    `wait_s` is how long `next` had to wait in all: 0 says that data are never what a step waits for. What goes wrong in
    a thread is raised by `next`. To be closed.
    """

    def __init__(
        self,
        cache: Cache,
        *,
        seed: int,
        batch: int,
        crop_px: int,
        scale: int,
        augment: bool,
        rank: int = 0,
        world: int = 1,
        first_step: int = 0,
        pin: bool = False,
    ) -> None:
        assert crop_px <= cache.crop_px, f"the cache was made for crops of at most {cache.crop_px} px"
        assert crop_px % scale == 0
        assert 0 <= rank < world
        self.wait_s = 0.0
        self._cache, self._seed, self._batch = cache, seed & _WORD, batch
        self._crop_px, self._scale, self._turns, self._pin = crop_px, scale, augment, pin
        self._rank, self._world = rank, world
        # A batch seldom spans more than two laps, and drawing an order again costs little.
        self._order = functools.lru_cache(2)(lambda lap: _generator(self._seed, _ORDER, lap).permutation(len(cache)))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="srgan-crops")
        self._next_step = first_step
        self._waiting: deque[Future[Batch]] = deque()
        for _ in range(_AHEAD):
            self._begin()

    def __iter__(self) -> Crops:
        return self

    def __next__(self) -> Batch:
        began_s = time.perf_counter()
        batch = self._waiting.popleft().result()
        self.wait_s += time.perf_counter() - began_s
        self._begin()
        return batch

    def close(self) -> None:
        """Let the threads end. Batches that were handed out stay valid."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        self._waiting.append(self._pool.submit(self._made, self._next_step))
        self._next_step += 1

    def _made(self, step: int) -> Batch:
        high = self._empty(self._crop_px)
        low = self._empty(self._crop_px // self._scale) if self._cache.paired else None
        first = self._rank * self._batch
        # All processes draw for the whole batch, and each takes its own rows.
        draws = _generator(self._seed, _PLACES, step).random((self._world * self._batch, 4))[first:]
        for i in range(self._batch):
            picture = self._picture(step * self._world * self._batch + first + i)
            self._cut(picture, draws[i], high.numpy()[i], None if low is None else low.numpy()[i])
        return Batch(step, high.permute(0, 3, 1, 2), None if low is None else low.permute(0, 3, 1, 2))

    def _empty(self, side_px: int) -> Tensor:
        return torch.empty((self._batch, side_px, side_px, 3), dtype=torch.uint8, pin_memory=self._pin)

    def _picture(self, position: int) -> int:
        """Which picture is the `position`-th that the run meets."""
        lap, place = divmod(position, len(self._cache))
        return int(self._order(lap)[place])

    def _cut(self, index: int, draw: npt.NDArray[np.float64], high: Bytes, low: Bytes | None) -> None:
        """One crop into `high`, and the same part of the small twin into `low`."""
        level, top, left, turn = draw
        source = self._cache.high(index, int(level * self._cache.levels(index)))
        side_px = self._crop_px
        # A crop of paired data begins at a pixel of the small picture.
        step_px = 1 if low is None else self._scale
        y = int(top * ((source.shape[0] - side_px) // step_px + 1))
        x = int(left * ((source.shape[1] - side_px) // step_px + 1))
        move = int(turn * 8) if self._turns else 0
        _move(source[y * step_px :, x * step_px :][:side_px, :side_px], move, high)
        if low is not None:
            side_px //= self._scale
            _move(self._cache.low(index)[y : y + side_px, x : x + side_px], move, low)


def _move(crop: Bytes, move: int, target: Bytes) -> None:
    """One of the eight moves of a square that leave it a square: 1 mirrors, 2 turns upside down, 4 transposes.

    By OpenCV, which takes a few microseconds where NumPy's strided copies take more than a hundred.
    """
    flip = (None, 1, 0, -1)[move & 3]
    if move & 4:
        cv2.transpose(crop if flip is None else cv2.flip(crop, flip), target)
    elif flip is not None:
        cv2.flip(crop, flip, target)
    else:
        np.copyto(target, crop)


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    """Random numbers that these alone decide. Philox counts, so that any place in its sequence is at hand at once."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, number, 0]))
