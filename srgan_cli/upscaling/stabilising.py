"""Frames without flicker: still areas keep the texture of their first frame.

A network that invents plausible texture invents a different one for each frame's noise. So where a frame equals its
reference frame up to noise, the result is the reference's result plus the bicubically enlarged difference:

    high = reference_high + bicubic(low - reference_low)

Colours follow the input frame by frame, and a still scene varies only as much as its bicubic enlargement does. Where
something moves, the network's own result is faded in and becomes the reference there. Only the moving areas and their
halo have to pass through the network. `benchmarks.flicker` measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from srgan_cli.engine.rows import ArrayRows
from srgan_cli.imaging.image import Pixels

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

Levels = np.ndarray[Any, np.dtype[np.float32]]  # (H, W), in levels of 255

_MIN_LEVELS = 2.0  # a mean difference over 5 × 5 px that counts as motion in a picture without noise
# Noise of standard deviation s in both frames makes a mean difference (of the largest channel) of 2 s, ± 25 % over 25
# px. So anything above this factor times the quietest tenth of the picture is motion. But differences larger than a
# single frame's noise explains are not noise: a panning camera leaves no still area.
_TIMES_QUIET, _TIMES_NOISE = 1.75, 3.5
_GROWN_PX = 2  # margin around moving areas, for their edges and the codec's shadows


class Stabiliser:
    """Enlarges the frames of one animation, in order."""

    def __init__(self) -> None:
        self._low: Pixels | None = None
        self._high: Pixels | None = None

    def enlarge(self, low: Pixels, upscaler: Upscaler, out: Pixels, check: Callable[[], None]) -> None:
        """(H, W, C) into `out`, (H·scale, W·scale, C) of the same type. `check` is called in between, and may raise."""
        if self._low is None or self._high is None or self._low.shape != low.shape or self._high.shape != out.shape:
            upscaler.upscale_rows(ArrayRows(low), out, on_rows=lambda _rows: check())
            self._low, self._high = low.copy(), out.copy()
            return
        moving = _motion(low, self._low)  # (H, W), 0 to 1
        _follow(self._high, low, self._low, out, upscaler.scale)
        check()
        if moving.any():
            self._redraw(low, moving, upscaler, out, check)

    def _redraw(self, low: Pixels, moving: Levels, upscaler: Upscaler, out: Pixels, check: Callable[[], None]) -> None:
        """Fade in the network's result for the moving areas, and store it as the reference."""
        assert self._low is not None
        assert self._high is not None
        scale = upscaler.scale
        rows, columns = np.flatnonzero(moving.any(1)), np.flatnonzero(moving.any(0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        halo = _reach(upscaler, low)
        above, before = min(halo, top), min(halo, left)
        seen = np.ascontiguousarray(low[top - above : bottom + halo, left - before : right + halo])
        high = np.empty((seen.shape[0] * scale, seen.shape[1] * scale, seen.shape[2]), out.dtype)
        origin = int(top - above), int(left - before)
        upscaler.upscale_rows(ArrayRows(seen), high, on_rows=lambda _rows: check(), origin=origin)
        high = high[above * scale :, before * scale :][: (bottom - top) * scale, : (right - left) * scale]
        place = slice(top * scale, bottom * scale), slice(left * scale, right * scale)
        fraction = _enlarged(moving[top:bottom, left:right], scale, smooth=False)[:, :, None]
        faded = out[place] + (high.astype(np.float32) - out[place]) * fraction
        out[place] = faded.round().astype(out.dtype)
        changed = (moving > 0)[top:bottom, left:right]
        self._low[top:bottom, left:right][changed] = low[top:bottom, left:right][changed]
        large = changed.repeat(scale, 0).repeat(scale, 1)
        self._high[place][large] = out[place][large]


def _reach(upscaler: Upscaler, low: Pixels) -> int:
    """The radius of the network's receptive field in px of `low`; the whole picture if it is unbounded."""
    chain = upscaler.chain
    if chain.blend_px:
        return int(max(low.shape[:2]))
    # torch has been imported by now; a coordinating process does not need it
    from srgan_cli.engine.pixels import BLEED_PX

    return chain.halo_px + (BLEED_PX if low.shape[2] in (2, 4) else 0)


def _follow(reference_high: Pixels, low: Pixels, reference_low: Pixels, out: Pixels, scale: int) -> None:
    """The reference plus what has changed since, into `out`."""
    top = np.iinfo(out.dtype).max
    for channel in range(low.shape[2]):
        drift = low[:, :, channel].astype(np.float32) - reference_low[:, :, channel]
        if not drift.any():
            out[:, :, channel] = reference_high[:, :, channel]
            continue
        values = _enlarged(drift, scale, smooth=True)
        values += reference_high[:, :, channel]
        out[:, :, channel] = values.round().clip(0, top).astype(out.dtype)


def _enlarged(values: Levels, scale: int, *, smooth: bool) -> Levels:
    """(H, W) float32 -> (H·scale, W·scale): bicubic, or bilinear."""
    from PIL import Image as Pillow

    size = values.shape[1] * scale, values.shape[0] * scale
    kernel = Pillow.Resampling.BICUBIC if smooth else Pillow.Resampling.BILINEAR
    picture = Pillow.fromarray(np.ascontiguousarray(values, np.float32))
    return np.array(picture.resize(size, kernel), np.float32)


def _motion(low: Pixels, reference: Pixels) -> Levels:
    """How certain it is that each px differs from the reference by more than noise: (H, W), 0 to 1, smoothed over one
    px."""
    unit = 1 if low.dtype == np.uint8 else 257
    difference = np.abs(low.astype(np.float32) - reference).max(2) / unit
    mean = _box(difference, 2)
    quiet = float(np.quantile(mean, 0.1))
    bound = max(_MIN_LEVELS, min(_TIMES_QUIET * quiet, _TIMES_NOISE * _noise(low, unit)))
    moved = (mean > bound).astype(np.float32)
    grown = (_box(moved, _GROWN_PX) > 0).astype(np.float32)
    return _box(grown, 1)


def _box(values: Levels, radius: int) -> Levels:
    """The mean over a square of 2·radius + 1 px; border px are repeated."""
    side = 2 * radius + 1
    padded = np.pad(values, radius, mode="edge")
    rows = np.sum([padded[shift : shift + values.shape[0]] for shift in range(side)], 0)
    total = np.sum([rows[:, shift : shift + values.shape[1]] for shift in range(side)], 0)
    mean: Levels = (total / side**2).astype(np.float32)
    mean[mean < 1e-6] = 0
    return mean


def _noise(low: Pixels, unit: int) -> float:
    """The standard deviation of noise in one picture, in levels of 255 (Immerkær 1996, with the median instead of the
    mean, so that edges do not count)."""
    grey = low[:, :, : min(3, low.shape[2])].astype(np.float32).mean(2) / unit
    if min(grey.shape) < 3:
        return 0.0
    across = grey[:, :-2] - 2 * grey[:, 1:-1] + grey[:, 2:]
    both = across[:-2] - 2 * across[1:-1] + across[2:]
    colours = min(3, low.shape[2])
    return float(np.median(np.abs(both))) / 0.6745 / 6 * float(np.sqrt(colours))
