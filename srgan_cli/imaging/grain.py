"""Film grain of a picture: its strength by brightness, its size, and how much of it is colour.

Grain is modelled as white noise filtered with a Gaussian kernel: a part shared by all channels and a part for each
channel, with a strength that depends on the channel's value. It is measured where the picture is flattest. Two of the
four quarters of a block decide whether it is flat, and its grain is measured in the other two, and vice versa: if the
same pixels were used for both, the result would be biased low.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.image import Pixels

Floats: TypeAlias = npt.NDArray[np.float32]
Place: TypeAlias = tuple[int, int, int]  # index of a strip, row and column in it

BLOCK = 16  # px; measurements use its quarters of 8 px
_QUARTER, _STRIDE = BLOCK // 2, BLOCK // 2
_MAX_BLOCKS = 20_000
_BINS = 10  # of a channel's value
_FLATTEST, _FEWEST, _MOST = 0.02, 6, 300  # quarters used in each bin
_MIN_IN_BIN = 60  # blocks: with fewer, the flattest may not be flat
_CLIPPED = 0.02  # fraction of a block's px that are black or white: above it, the grain is clipped
# This quantile over all bins, times this factor: more is texture, in a bin without flat parts.
_QUIET, _TEXTURE = 0.2, 1.35
_WEAKEST = 0.6 / 255  # less than what rounding to 8 bits and JPEG leave
_KNOTS = np.linspace(0.0, 1.0, 33)
_SIZES_PX = np.concatenate(([0.0], np.arange(0.25, 2.01, 0.05)))
_FILM_LEVELS, _FILM_SHARED = 12.0, 0.75


@dataclass(frozen=True)
class Grain:
    """`strength` has a row for each colour channel: the standard deviation at values evenly spaced from 0 to 1, in
    units of the full scale. `size_px` is the standard deviation of the kernel, `colour_px` that of the part that
    channels do not share, and `shared` the fraction of the variance that they do share."""

    strength: tuple[tuple[float, ...], ...]
    size_px: float
    colour_px: float
    shared: float

    @property
    def levels(self) -> float:
        """The mean strength for medium values, in levels of 255."""
        middle = len(self.strength[0]) // 4
        return 255 * float(np.mean([row[middle:-middle] for row in self.strength]))


def film(amount: float, channels: int) -> Grain:
    """Synthetic grain, not measured from a picture: `amount` 1 is a standard deviation of 12 levels of 255 for medium
    values and 0 at black and white, a quarter of the variance in colour, with a kernel of 1 px."""
    row = tuple(amount * _FILM_LEVELS / 255 * np.sqrt(4 * _KNOTS * (1 - _KNOTS)))
    return Grain((row,) * channels, 1.0, 1.0, 1.0 if channels == 1 else _FILM_SHARED)


@dataclass(frozen=True)
class Measured:
    """The grain of a picture, and the top left corners of flat blocks of `BLOCK` px that show it."""

    grain: Grain
    flat: tuple[Place, ...]


def measure(strips: Sequence[Pixels], most_flat: int = 16) -> Measured | None:
    """The grain of the picture that `strips` (H, W, C), uint8 or uint16, are parts of; None if none is found.

    Fine texture without any flat part (lawns, sand) is mistaken for grain.
    """
    places, blocks = _blocks(strips)
    if len(blocks) < _FEWEST:
        return None
    rounding = _rounding(strips[0])
    residual = _residual(blocks)  # (N, 4, 64, C)
    variance = (residual**2).mean(2) * _DEGREES  # (N, 4, C)
    means = blocks.mean(2)
    clipped = ((blocks < 0.5 / 255) | (blocks > 254.5 / 255)).mean(2).max((1, 2)) > _CLIPPED
    counted = ~clipped & (variance.min((1, 2)) > 0)
    if counted.sum() < _FEWEST:
        return None
    kept = np.flatnonzero(counted)
    residual, variance, means = residual[kept], variance[kept], means[kept]
    chosen = _flattest(variance, means)  # of each channel: number, quarter
    curves, at = _strengths(variance, means, chosen, rounding)
    if max(float(np.median(curve)) for curve in curves) < _WEAKEST:
        return None
    alike = _alike(variance, means, curves, at)
    quarters = np.unique(np.concatenate(chosen), axis=0)
    quarters = quarters[alike[quarters[:, 0], quarters[:, 1]]]
    sample = residual[quarters[:, 0], quarters[:, 1]]  # (n, 64, C)
    shared, size_px, colour_px = _shape(sample, rounding)
    gain = 1 / np.sqrt(_kept_fraction(size_px))
    strength = tuple(tuple(map(float, np.interp(_KNOTS, x, y * gain))) for x, y in zip(at, curves, strict=True))
    grain = Grain(_fading(strength), size_px, colour_px, shared)
    flat = np.flatnonzero(alike.all(1))
    flat = _of_all_brightnesses(flat if len(flat) else quarters[:, 0], means.mean((1, 2)), most_flat)
    return Measured(grain, tuple(places[i] for i in kept[flat]))


def left_fraction(before: Sequence[Pixels], after: Sequence[Pixels]) -> float:
    """The fraction (0 to 1) of the grain's variance in flat blocks, (BLOCK, BLOCK, C) each, that remains in `after`,
    the same blocks enlarged by an integer factor. The median over the blocks: some contain texture, which remains."""
    fractions = []
    for one, other in zip(before, after, strict=True):
        scale = other.shape[0] // BLOCK
        small = _unit(other).reshape(BLOCK, scale, BLOCK, scale, -1).mean((1, 3))
        power = _power(_unit(one)) - _rounding(one)
        fractions.append(_power(small) / power if power > 0 else 1.0)
    return min(1.0, float(np.median(fractions)))


# ------------------------------------------------------------------------------------------------------------- blocks


def _unit(pixels: Pixels) -> Floats:
    """Colours, without alpha, in [0, 1]."""
    colours = pixels[..., : 1 if pixels.shape[-1] <= 2 else 3]
    return colours.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _rounding(pixels: Pixels) -> float:
    """The variance added by rounding to integers."""
    return float(1 / 12 / np.iinfo(pixels.dtype).max ** 2)


def _blocks(strips: Sequence[Pixels]) -> tuple[list[Place], Floats]:
    """Blocks evenly distributed over all strips, in quarters: (N, 4, 64, C); none with transparency."""
    all_places = [
        (number, top, left)
        for number, strip in enumerate(strips)
        for top in range(0, strip.shape[0] - BLOCK + 1, _STRIDE)
        for left in range(0, strip.shape[1] - BLOCK + 1, _STRIDE)
    ]
    places, parts = [], []
    for place in all_places[:: -(-len(all_places) // _MAX_BLOCKS) or 1]:
        part = block_at(strips, place)
        if part.shape[2] in (1, 3) or bool((part[..., -1] == np.iinfo(part.dtype).max).all()):
            places.append(place)
            parts.append(part)
    return places, _quarters(_unit(np.stack(parts))) if parts else np.empty((0, 4, _QUARTER**2, 1), np.float32)


def block_at(strips: Sequence[Pixels], place: Place, around: int = 0) -> Pixels:
    """A block, with as many px around it as are available."""
    number, top, left = place
    strip = strips[number]
    return strip[max(0, top - around) : top + BLOCK + around, max(0, left - around) : left + BLOCK + around]


def _quarters(blocks: Floats) -> Floats:
    """(N, 16, 16, C) -> (N, 4, 64, C)."""
    cells = blocks.reshape(len(blocks), 2, _QUARTER, 2, _QUARTER, -1).transpose(0, 1, 3, 2, 4, 5)
    quarters: Floats = np.asarray(cells.reshape(len(blocks), 4, _QUARTER**2, -1), np.float32)
    return quarters


def _plane(side: int) -> Floats:
    """An orthonormal basis of the planes over a square: (side², 3)."""
    y, x = np.mgrid[0:side, 0:side].reshape(2, -1) - (side - 1) / 2
    basis = np.stack([np.ones_like(x), x, y], 1)
    plane: Floats = (basis / np.sqrt((basis**2).sum(0))).astype(np.float32)
    return plane


_BASIS, _BLOCK_BASIS = _plane(_QUARTER), _plane(BLOCK)
_DEGREES = np.float32(_QUARTER**2 / (_QUARTER**2 - 3))


def _residual(quarters: Floats) -> Floats:
    """Quarters (N, 4, 64, C) minus their best-fit plane."""
    moved = quarters.transpose(0, 1, 3, 2)  # (N, 4, C, 64)
    residual: Floats = np.asarray(moved - (moved @ _BASIS) @ _BASIS.T, np.float32)
    return residual.transpose(0, 1, 3, 2)


def _power(block: Floats) -> float:
    """The variance of a block (BLOCK, BLOCK, C) minus its best-fit plane."""
    flat = block.reshape(BLOCK**2, -1)
    return float(((flat - _BLOCK_BASIS @ (_BLOCK_BASIS.T @ flat)) ** 2).mean())


# ------------------------------------------------------------------------------------------------------------ choosing


def _flattest(variance: Floats, means: Floats) -> list[npt.NDArray[np.intp]]:
    """For each channel, the quarters to measure (block index, quarter index), chosen by the other quarters."""
    chosen = []
    total = variance.sum(2)  # (N, 4)
    pairs = (((0, 3), (1, 2)), ((1, 2), (0, 3)))  # the quarters that decide, and those that are measured
    for channel in range(variance.shape[2]):
        bins = np.minimum((means[:, :, channel].mean(1) * _BINS).astype(int), _BINS - 1)
        found = []
        for chooser, measured in pairs:
            score = total[:, chooser].sum(1)
            for number in np.unique(bins):
                inside = np.flatnonzero(bins == number)
                if len(inside) < min(_MIN_IN_BIN, len(bins) // _BINS):
                    continue
                count = min(max(_FEWEST // 2, int(len(inside) * _FLATTEST)), _MOST, len(inside))
                best = inside[np.argsort(score[inside], kind="stable")[:count]]
                found += [np.stack([best, np.full(count, quarter)], 1) for quarter in measured]
        chosen.append(np.concatenate(found))
    return chosen


def _strengths(
    variance: Floats, means: Floats, chosen: Sequence[npt.NDArray[np.intp]], rounding: float
) -> tuple[list[Floats], list[Floats]]:
    """For each channel the standard deviations, and the values at which they apply, ascending."""
    curves, at = [], []
    for channel, quarters in enumerate(chosen):
        values = means[quarters[:, 0], quarters[:, 1], channel]
        found = variance[quarters[:, 0], quarters[:, 1], channel]
        bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
        points = []
        for number in np.unique(bins):
            inside = bins == number
            if inside.sum() >= _FEWEST:
                # an edge in the quarters that were not used to choose
                usual = found[inside] <= 2 * np.median(found[inside])
                level = np.sqrt(max(0.0, float(found[inside][usual].mean()) - rounding))
                points.append((float(values[inside].mean()), level))
        x, y = np.array(points or [(0.5, 0.0)], np.float32).T
        at.append(x)
        curves.append(np.minimum(y, _TEXTURE * np.quantile(y, _QUIET)).astype(np.float32))
    return curves, at


def _alike(variance: Floats, means: Floats, curves: Sequence[Floats], at: Sequence[Floats]) -> npt.NDArray[np.bool_]:
    """For each quarter (N, 4), whether its variance is not much above that of grain at such values."""
    usual = [np.interp(means[:, :, n], x, y) ** 2 for n, (x, y) in enumerate(zip(at, curves, strict=True))]
    return np.asarray(variance.sum(2) <= 2 * np.sum(usual, 0))


def _fading(strength: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Fade to zero at black and white: clipped values have no grain."""
    return tuple((0.0, *row[1:-1], 0.0) for row in strength)


def _of_all_brightnesses(numbers: npt.NDArray[np.intp], values: Floats, count: int) -> npt.NDArray[np.intp]:
    """At most `count` blocks, evenly distributed over brightness."""
    order = np.unique(numbers)
    order = order[np.argsort(values[order], kind="stable")]
    return order[:: -(-len(order) // count)]


# ------------------------------------------------------------------------------------------------------- size, colour


def _shape(residual: Floats, rounding: float) -> tuple[float, float, float]:
    """From quarters (n, 64, C): the fraction shared by the channels, and the sizes of both parts."""
    scaled = residual / np.sqrt((residual**2).mean(1, keepdims=True) + 1e-12)
    # due to rounding, which is white and independent for each channel
    weight = rounding / float((residual**2).mean() + 1e-12)
    grey = scaled.mean(2)
    channels = scaled.shape[2]
    if channels == 1:
        size_px = _size(grey, weight)
        return 1.0, size_px, size_px
    pairs = [(scaled[:, :, a] * scaled[:, :, b]).mean() for a, b in ((0, 1), (1, 2), (0, 2))]
    shared = float(np.clip(np.mean(pairs) / max(1e-6, 1 - weight), 0.0, 1.0))
    own = np.concatenate([scaled[:, :, 1] - scaled[:, :, 0], scaled[:, :, 1] - scaled[:, :, 2]])
    size_px = _size(grey, weight / channels)
    return shared, size_px, size_px if shared > 0.95 else _size(own, weight / max(1e-6, 1 - shared))


def _size(residual: Floats, white: float) -> float:
    """The size of the kernel whose noise has the same correlation at distances of 1 and 2 px as quarters (n, 64).
    `white`: the fraction of the variance that is white."""
    cells = residual.reshape(-1, _QUARTER, _QUARTER)
    whole = float((cells**2).mean()) * max(0.05, 1 - white)
    found = [
        float((cells[:, :, d:] * cells[:, :, :-d]).mean() + (cells[:, d:] * cells[:, :-d]).mean()) / 2 / whole
        for d in (1, 2)
    ]
    expected = np.array([_likeness(size) for size in map(float, _SIZES_PX)])
    return float(_SIZES_PX[int(((expected - found) ** 2).sum(1).argmin())])


@functools.cache
def _seen(size_px: float) -> tuple[float, float, float]:
    """For noise of variance 1 filtered with a kernel, in a quarter minus its plane: the remaining variance, and the
    correlations at distances of 1 and 2 px."""
    y, x = np.mgrid[0:_QUARTER, 0:_QUARTER].reshape(2, -1)
    far = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    covariance = np.exp(-far / (4 * size_px**2)) if size_px else np.eye(_QUARTER**2)
    project = np.eye(_QUARTER**2) - _BASIS.astype(np.float64) @ _BASIS.T
    seen = project @ covariance @ project
    variance = float(np.trace(seen)) / _QUARTER**2
    near = [float(seen[((y[:, None] == y) & (x - x[:, None] == d))].mean()) / variance for d in (1, 2)]
    return variance * float(_DEGREES), near[0], near[1]


def _likeness(size_px: float) -> tuple[float, float]:
    return _seen(size_px)[1:]


def _kept_fraction(size_px: float) -> float:
    return _seen(size_px)[0]
