"""Batches as the networks want them: crops on the device, with their low pictures made."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from srgan_cli.dataset import degradation
from srgan_cli.dataset.cache import Cache
from srgan_cli.dataset.crops import Batch, Crops
from srgan_cli.training.run import Run
from srgan_cli.training.state import State
from srgan_cli.training_config import Phase

# After a rollback the pictures come in another order, or the same accident would happen again.
_OTHER_ORDER = 1_000_003


class BatchLoader:
    """The batches of one phase and crop size, from this step on. To be closed.

    `waited_s` is how long the training thread has had to wait for the last one, degradation included. Where a GPU
    trains, the next batch is made in a thread meanwhile: codecs run on the host. On a CPU that would be in the way.
    """

    def __init__(self, run: Run, state: State, crop_px: int, cache: Cache, *, ahead: bool | None = None) -> None:
        self._run, self._seed = run, run.config.seed + _OTHER_ORDER * state.rollbacks
        self._crops = Crops(
            cache,
            seed=self._seed,
            batch=run.config.of(state.phase).batch // run.group.world,
            crop_px=crop_px,
            scale=run.generator.scale,
            augment=run.config.data.augment,
            rank=run.group.rank,
            world=run.group.world,
            first_step=state.step,
            pin=run.device.type == "cuda",
        )
        self.waited_s = 0.0
        ahead = run.device.type != "cpu" if ahead is None else ahead
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="srgan-loader") if ahead else None
        self._next: Future[tuple[Tensor, Tensor]] | None = self._maker.submit(self._made) if self._maker else None

    def __next__(self) -> tuple[Tensor, Tensor]:
        """`low` (N, 3, S / scale, S / scale) and `high` (N, 3, S, S), floats in [0, 1]."""
        began_s = time.perf_counter()
        if self._maker is None or self._next is None:
            made = self._made()
        else:
            made, self._next = self._next.result(), self._maker.submit(self._made)
        self.waited_s = time.perf_counter() - began_s
        return made

    def close(self) -> None:
        if self._maker is not None:
            self._maker.shutdown(cancel_futures=True)
        self._crops.close()

    @torch.no_grad()
    def _made(self) -> tuple[Tensor, Tensor]:
        batch: Batch = next(self._crops)
        settings, scale, group = self._run.config.degradation, self._run.generator.scale, self._run.group
        high = _on_device(batch.high, self._run.device)
        if batch.low is not None:
            return _on_device(batch.low, self._run.device), high
        first = group.rank * len(high)
        draws = [degradation.rng_for(self._seed, batch.step, first + index) for index in range(len(high))]
        values = [degradation.sample(settings, draw) for draw in draws]
        low = degradation.apply(high, values, scale).contiguous(memory_format=torch.channels_last)
        return low, degradation.sharpened(high, settings.sharpen_target) if settings.sharpen_target else high


class Batches:
    """The batches of a whole run. A context manager: what is open is closed at its end."""

    def __init__(self, run: Run, state: State, cache: Cache) -> None:
        self._run, self._state, self._cache = run, state, cache
        self._loader: BatchLoader | None = None
        self._made_for: tuple[Phase, int] | None = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exc: object) -> None:
        self.restart()

    def loader(self, crop_px: int) -> BatchLoader:
        """The loader of the phase that the run is in: the open one, or a new one where phase or crop have changed."""
        wanted = self._state.phase, crop_px
        if self._loader is None or self._made_for != wanted:
            self.restart()
            self._loader, self._made_for = BatchLoader(self._run, self._state, crop_px, self._cache), wanted
        return self._loader

    def restart(self) -> None:
        """What was read ahead is not wanted: the run goes on from another step."""
        if self._loader is not None:
            self._loader.close()
        self._loader = None


def _on_device(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 -> float in [0, 1]."""
    moved = pixels.to(device, non_blocking=True)
    return (moved.float() / 255.0).contiguous(memory_format=torch.channels_last)
