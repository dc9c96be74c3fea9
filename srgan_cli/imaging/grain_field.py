"""Synthetic grain: a noise field that depends only on a seed and the position of a pixel, added to finished rows.

All sums are of integers, followed by one operation per pixel. So the rows are bit-identical, however the picture is
divided into parts.
"""

from __future__ import annotations

import functools
from itertools import combinations_with_replacement
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.grain import Grain
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.standards import srgb_to_linear

Whole: TypeAlias = npt.NDArray[np.int32]
_Words: TypeAlias = npt.NDArray[np.uint32]

_CHUNK_PX = 1 << 17  # rows at a time, so that the data stays in the cache
_FINEST = 0.3  # of the aperture: finer grain would have to be far stronger to look the same from a distance
_ROOTS = 1 << 16  # steps of the table from the root of linear light to encoded values
_BYTE_VARIANCE = (256**2 - 1) / 3  # of 2·b - 255, b from 0 to 255
_LONGEST = 24  # side of a kernel's boxes, in px


class GrainField:
    """Adds grain to the rows of one picture.

    `aperture_px` is the side, in px of the result, of the pixel in which `grain` was measured: averaged over that many
    px, the field has the measured strength and size. `fraction` of the variance is added. The same `seed` and `page`
    give the same field.
    """

    def __init__(self, grain: Grain, aperture_px: int, *, seed: int, page: int = 0, fraction: float = 1.0) -> None:
        self._shared = float(np.sqrt(grain.shared))
        self._own = float(np.sqrt(1 - grain.shared))
        self._boxes = boxes_for(grain.size_px, aperture_px)
        self._own_boxes = boxes_for(grain.colour_px, aperture_px)
        self._aperture_px = aperture_px
        self._strength = np.sqrt(fraction) * np.array(grain.strength)
        self._salts = _salts(seed, page)
        self._tables: dict[int, list[tuple[npt.NDArray[np.float32], ...]]] = {}

    def put(self, rows: Pixels, first_row: int) -> None:
        """Add grain in place to `rows` (h, W, C), which start at the picture's `first_row`. Alpha, and colours of fully
        transparent pixels, stay unchanged."""
        step = max(1, _CHUNK_PX // rows.shape[1])
        for top in range(0, len(rows), step):
            self._put(rows[top : top + step], first_row + top)

    def _put(self, rows: Pixels, first_row: int) -> None:
        height, width, channels = rows.shape
        colours = channels if channels in (1, 3) else channels - 1
        fields = self._fields(first_row, height, width, colours)
        clear = None if colours == channels else rows[..., -1] == 0
        for channel, (linear, strength, encoded) in enumerate(self._tables_of(rows.dtype, colours)):
            values = rows[..., channel]
            light = fields[channel]
            light *= strength[values]
            light += linear[values]
            np.clip(light, 0.0, 1.0, out=light)
            np.sqrt(light, out=light)
            light *= np.float32(_ROOTS)
            made = _encoding(rows.dtype)[np.rint(light).astype(np.int32)]
            made -= encoded[values]
            np.rint(made, out=made)
            made += values
            np.clip(made, 0, np.iinfo(rows.dtype).max, out=made)
            result = made.astype(rows.dtype)
            rows[..., channel] = result if clear is None else np.where(clear, values, result)

    def _fields(self, first_row: int, height: int, width: int, colours: int) -> list[npt.NDArray[np.float32]]:
        """One field for each colour channel, (height, width), with variance 1 when averaged over the aperture."""
        reach = max(sum(boxes) - len(boxes) for boxes in (self._boxes, self._own_boxes))
        words = _hashed(self._salts, first_row, height + reach, width + reach)
        common = _field(words, 0, self._boxes, height, width)
        common *= np.float32(self._shared / _std(self._boxes, self._aperture_px))
        if not self._own or colours == 1:
            return [common.copy() for _ in range(colours)]
        own = np.float32(self._own / _std(self._own_boxes, self._aperture_px))
        return [common + own * _field(words, 8 * n, self._own_boxes, height, width) for n in range(1, colours + 1)]

    def _tables_of(self, dtype: np.dtype[Any], colours: int) -> list[tuple[npt.NDArray[np.float32], ...]]:
        """For each colour channel, by its integer value: linear light, the strength there, and the value as index into
        the other table."""
        if colours not in self._tables:
            top = int(np.iinfo(dtype).max)
            values = np.arange(top + 1) / top
            linear = srgb_to_linear(values)
            slope = np.gradient(linear, values)
            knots = np.linspace(0, 1, self._strength.shape[1])
            encoded = _encoding(dtype)[
                np.rint(np.sqrt(linear.astype(np.float32)) * np.float32(_ROOTS)).astype(np.int32)
            ]
            self._tables[colours] = [
                (linear.astype(np.float32), (np.interp(values, knots, row) * slope).astype(np.float32), encoded)
                for row in (self._strength if len(self._strength) == colours else self._strength[:1].repeat(colours, 0))
            ]
        return self._tables[colours]


# ------------------------------------------------------------------------------------------------------ linear light


@functools.cache
def _encoding(dtype: np.dtype[Any]) -> npt.NDArray[np.float32]:
    """Encoded values on the scale of `dtype`, by the root of linear light, in steps. The curve is nearly linear in the
    root, and a root is exact on every machine."""
    light = (np.arange(_ROOTS + 1) / _ROOTS) ** 2
    encoded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return (encoded * np.iinfo(dtype).max).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- noise


def _mixed(words: _Words) -> _Words:
    """A hash in which every output bit depends on every input bit: two rounds of multiplying and XORing the upper half
    into the lower. The multipliers were found by C. Wellons' search ("lowbias32", 2018)."""
    words = words ^ (words >> np.uint32(16))
    words *= np.uint32(0x7FEB352D)
    words ^= words >> np.uint32(15)
    words *= np.uint32(0x846CA68B)
    words ^= words >> np.uint32(16)
    return words


def _salts(seed: int, page: int) -> tuple[int, int]:
    parts = np.array([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF, page & 0xFFFFFFFF], np.uint32)
    first, second = np.array([0x9E3779B9, 0x85EBCA6B], np.uint32)[:, None]
    for part in parts:
        first, second = _mixed(first ^ part), _mixed(second + part)
    return int(first[0]), int(second[0])


def _hashed(salts: tuple[int, int], first_row: int, height: int, width: int) -> _Words:
    """(height, width): random bits for each position of the picture."""
    rows = _mixed(np.arange(first_row, first_row + height, dtype=np.uint32) ^ np.uint32(salts[0]))
    columns = _mixed(np.arange(width, dtype=np.uint32) ^ np.uint32(salts[1]))
    return _mixed(rows[:, None] + columns)


def _field(words: _Words, shift: int, boxes: tuple[int, ...], height: int, width: int) -> npt.NDArray[np.float32]:
    """Eight of the bits as noise, filtered with boxes along both axes: their sums are nearly Gaussian."""
    reach = sum(boxes) - len(boxes)
    bits = words[: height + reach, : width + reach] >> np.uint32(shift) & np.uint32(255)
    noise: Whole = bits.view(np.int32) * np.int32(2) - np.int32(255)
    for side in boxes:
        noise = _summed(noise, side)
        noise = _summed(noise.T, side).T
    return noise.astype(np.float32)


def _summed(noise: Whole, side: int) -> Whole:
    """Sums of `side` rows: (h, w) -> (h - side + 1, w)."""
    if side == 1:
        return noise
    count = len(noise) - side + 1
    total = noise[:count] + noise[1 : count + 1]
    for shift in range(2, side):
        total += noise[shift : count + shift]
    return total


@functools.cache
def boxes_for(size_px: float, aperture_px: int) -> tuple[int, ...]:
    """Sides of three boxes that in sequence approximate a Gaussian, for grain of `size_px` in input pixels that are
    `aperture_px` of the result's: averaging over those, as a camera's or scanner's pixel does, widens it."""
    widened = (1 - 1 / aperture_px**2) / 12
    wanted = aperture_px**2 * max(size_px**2 - widened, _FINEST**2 if aperture_px > 1 else 0.0)
    sides = range(1, _LONGEST + 1)
    return min(combinations_with_replacement(sides, 3), key=lambda boxes: abs(_box_variance(boxes) - wanted))


def _box_variance(boxes: tuple[int, ...]) -> float:
    return sum((side**2 - 1) / 12 for side in boxes)


@functools.cache
def _std(boxes: tuple[int, ...], aperture_px: int) -> float:
    """The standard deviation of such noise averaged over the aperture."""
    kernel = np.ones(1)
    for side in (*boxes, aperture_px):
        kernel = np.convolve(kernel, np.ones(side))
    return float((kernel**2).sum() / aperture_px**2 * np.sqrt(_BYTE_VARIANCE))
