"""The engine: enlarges rows of pixels with a network, in bounded memory.

    rows ──> bands ──> tiles on the device ──> the network ──> integers ──> the finished picture's rows

A band (one row of tiles) is final once done. The device holds one batch of tiles at a time; memory holds one band of
the input. The result is written directly into the caller's array, which may be a memory map.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from srgan_cli.config import EngineOptions
from srgan_cli.engine import bands, pixels, runners
from srgan_cli.engine.backends.choice import choose
from srgan_cli.engine.backends.protocol import Backend
from srgan_cli.engine.chain import BLEND_PX, Chain
from srgan_cli.engine.rows import ArrayRows, RowSource, RowWindow
from srgan_cli.engine.tiles import Span, cut, next_rows
from srgan_cli.errors import DeviceError, OutOfMemoryError, SettingsError
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.weights import Model

_T = TypeVar("_T")

# Smaller tiles are almost all halo; a device that cannot hold this one cannot run the model.
SMALLEST_TILE_PX = 16
# Neighbouring fades must not overlap: an even cut may make tiles of half the requested size.
SMALLEST_BLENDED_TILE_PX = 2 * BLEND_PX


@dataclass(frozen=True)
class Statistics:
    """What a run had to correct, for the summary and for tests."""

    tiles: int = 0
    redone_in_fp32: int = 0
    out_of_memory: int = 0


class Upscaler:
    """Enlarges pictures with one network, or with several one after the other.

    >>> upscaler = Upscaler(load_model("srgan-x4"))
    >>> high = upscaler.upscale(low)  # (H, W, C) uint8 or uint16 -> (4H, 4W, C) of the same type

    Arrays are HWC, RGB order, with C of 1 (grey), 2 (grey + alpha), 3 or 4 (RGBA, straight alpha). Tiling does not
    change the result, except for float rounding. Several threads may share an `Upscaler`: their pictures are enlarged
    one after the other. Raises `DeviceError` if the requested device is missing, `OutOfMemoryError` if not even a tile
    of 16 px fits. Networks that draw their detail from noise use seed 0, see `varied`.
    """

    def __init__(
        self,
        model: Model | Sequence[Model],
        options: EngineOptions | None = None,
        *,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options or EngineOptions()
        if self.options.has_several_devices:
            raise SettingsError(f"--device {self.options.device} names several devices, but only one can be used here")
        self.models = (model,) if isinstance(model, Model) else tuple(model)
        self._note = on_note or (lambda _sentence: None)
        self.compute: Backend = choose(self.options, self.models, self._note)
        with self.compute.inference():
            trusted = self._trusted_chain()
            self._use(trusted.ensemble() if self.options.ensemble else trusted)
        self.windows_at_once = self.compute.windows_at_once
        self.statistics = Statistics()
        self.noise = Noise() if self.has_noise and self.chain.draws else None
        self._one_at_a_time = threading.Lock()

    def _use(self, chain: Chain) -> None:
        """Run this chain, in tiles that fit it."""
        self.chain = chain
        self.tile_px = self.options.tile_px or self._fitting_tile()
        if chain.blend_px:
            self.tile_px = max(self.tile_px, SMALLEST_BLENDED_TILE_PX)

    @property
    def scale(self) -> int:
        """How many times wider and higher the result is."""
        return self.chain.scale

    @property
    def has_noise(self) -> bool:
        """Whether one of its networks draws its detail from noise, so that a result has variants; an ensemble does
        not."""
        return any(model.network.has_noise for model in self.models) and not self.options.ensemble

    def varied(self, seed: int = 0, variation: float = 1.0) -> Upscaler:
        """A variation that shares the networks and draws their detail from the noise of a seed, with a strength from 0
        to 1.

        Raises `DeviceError` if the device does not support it. For networks without noise, nothing changes.
        """
        if not self.has_noise:
            return self
        if variation and not self.chain.draws:
            names = " and ".join(model.name for model in self.models)
            raise DeviceError(
                f"{names} draws its detail from noise, and {self.compute.name} computes it without: give --device cpu "
                "(or another of PyTorch's), or --variation 0"
            )
        other = copy.copy(self)
        other.noise = Noise(seed, variation) if variation else None
        return other

    def averaged(self) -> Upscaler:
        """An ensemble (`engine.ensemble`) that shares the networks."""
        if self.options.ensemble:
            return self
        other = copy.copy(self)
        other.options, other.noise = replace(self.options, ensemble=True), None
        with self.compute.inference():
            other._use(self.chain.ensemble())
        return other

    def upscale(self, low: Pixels, origin: tuple[int, int] = (0, 0)) -> Pixels:
        """(H, W, C) uint8 or uint16 -> (H·scale, W·scale, C) of the same type. `origin` is the row and column of `low`
        in a larger picture, if it is a part of one."""
        if not isinstance(low, np.ndarray):
            raise TypeError(f"expected an array (of a Pillow image: np.asarray(image)), not {type(low).__name__}")
        if low.ndim != 3 or low.shape[2] not in (1, 2, 3, 4) or low.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"expected (H, W, 1 to 4) of uint8 or uint16, not {low.shape} of {low.dtype}")
        height, width, channels = low.shape
        high = np.empty((height * self.scale, width * self.scale, channels), low.dtype)
        self.upscale_rows(ArrayRows(low), high, origin=origin)
        return high

    def upscale_rows(
        self,
        source: RowSource,
        out: Pixels,
        *,
        on_rows: Callable[[int], None] | None = None,
        on_part: Callable[[int], None] | None = None,
        first_row: int = 0,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        """Enlarge all of `source`'s rows into `out`, (H·scale, W·scale, C), whose type determines the depth.

        `on_rows` is called after each band with the number of low-resolution rows that have become final, and `on_part`
        while a band is computed, with about how many of its low-resolution px are done (by CUDA not at all: it is fast,
        and asking would make it wait); if a tile has to be computed again, that is fewer than before. Bands above
        `first_row` count as done (for resuming an interrupted run); the source still starts at row 0. Models with
        blended tiles compute every row again. `origin` as for `upscale`. Exceptions from `on_rows` and `on_part` end
        the work and are raised unchanged.
        """
        height, width = out.shape[0] // self.scale, out.shape[1] // self.scale
        with self._one_at_a_time, self.compute.inference(), _unchanged():
            runner = runners.runner(self.chain, self.noise, origin, _apart(on_part or (lambda _px: None)))
            self._run_bands(runner, RowWindow(source), out, height, width, on_rows or (lambda _rows: None), first_row)

    def first_row(self, done_rows: int) -> int:
        """The first row to compute when resuming a picture of which `done_rows` are finished: `done_rows`, or 0 for
        blended tiles, since the overlap from above is not stored."""
        return 0 if self.chain.blend_px else done_rows

    def bands_of(self, width: int, channels: int, depth_bytes: int = 1) -> tuple[int, int, int]:
        """How a picture is cut for `upscale_strip`: the tile's side, a band's rows, and the rows of context above and
        below it. If tiles are blended, the side is 0 and there are no strips."""
        if self.chain.blend_px:
            return 0, 0, 0
        out = np.empty((0, width * self.scale, channels), np.uint8 if depth_bytes == 1 else np.uint16)
        return self.tile_px, self._band_px(runners.runner(self.chain), out), self._halo_px(channels)

    def upscale_strip(
        self, low: Pixels, rows: Span, out: Pixels, tile_px: int, on_part: Callable[[int], None] | None = None
    ) -> None:
        """Enlarge rows [rows.start, rows.stop) of a picture into `out`; `low` holds its rows [rows.begin, rows.end).
        `on_part` is called as by `upscale_rows`, with the px of the strip that are done, and its exceptions are raised
        unchanged, too.

        With the tile side that `upscale_rows` uses, one of its bands, and the same kernels (`backends.fused` chooses
        them in a trial), the result is bit-identical.
        """
        with self._one_at_a_time, self.compute.inference(), _unchanged():
            top = rows.start

            def report(px: int) -> None:
                if on_part is not None:
                    on_part((top - rows.start) * low.shape[1] + px)

            runner = runners.runner(self.chain, self.noise, (rows.start, 0), _apart(report))
            halo_px = self._halo_px(out.shape[2])
            while top < rows.stop:
                side = min(tile_px, self.tile_px)
                core = next_rows(top - rows.start, rows.core, self._band_px(runner, out, side), 0).core
                band = Span(max(rows.begin, top - halo_px), top, top + core, min(rows.end, top + core + halo_px))
                whole_px = 0 if self.options.tile_px else side + 2 * halo_px
                columns = cut(low.shape[1], side, halo_px, uniform=runner.uniform, whole_px=whole_px)
                part = low[band.begin - rows.begin : band.end - rows.begin]
                place = Span(*(edge - rows.start for edge in (band.begin, band.start, band.stop, band.end)))
                batch_px = side**2 * self.windows_at_once
                started = self._attempt(partial(runner.start, part, place, columns, out, batch_px))
                redone = None if started is None else self._attempt(started.finish)
                if started is None or redone is None:
                    self._shrink()
                    continue
                self._count(started, redone)
                top += core

    def _halo_px(self, channels: int) -> int:
        return self.chain.halo_px + (pixels.BLEED_PX if channels in (2, 4) else 0)

    def _run_bands(
        self,
        runner: bands.Runner,
        window: RowWindow,
        out: Pixels,
        height: int,
        width: int,
        on_rows: Callable[[int], None],
        first_row: int,
    ) -> None:
        halo_px = self._halo_px(out.shape[2])
        waiting: list[bands.Pending] = []  # bands that are running, or whose results are being downloaded
        top = final = self.first_row(first_row)
        while top < height or waiting:
            if top < height:
                whole_px = 0 if self.options.tile_px else self.tile_px + 2 * halo_px
                band_px = self._band_px(runner, out)
                rows = next_rows(top, height, band_px, halo_px, whole_px=whole_px if band_px == self.tile_px else 0)
                columns = cut(width, self.tile_px, halo_px, uniform=runner.uniform, whole_px=whole_px)
                low = window.take(rows.begin, rows.end, keep_from=waiting[0].rows.begin if waiting else rows.begin)
                batch_px = self.tile_px**2 * self.windows_at_once
                started = self._attempt(partial(runner.start, low, rows, columns, out, batch_px))
                if started is None:
                    self._shrink()
                    continue
                waiting.append(started)
                top = rows.stop
            # If the device works asynchronously, one band may be in progress while the next one starts.
            allowed = 1 if runner.asynchronous and top < height else 0
            while len(waiting) > allowed:
                band = waiting[0]
                redone = self._attempt(band.finish)
                if redone is None:
                    self._shrink()
                    top = band.rows.start
                    waiting.clear()
                    break
                waiting.pop(0)
                self._count(band, redone)
                on_rows(band.final - final)
                final = band.final

    def _attempt(self, step: Callable[[], _T]) -> _T | None:
        """The result of a step on the device, or None if it ran out of memory. Raises `DeviceError` for other errors.

        The exception is released before this returns, since its traceback would keep the step's memory allocated.
        """
        try:
            return step()
        except (RuntimeError, MemoryError) as err:
            if not self.compute.is_out_of_memory(err):
                raise _device_error(err, self.compute) from err
            return None

    def _band_px(self, runner: bands.Runner, out: Pixels, tile_px: int | None = None) -> int:
        """Rows of a band: the tile's side, or fewer if a whole band has to be held and the picture is wide."""
        tile_px = tile_px or self.tile_px
        if runner.band_bytes is None:
            return tile_px
        row_bytes: int = out.shape[1] * out.shape[2] * out.itemsize * self.scale
        least = min(tile_px, BLEND_PX * 2)
        return max(least, min(tile_px, runner.band_bytes // row_bytes))

    def _count(self, band: bands.Pending, redone: int) -> None:
        before = self.statistics
        if redone and not before.redone_in_fp32:
            self._note(f"a tile overflowed in {self.compute.precision} and was computed again in fp32")
        self.statistics = Statistics(before.tiles + band.tiles, before.redone_in_fp32 + redone, before.out_of_memory)

    def _shrink(self) -> None:
        """Halve the tile for the rest of this object's life, since the memory will not become free again.

        Raises `OutOfMemoryError` if the tile is already the smallest.
        """
        self.compute.empty_cache()
        smallest = SMALLEST_BLENDED_TILE_PX if self.chain.blend_px else SMALLEST_TILE_PX
        if self.tile_px <= smallest:
            raise _no_room(self.compute, f"for tiles of {self.tile_px} px")
        smaller = max(smallest, self.tile_px // 2)
        before = self.statistics
        self.statistics = Statistics(before.tiles, before.redone_in_fp32, before.out_of_memory + 1)
        self._note(f"out of memory with tiles of {self.tile_px} px: continuing with {smaller} px")
        self.tile_px = smaller

    def _trusted_chain(self) -> Chain:
        """The chain on the chosen backend; on the CPU if `auto` chose a backend that fails."""
        try:
            return self._checked_chain()
        except DeviceError as err:
            if self.options.device != "auto" or self.compute.referee(self.models) is None:
                raise
            safe = choose(replace(self.options, device="cpu"), self.models, self._note)
            if safe.name == self.compute.name:
                raise
            self._note(f"continuing with {safe.name}: {err}")
            self.compute = safe
            return self._checked_chain()

    def _checked_chain(self) -> Chain:
        """The chain in the chosen precision, or in fp32 if the canary finds half precision unsafe."""
        chain = self._chain()
        while (distrust := self._distrust(chain)) is not None:
            if self.compute.precision == "fp32":
                name = self.compute.name
                raise DeviceError(f"{name} computes incorrectly: {distrust}. Update its driver, or use --device cpu")
            reason = f"precision fp32: {distrust}"
            self._note(reason)
            self.compute = self.compute.exact(reason)
            chain = self._chain()
        return chain

    def _chain(self) -> Chain:
        try:
            return Chain(self.models, self.compute, color_lock=self.options.color_lock)
        except (RuntimeError, MemoryError) as err:
            if self.compute.is_out_of_memory(err):
                raise _no_room(self.compute, "to hold the model") from err
            raise _device_error(err, self.compute) from err

    def _distrust(self, chain: Chain) -> str | None:
        """Why this backend, or its precision, must not be used with this model; None if the canary passes."""
        compute, referee = self.compute, self.compute.referee(self.models)
        if referee is None or (compute.chosen_precision and compute.precision != "fp32"):
            return None
        try:
            difference = chain.canary(referee)
        except (RuntimeError, MemoryError) as err:
            if compute.is_out_of_memory(err):
                raise _no_room(compute, "to run the model") from err
            if compute.precision == "fp32":
                raise _device_error(err, compute) from err
            # Some networks create fp32 tensors internally and then fail to multiply the two types.
            return f"this model cannot run in {compute.precision}"
        if difference.is_small:
            return None
        return f"{compute.precision} differs by up to {difference.largest:.3g} from {_truth(compute)} with this model"

    def _fitting_tile(self) -> int:
        """Side of the largest square tile that certainly fits, in px of its core; not larger than is useful.

        On an accelerator the memory is shared by a batch of tiles, on the host there is one at a time.
        """
        budget_bytes = self.compute.budget_bytes()
        if not self.chain.blend_px:  # blended tiles run one by one
            budget_bytes /= self.compute.windows_at_once
        try:
            window_px = (budget_bytes / self.chain.bytes_per_px()) ** 0.5
        except (RuntimeError, MemoryError) as err:
            if not self.compute.is_out_of_memory(err):
                raise _device_error(err, self.compute) from err
            window_px = 0.0  # the run starts with the smallest tile, which is halved if necessary
        return int(max(64, min(self.compute.max_window_px, window_px) - 2 * self.chain.halo_px))


class _CallersError(Exception):
    """Carries an exception of the caller's past `_attempt`, which would take it for the device's."""

    def __init__(self, original: Exception) -> None:
        super().__init__(original)
        self.original = original


def _apart(on_part: Callable[[int], None]) -> Callable[[int], None]:
    def report(px: int) -> None:
        try:
            on_part(px)
        except (RuntimeError, MemoryError) as err:
            raise _CallersError(err) from err

    return report


@contextlib.contextmanager
def _unchanged() -> Iterator[None]:
    """Raises the caller's exceptions as they were."""
    try:
        yield
    except _CallersError as err:
        raise err.original  # noqa: B904 - it has a cause of its own, or none


def _truth(compute: Backend) -> str:
    return "the CPU's result" if compute.precision == "fp32" else "it"


def _no_room(compute: Backend, what_for: str) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"{compute.name} has too little free memory {what_for}; close other programs, choose a smaller model, or use "
        "--device cpu"
    )


def _device_error(err: BaseException, compute: Backend) -> DeviceError:
    first_line = str(err).strip().splitlines()[0] if str(err).strip() else type(err).__name__
    return DeviceError(f"{compute.name} failed: {first_line}. Try --precision fp32, or --device cpu")
