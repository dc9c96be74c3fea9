"""Batches for the networks: crops on the device, with their low pictures."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from srgan_cli.dataset import degradation
from srgan_cli.dataset.cache import Cache
from srgan_cli.dataset.crops import Batch, Crops
from srgan_cli.dataset.taught import Taught
from srgan_cli.dataset.wear import without_colours
from srgan_cli.training.run import Run
from srgan_cli.training.sources import Sources
from srgan_cli.training.state import State
from srgan_cli.training.steps import Examples
from srgan_cli.training.teaching import Teacher
from srgan_cli.training_config import Phase

# Changed after a rollback, so that the pictures come in another order; otherwise the same problem would occur again.
_OTHER_ORDER = 1_000_003


class BatchLoader:
    """The batches of one phase and crop size, from this step on. Must be closed.

    `waited_s` is how long the training thread waited for the last one, degradation included. On a GPU the next batch is
    prepared in a thread meanwhile, since codecs run on the host. On a CPU that would compete with training.
    """

    def __init__(self, run: Run, state: State, crop_px: int, sources: Sources, *, ahead: bool | None = None) -> None:
        self._run, self._seed = run, run.config.seed + _OTHER_ORDER * state.rollbacks
        self._teacher = run.teacher if run.teacher is not None and run.teacher.inline else None
        # A teacher sees more than the crop, since its output depends on a large neighbourhood.
        self._around_px = run.config.teacher.context_px if self._teacher is not None else 0
        scale = run.generator.scale
        low_px = crop_px // scale + 2 * self._around_px
        turned = run.config.data.augment
        self._crops = self._opened(state, sources.cache, low_px * scale, scale, sources.taught, turned)
        self._paired = sources.cache.paired
        self._unlabelled: Crops | None = None
        if (self._teacher is not None or run.adaptation is not None) and sources.unlabelled is not None:
            # Wear has a direction (a blur along the film, a codec's rows), which turns would hide.
            turned = turned and run.adaptation is None
            self._unlabelled = self._opened(state, sources.unlabelled, low_px, 1, None, turned)
        self.waited_s = 0.0
        ahead = run.device.type != "cpu" if ahead is None else ahead
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="srgan-loader") if ahead else None
        self._next: Future[Examples] | None = self._maker.submit(self._made) if self._maker else None

    def _opened(
        self, state: State, cache: Cache, crop_px: int, scale: int, taught: Taught | None, turned: bool
    ) -> Crops:
        run = self._run
        return Crops(
            cache,
            seed=self._seed,
            batch=run.config.of(state.phase).batch // run.group.world,
            crop_px=crop_px,
            scale=scale,
            augment=turned,
            rank=run.group.rank,
            world=run.group.world,
            first_step=state.step,
            pin=run.device.type == "cuda",
            taught=taught,
        )

    def __next__(self) -> Examples:
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
        for crops in filter(None, (self._crops, self._unlabelled)):
            crops.close()

    def _made(self) -> Examples:
        made = self._drawn()
        if not self._run.config.data.grey:
            return made
        taught = None if made.taught is None else _grey(made.taught)
        return Examples(_grey(made.low), _grey(made.high), taught, made.worn)

    @torch.no_grad()
    def _drawn(self) -> Examples:
        batch: Batch = next(self._crops)
        high = _on_device(batch.high, self._run.device)
        if batch.low is None:
            low = self._degraded(high, batch.step)
            high = degradation.sharpened(high, self._run.config.degradation.sharpen_target)
        else:
            low = _on_device(batch.low, self._run.device)
        if batch.taught is not None:
            return self._kept(low, high, _on_device(batch.taught, self._run.device))
        if self._run.adaptation is not None and self._unlabelled is not None:
            return Examples(low, high, worn=_on_device(next(self._unlabelled).high, self._run.device))
        return Examples(low, high) if self._teacher is None else self._inline(self._teacher, low, high, batch.step)

    def _degraded(self, high: Tensor, step: int) -> Tensor:
        first = self._run.group.rank * len(high)
        draws = [degradation.rng_for(self._seed, step, first + index) for index in range(len(high))]
        values = [degradation.sample(self._run.config.degradation, draw) for draw in draws]
        low = degradation.apply(high, values, self._run.generator.scale)
        return low.contiguous(memory_format=torch.channels_last)

    def _kept(self, low: Tensor, high: Tensor, taught: Tensor) -> Examples:
        """Originals are sharpened as without a teacher; a teacher's result used instead of an original is left as it
        is."""
        amount = self._run.config.degradation.sharpen_target
        if amount and not self._paired:
            original = (high != taught).flatten(1).any(dim=1)
            high = _where(original, degradation.sharpened(high, amount), high)
        return Examples(low, high, taught)

    def _inline(self, teacher: Teacher, low: Tensor, high: Tensor, step: int) -> Examples:
        """With the teacher's results; some crops are replaced by those of pictures without an original."""
        without = torch.zeros(len(low), dtype=torch.bool, device=low.device)
        if self._unlabelled is not None:
            fraction, world = self._run.config.teacher.unlabelled_fraction, self._run.group.world
            first = (step * world + self._run.group.rank) * len(low)
            numbers = range(first, first + len(low))
            without = torch.tensor([int((n + 1) * fraction) > int(n * fraction) for n in numbers], device=low.device)
            low = _where(without, _on_device(next(self._unlabelled).high, low.device), low)
        taught = teacher(low)
        low, high, taught = (
            _without_border(tensor, self._around_px * unit)
            for tensor, unit in ((low, 1), (high, teacher.scale), (taught, teacher.scale))
        )
        return Examples(low, _where(without, taught, high), taught)


def _grey(pictures: Tensor) -> Tensor:
    return without_colours(pictures).contiguous(memory_format=torch.channels_last)


def _where(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Per crop: `condition` (N), the others (N, 3, H, W)."""
    return torch.where(condition[:, None, None, None], yes, no).contiguous(memory_format=torch.channels_last)


def _without_border(pictures: Tensor, border_px: int) -> Tensor:
    height, width = pictures.shape[2:]
    inner = pictures[:, :, border_px : height - border_px, border_px : width - border_px]
    return inner.contiguous(memory_format=torch.channels_last)


class Batches:
    """The batches of a whole run. A context manager that closes the current loader at its end."""

    def __init__(self, run: Run, state: State, sources: Sources) -> None:
        self._run, self._state, self._sources = run, state, sources
        self._loader: BatchLoader | None = None
        self._made_for: tuple[Phase, int] | None = None

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *exc: object) -> None:
        self.restart()

    def loader(self, crop_px: int) -> BatchLoader:
        """The loader of the run's current phase: the open one, or a new one if phase or crop have changed."""
        wanted = self._state.phase, crop_px
        if self._loader is None or self._made_for != wanted:
            self.restart()
            self._loader, self._made_for = BatchLoader(self._run, self._state, crop_px, self._sources), wanted
        return self._loader

    def restart(self) -> None:
        """Discard what was read ahead: the run resumes from another step."""
        if self._loader is not None:
            self._loader.close()
        self._loader = None


def _on_device(pixels: Tensor, device: torch.device) -> Tensor:
    """uint8 -> float in [0, 1]."""
    moved = pixels.to(device, non_blocking=True)
    return (moved.float() / 255.0).contiguous(memory_format=torch.channels_last)
