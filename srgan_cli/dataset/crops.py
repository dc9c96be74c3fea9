"""The data of a training run: `scan` (which pictures), `build_cache` (their pixels), `Crops` (an endless series of
batches).

With a teacher, crops come from its stored pieces (`taught`) instead of whole pictures.

Randomness is stateless: a crop depends on the seed, the step and its index in the whole batch. So a run that is
resumed, or divided among processes, uses the same crops as a single uninterrupted process.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srgan_cli.dataset.cache import Cache, build_cache
from srgan_cli.dataset.draws import generator
from srgan_cli.dataset.folders import Refusal
from srgan_cli.dataset.pictures import Bytes, read_pixels
from srgan_cli.dataset.scan import Picture, Scan, scan
from srgan_cli.dataset.taught import Taught

__all__ = ["Batch", "Cache", "Crops", "Picture", "Refusal", "Scan", "build_cache", "read_pixels", "scan"]

# Philox keys (beside the seed) for the positions of crops and the order of pictures; `degradation` has its own.
_PLACES, _ORDER = 0x506C6163, 0x4F726472
_AHEAD = 4  # batches that are ready or in preparation during a step
_THREADS = 2


@dataclass(frozen=True)
class Batch:
    """Crops of one step: `high` is (N, 3, S, S) uint8, `low` (N, 3, S/scale, S/scale) uint8, or None if it has yet to
    be made. `taught`: a teacher's results for `low`, as large as `high`.

    All are channels_last, which costs nothing, since the pictures are.
    """

    step: int
    high: Tensor
    low: Tensor | None
    taught: Tensor | None = None


class Crops:
    """Endless batches of crops from `first_step` on, prepared a few steps ahead by threads.

    Each process takes `batch` crops of the whole batch of `world` × `batch`, starting at `rank` × `batch`. Every
    picture is used once per lap, in an order that is drawn again for each lap; its level and the position of the crop
    are drawn for each crop. With `taught` the same applies to its pieces. `augment`: a random one of the eight flips
    and quarter turns. `pin`: into memory that a GPU can read directly.

    Exceptions in a thread are raised by `next`. Must be closed.
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
        taught: Taught | None = None,
    ) -> None:
        assert crop_px <= cache.crop_px, f"the cache was made for crops of at most {cache.crop_px} px"
        assert crop_px % scale == 0
        assert 0 <= rank < world
        self._cache, self._seed, self._batch = cache, seed, batch
        self._crop_px, self._scale, self._augment, self._pin = crop_px, scale, augment, pin
        self._rank, self._world = rank, world
        self._taught = taught
        self._count = len(cache if taught is None else taught)
        # A batch seldom spans more than two laps, and drawing an order again costs little.
        self._order = functools.lru_cache(2)(lambda lap: generator(self._seed, _ORDER, lap).permutation(self._count))
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="srgan-crops")
        self._next_step = first_step
        self._waiting: deque[Future[Batch]] = deque()
        for _ in range(_AHEAD):
            self._begin()

    def __iter__(self) -> Crops:
        return self

    def __next__(self) -> Batch:
        batch = self._waiting.popleft().result()
        self._begin()
        return batch

    def close(self) -> None:
        """End the threads. Batches that were returned stay valid."""
        self._pool.shutdown(cancel_futures=True)

    def _begin(self) -> None:
        self._waiting.append(self._pool.submit(self._made, self._next_step))
        self._next_step += 1

    def _made(self, step: int) -> Batch:
        small_px = self._crop_px // self._scale
        high = self._empty(self._crop_px)
        low = self._empty(small_px) if self._cache.paired or self._taught is not None else None
        result = self._empty(self._crop_px) if self._taught is not None else None
        targets = [None if tensor is None else tensor.numpy() for tensor in (high, low, result)]
        first = self._rank * self._batch
        # All processes draw for the whole batch, and each takes its own rows.
        draws = generator(self._seed, _PLACES, step).random((self._world * self._batch, 4))[first:]
        for i in range(self._batch):
            number = self._met(step * self._world * self._batch + first + i)
            self._cut(number, draws[i], [None if target is None else target[i] for target in targets])
        return Batch(
            step, high.permute(0, 3, 1, 2), *(None if t is None else t.permute(0, 3, 1, 2) for t in (low, result))
        )

    def _empty(self, side_px: int) -> Tensor:
        return torch.empty((self._batch, side_px, side_px, 3), dtype=torch.uint8, pin_memory=self._pin)

    def _met(self, position: int) -> int:
        """Index of the picture, or piece, at `position` in the run's sequence."""
        lap, place = divmod(position, self._count)
        return int(self._order(lap)[place])

    def _views(self, number: int, level: float) -> tuple[Bytes, Bytes | None, Bytes | None]:
        """The whole pictures, or pieces, that crops are cut from: high, low, and the teacher's result."""
        if self._taught is not None:
            return self._taught.high(number), self._taught.low(number), self._taught.result(number)
        low = self._cache.low(number) if self._cache.paired else None
        return self._cache.high(number, int(level * self._cache.levels(number))), low, None

    def _cut(self, number: int, draw: npt.NDArray[np.float64], targets: Sequence[Bytes | None]) -> None:
        """Cut the same crop from each view into its target."""
        level, top, left, turn = draw
        views = self._views(number, level)
        side_px = self._crop_px
        # If there is a low picture, a crop begins at one of its pixels.
        step_px = 1 if views[1] is None else self._scale
        y, x = (
            int(at * ((length - side_px) // step_px + 1)) * step_px
            for at, length in zip((top, left), views[0].shape[:2], strict=True)
        )
        move = int(turn * 8) if self._augment else 0
        for view, target, unit in zip(views, targets, (1, self._scale, 1), strict=True):
            if view is not None and target is not None:
                _move(view[y // unit :, x // unit :][: side_px // unit, : side_px // unit], move, target)


def _move(crop: Bytes, move: int, target: Bytes) -> None:
    """Apply one of the eight symmetries of a square: 1 mirrors, 2 turns upside down, 4 transposes.

    Uses OpenCV, which takes a few microseconds, while NumPy's strided copies take more than a hundred.
    """
    flip = (None, 1, 0, -1)[move & 3]
    if move & 4:
        cv2.transpose(crop if flip is None else cv2.flip(crop, flip), target)
    elif flip is not None:
        cv2.flip(crop, flip, target)
    else:
        np.copyto(target, crop)
