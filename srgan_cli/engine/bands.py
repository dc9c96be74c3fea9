"""Runs one band at a time through a chain: on the host, or with blended tiles. For a GPU see `runners`.

Each runner has `start(low, rows, columns, out) -> Pending`. `low` holds the band's rows with their context, all
columns; `out` is the whole finished picture. On CUDA `start` only queues work, and `Pending.finish` waits for it while
the next band already runs. Starting the same band twice is harmless.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.engine import pixels
from srgan_cli.engine.backends.memory import release_free_blocks
from srgan_cli.engine.chain import BLEND_PX, Chain
from srgan_cli.engine.tiles import Span
from srgan_cli.errors import WeightsError
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.noise import Noise

# A band on an accelerator, or with blended tiles, is held whole, twice; on the host only its input is.
BAND_BYTES = 192 << 20
# On a CPU, integers are made strip by strip, so that a strip of sub-pixels stays in the cache.
STRIP_PX = 32
# Inside smaller tiles, progress is not reported.
FOLLOWED_PX = 128 * 128
# The heap is trimmed after a band of windows above this size, and after a picture of a single window once more than
# this has accumulated. Smaller windows leave little.
TRIM_PX = 512 * 1024
FREE_BLOCKS_BYTES = 1280 << 20

TORCH_DTYPES = {np.dtype(np.uint8): torch.uint8, np.dtype(np.uint16): torch.uint16}


@dataclass(frozen=True)
class Pending:
    """A started band. `finish` blocks until it is in `out` and returns how many tiles were recomputed in fp32. After
    that, all rows above `final` are finished."""

    rows: Span
    tiles: int
    finish: Callable[[], int]
    final: int


class Runner(Protocol):
    """The interface that the engine uses."""

    uniform: bool  # all windows should have the same size
    asynchronous: bool  # a band continues to run while the next one starts
    band_bytes: int | None  # maximum finished rows in one band

    def start(self, low: Pixels, rows: Span, columns: Sequence[Span], out: Pixels, batch_px: int) -> Pending:
        """`batch_px`: how many low-resolution px may pass through the network at a time."""


OnPart: TypeAlias = Callable[[int], None]


def unreported(_px: int) -> None: ...


class _Output(NamedTuple):
    """The network's output for some windows: sub-pixels (N, 3r² or r², …), alpha (N, 1, h, w), and finite (N,) bool."""

    subpixels: Tensor
    alpha: Tensor | None
    finite: Tensor


class Tiles:
    """Turns windows into cores, as integers. Holds the fp32 copy of the chain, made when first needed."""

    def __init__(self, chain: Chain, noise: Noise | None, origin: tuple[int, int], on_part: OnPart) -> None:
        self.chain = chain
        self._noise, self._origin, self._on_part = noise, origin, on_part
        self._exact: Chain | None = None

    def run(self, chain: Chain, windows: Tensor, rows: Span, columns: Sequence[Span]) -> _Output:
        """(N, h, w, C) integers, of pictures with C channels, through the network. They are at `rows`, each at one of
        the `columns`."""
        top, left = self._origin
        corners = [(top + rows.begin, left + column.begin) for column in columns]
        low, alpha = pixels.split(windows)
        low = low if alpha is None else pixels.bleed(low, alpha)
        # Apple's GPUs lack some of the integer types; there, only the network runs on the device.
        noise = None if self._noise is None else self._noise.at(corners)
        subpixels = chain.subpixels(low.to(chain.device), noise).to(windows.device)
        # The sum of a tile is finite only if all of its values are: one pass and no mask.
        finite = torch.isfinite(subpixels.sum((1, 2, 3)))
        if windows.shape[-1] <= 2:
            subpixels = pixels.luma(subpixels)
        return _Output(subpixels, alpha, finite)

    def run_one(self, chain: Chain, window: Tensor, rows: Span, column: Span) -> _Output:
        """As `run`, for one tile; reports the part of the band that is done, also inside a large tile."""
        large = rows.core * column.core >= FOLLOWED_PX
        with chain.followed(partial(self.report, rows, column)) if large else contextlib.nullcontext():
            output = self.run(chain, window, rows, (column,))
        self.report(rows, column, 1.0)
        return output

    def report(self, rows: Span, column: Span, fraction: float) -> None:
        """Of the tile at `column`, and of those before it in the band."""
        self._on_part(round(rows.core * (column.start + fraction * column.core)))

    def exact(self) -> Chain:
        """The chain in fp32, for tiles that overflowed in half precision. Raises `WeightsError` if it already is in
        fp32."""
        if self.chain.backend.precision == "fp32":
            raise not_finite(self.chain)
        if self._exact is None:
            self._exact = self.chain.exact()
        return self._exact

    def pieces(
        self, output: _Output, rows: Span, columns: Sequence[Span], dtype: torch.dtype, strip_px: int
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """The cores of one band's tiles as integers, in strips of `strip_px` low-resolution rows.

        Each comes with its position in the finished band: rows counted from the band's first, columns from the
        picture's.
        """
        chain = self.chain
        scale, fold = chain.scale, chain.scale // chain.shuffle
        alpha = None if output.alpha is None else pixels.enlarge_alpha(output.alpha, scale)
        for i, column in enumerate(columns):
            across = slice(column.start * scale, column.stop * scale)
            for top in range(0, rows.core, strip_px):
                bottom = min(top + strip_px, rows.core)
                inner = slice(rows.inner.start + top, rows.inner.start + bottom)
                core = output.subpixels[i : i + 1, :, _times(inner, fold), _times(column.inner, fold)]
                shade = (
                    None if alpha is None else alpha[i : i + 1, :, _times(inner, scale), _times(column.inner, scale)]
                )
                yield slice(top * scale, bottom * scale), across, pixels.join(core, chain.shuffle, shade, dtype)[0]


class HostRunner:
    """The host's memory: one tile at a time, directly into the finished picture. Where another device runs the network
    (a GPU through Vulkan, Apple's), it runs the next tile while the host writes this one.

    All windows have the same size, so that a tile's memory blocks fit where the previous tile's were.
    """

    uniform = True
    asynchronous = False
    band_bytes: int | None = None

    def __init__(
        self, chain: Chain, noise: Noise | None, origin: tuple[int, int], on_part: OnPart = unreported
    ) -> None:
        self._tiles = Tiles(chain, noise, origin, on_part)
        self._scale = chain.scale

    def start(self, low: Pixels, rows: Span, columns: Sequence[Span], out: Pixels, batch_px: int) -> Pending:
        low, target = without_constant_alpha(low, rows_of(out, rows, self._scale))
        ahead = self._tiles.chain.backend.leaves_host_free and len(columns) > 1
        redone = (
            self._tiles_ahead(low, rows, columns, target)
            if ahead
            else sum(self._tile(low, rows, column, target) for column in columns)
        )
        if rows.window * columns[0].window > TRIM_PX:
            several = len(columns) > 1 or rows.core < out.shape[0] // self._scale
            release_free_blocks(0 if several else FREE_BLOCKS_BYTES)
        return Pending(rows, len(columns), lambda: redone, rows.stop)

    def _tile(self, low: Pixels, rows: Span, column: Span, target: Pixels) -> bool:
        """Write one tile into the band's finished rows. Returns whether it was recomputed in fp32.

        A separate function, so that a tile's sub-pixels are freed before the next tile's are allocated.
        """
        window = _window(low, column)
        output, redone = self._finite(
            self._tiles.run_one(self._tiles.chain, window, rows, column), window, rows, column
        )
        self._write(output, rows, column, target)
        return redone

    def _tiles_ahead(self, low: Pixels, rows: Span, columns: Sequence[Span], target: Pixels) -> int:
        """As `_tile` for all columns, while the device runs the next one. Returns how many were recomputed."""
        redone, window = 0, _window(low, columns[0])
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(self._run_in_thread, window, rows, columns[0])
            try:
                for column, following in zip_longest(columns, columns[1:]):
                    # A tile that overflowed is recomputed before the next one starts: a device runs one at a time.
                    output, again = self._finite(running.result(), window, rows, column)
                    if following is not None:
                        window = _window(low, following)
                        running = pool.submit(self._run_in_thread, window, rows, following)
                    self._write(output, rows, column, target)
                    self._tiles.report(rows, column, 1.0)
                    redone += again
            finally:
                del running  # it holds the exception, whose traceback holds this frame and the tile's memory
        return redone

    def _run_in_thread(self, window: Tensor, rows: Span, column: Span) -> _Output:
        chain = self._tiles.chain
        with chain.backend.inference():  # PyTorch keeps this for each thread
            return self._tiles.run(chain, window, rows, (column,))

    def _finite(self, output: _Output, window: Tensor, rows: Span, column: Span) -> tuple[_Output, bool]:
        """The output, recomputed in fp32 if it has overflowed, and whether it was."""
        if output.finite:
            return output, False
        output = self._tiles.run_one(self._tiles.exact(), window, rows, column)
        if not output.finite:
            raise not_finite(self._tiles.chain)
        return output, True

    def _write(self, output: _Output, rows: Span, column: Span, target: Pixels) -> None:
        for down, across, piece in self._tiles.pieces(output, rows, (column,), TORCH_DTYPES[target.dtype], STRIP_PX):
            target[down, across] = piece.numpy()


class BlendingRunner:
    """For models whose receptive field is too large to use as context: neighbouring tiles are blended linearly.

    Only other programs' models need it. The strip around a cut is summed in fp32; below a band it is carried to the
    next one.
    """

    uniform = False
    asynchronous = False
    band_bytes: int | None = BAND_BYTES // 4  # summed in fp32

    def __init__(
        self, chain: Chain, noise: Noise | None, origin: tuple[int, int], on_part: OnPart = unreported
    ) -> None:
        self._tiles = Tiles(chain, noise, origin, on_part)
        self._carry: Tensor | None = None

    def start(self, low: Pixels, rows: Span, columns: Sequence[Span], out: Pixels, batch_px: int) -> Pending:
        chain, scale = self._tiles.chain, self._tiles.chain.scale
        height, width = out.shape[0] // scale, out.shape[1] // scale
        top, bottom = _faded(rows, height)
        total = torch.zeros(out.shape[2], (bottom - top) * scale, width * scale)
        redone = 0
        for column in columns:
            left, right = _faded(column, width)
            window = tensor(low[:, column.begin : column.end])[None]
            high = self._float_tile(chain, window, rows, column)
            if not torch.isfinite(high.sum()):
                high, redone = self._float_tile(self._tiles.exact(), window, rows, column), redone + 1
                if not torch.isfinite(high.sum()):
                    raise not_finite(chain)
            inside = high[
                :,
                _times(slice(top - rows.begin, bottom - rows.begin), scale),
                _times(slice(left - column.begin, right - column.begin), scale),
            ]
            weight = _ramp(rows, height, scale)[:, None] * _ramp(column, width, scale)
            total[:, :, left * scale : right * scale] += inside.clamp(0.0, 1.0) * weight
        if self._carry is not None:
            total[:, : self._carry.shape[1]] += self._carry
        final = height if rows.stop == height else rows.stop - BLEND_PX // 2
        done = total[:, : (final - top) * scale]
        integers = pixels.quantise(done, TORCH_DTYPES[out.dtype]).numpy()
        carry = total[:, (final - top) * scale :].clone()
        out[top * scale : final * scale] = integers.transpose(1, 2, 0)
        self._carry = carry  # last, so that a band that ran out of memory can be started again
        return Pending(rows, len(columns), lambda: redone, final)

    def _float_tile(self, chain: Chain, window: Tensor, rows: Span, column: Span) -> Tensor:
        """(1, h, w, C) integers -> (C, h·s, w·s) fp32 on the host."""
        output = self._tiles.run_one(chain, window.to(chain.device), rows, column)
        high = F.pixel_shuffle(output.subpixels, chain.shuffle)
        if output.alpha is not None:
            high = torch.cat((high, pixels.enlarge_alpha(output.alpha, chain.scale)), dim=1)
        return high[0].cpu()


def _faded(span: Span, length: int) -> tuple[int, int]:
    """The part of a tile that is used: its core and half the strip at each cut."""
    half = BLEND_PX // 2
    return max(0, span.start - half), min(length, span.stop + half)


def _ramp(span: Span, length: int, scale: int) -> Tensor:
    """Weights along one axis in high-resolution px; those of neighbours sum to 1."""
    begin, end = _faded(span, length)
    position = (torch.arange(begin * scale, end * scale) + 0.5) / scale
    weight = torch.ones(len(position))
    if span.start > 0:
        weight = torch.minimum(weight, (position - (span.start - BLEND_PX / 2)) / BLEND_PX)
    if span.stop < length:
        weight = torch.minimum(weight, ((span.stop + BLEND_PX / 2) - position) / BLEND_PX)
    return weight


def _window(low: Pixels, column: Span) -> Tensor:
    return tensor(low[:, column.begin : column.end])[None]


def tensor(pixels: Pixels) -> Tensor:
    """A view if possible; a copy if it is not contiguous or read-only."""
    return torch.from_numpy(np.require(pixels, requirements=("C", "W")))


def not_finite(chain: Chain) -> WeightsError:
    names = " and ".join(model.name for model in chain.models)
    return WeightsError(f"{names} gives numbers that are not finite, even in fp32: its weights are damaged")


def rows_of(out: Pixels, rows: Span, scale: int) -> Pixels:
    return out[rows.start * scale : rows.stop * scale]


def _times(s: slice, factor: int) -> slice:
    return slice(s.start * factor, s.stop * factor)


def without_constant_alpha(low: Pixels, target: Pixels) -> tuple[Pixels, Pixels]:
    """If a band's alpha is constant, fill it in and leave only the colours to be computed."""
    if low.shape[2] not in (2, 4):
        return low, target
    alpha = low[..., -1]
    value = int(alpha[0, 0])
    if not (alpha == value).all():
        return low, target
    full_in, full_out = np.iinfo(low.dtype).max, np.iinfo(target.dtype).max
    target[..., -1] = (value * full_out + full_in // 2) // full_in
    return low[..., :-1], target[..., :-1]
