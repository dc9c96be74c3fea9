"""What a picture shows of how it was treated before: compressed, and how strongly; noise; the grid of an old JPEG.

Measured in one strip of its rows, and in the tables of its own file. Whoever decides by it sets the thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging import sniffing
from srgan_cli.imaging.compression import codec_quality
from srgan_cli.imaging.decoding import boundary
from srgan_cli.imaging.history import Plane, jpeg_quality_of
from srgan_cli.imaging.image import Header, Pixels
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source

_STRIP_ROWS, _STRIP_COLUMNS = 256, 2048
# Rows are decoded from the top: to skip some costs as much as to look at them.
_DECODED_PX = 8_000_000
_FETCH_ROWS = 64
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Signs:
    """`codec` and `quality` are those of `file_signs`; the others are measured in luma (Y of BT.601, 0 to 255).

    `noise` is a standard deviation in 8-bit levels, 0 in flat and drawn pictures. White noise comes out right within a
    tenth or two; grain that was smoothed or compressed comes out smaller than it is. Texture without any quiet spot
    adds some levels of its own. `grain` is the same of the picture at half its size: of white noise half as much, of
    what was smoothed, or enlarged with the picture, several times as much. `blocking` is how much larger the steps
    across one grid of 8 px are than those off it, in the direction where that is less; 1 where there is no grid, and
    never below. `pixels` is how many were looked at: of few, the quietest parts may be no quiet ones.
    `earlier_quality` is that of a JPEG that the picture was before (`history`); None where there is no trace of one.
    `one_bit` is true where there are two levels only, as in scans of text: their edges are stairs.
    """

    codec: str | None
    quality: int | None
    noise: float
    grain: float
    blocking: float
    pixels: int
    earlier_quality: int | None = None
    one_bit: bool = False


def find_signs(source: Path | bytes, *, max_pixels: int) -> Signs:
    """The signs of a picture file of any format.

    At most about 8 megapixels are decoded, unless its decoder must have the whole picture (see `reading`). Raises
    `UnreadablePictureError` as `open_picture` and `OpenPicture.read_rows` do.
    """
    codec, quality = file_signs(source)
    with open_picture(source, max_pixels=max_pixels) as picture:
        luma = _luma_strip(picture)
    return Signs(
        codec,
        quality,
        noise_of(luma),
        noise_of(_halved(luma)),
        blocking_of(luma),
        luma.size,
        jpeg_quality_of(luma),
        _has_one_bit(luma),
    )


def _has_one_bit(luma: Plane) -> bool:
    darkest, brightest = luma.min(), luma.max()
    return bool(darkest < brightest and np.all((luma == darkest) | (luma == brightest)))


def file_signs(source: Path | bytes) -> tuple[str | None, int | None]:
    """Codec and quality, from the first kilobytes of the file: see `compression.codec_quality`.

    Raises `UnreadablePictureError` for what cannot be read or is not a picture; a damaged header is quality None.
    """
    with Source(source) as opened, boundary(opened.name):
        return codec_quality(opened, sniffing.sniff(opened))


# The strip


def _luma_strip(picture: OpenPicture) -> Plane:
    """Y of at most 256 rows and 2048 columns, from about a quarter of the height; (H, W), 0 to 255."""
    header = picture.header
    top, rows = _strip_rows(header.width, header.height)
    left = max((header.width - _STRIP_COLUMNS) // 2, 0)
    parts = []
    done = 0
    while done < top + rows:
        count = min(_FETCH_ROWS, (top if done < top else top + rows) - done)
        pixels = picture.read_rows(count)
        if done >= top:
            parts.append(_luma(pixels[:, left : left + _STRIP_COLUMNS], header))
        done += count
    return np.concatenate(parts)


def _strip_rows(width: int, height: int) -> tuple[int, int]:
    """First row and number of rows."""
    affordable = max(_DECODED_PX // width, 32)
    rows = min(_STRIP_ROWS, height, affordable)
    return min(height // 4, height - rows, affordable - rows), rows


def _luma(pixels: Pixels, header: Header) -> Plane:
    """(H, W, C) to (H, W); alpha is left out."""
    weights = _LUMA if header.channels > 2 else np.ones(1, np.float32)
    luma: Plane = pixels[:, :, : len(weights)].astype(np.float32) @ weights
    return luma if header.depth == 8 else luma / np.float32(257)


# Noise

_BLOCK, _STRIDE = 8, 4
_LOWEST = 0.005
_MAX_CLIPPED = 0.05
_MIN_COUNTED = 0.02  # of all blocks: fewer are the edges in a page of text
_QUIET = 0.01  # sums of floats leave less in an area of one colour
_FEW_MIXED = 0.9
# The lowest 0.5 % of blocks hold less noise than the average one: measured on white noise, with the mask's own gain.
_PER_LEVEL = 2.36


def noise_of(luma: Plane) -> float:
    """The standard deviation of the noise in `luma` (H, W; 0 to 255), in its quietest parts; 0 where there are none.

    The mask is Immerkær's (Fast Noise Variance Estimation, 1996), blind to planes and to straight edges along rows and
    columns. Of each block of 8 × 8 px counts the median of its absolute response, to which a thin edge adds nothing;
    of all blocks the 0.5th percentile, the fraction that Colom and Buades (IPOL 2013) found: texture only ever adds.
    Blocks that are clipped, or perfectly flat for the most part, say nothing and do not count. Nor do those that are
    flat in part, if they are few: the rim of a flat area beside noise. Where they are many, the picture is drawn.
    """
    if min(luma.shape) < 2 * _BLOCK:
        return 0.0
    levels, low = _block_levels(np.abs(_response(luma)))
    counted = (levels > _QUIET) & (_clipped_fractions(luma[1:-1, 1:-1]) <= _MAX_CLIPPED)
    if counted.mean() < _MIN_COUNTED:
        return 0.0
    unmixed = counted & (low > _QUIET)
    if unmixed.sum() >= _FEW_MIXED * counted.sum():
        counted = unmixed
    return float(np.quantile(levels[counted], _LOWEST)) / _PER_LEVEL


def _halved(luma: Plane) -> Plane:
    """Means of 2 × 2 px: (H, W) -> (H // 2, W // 2)."""
    height, width = (side // 2 * 2 for side in luma.shape)
    means: Plane = luma[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))
    return means


def _response(luma: Plane) -> Plane:
    """[1 -2 1] across and down, where the mask fits: (H, W) -> (H - 2, W - 2)."""
    across = luma[:, :-2] - 2 * luma[:, 1:-1] + luma[:, 2:]
    response: Plane = across[:-2] - 2 * across[1:-1] + across[2:]
    return response


def _block_levels(values: Plane) -> tuple[Plane, Plane]:
    """The median and the eighth of each block of 8 × 8 px, every 4 px: (H, W) -> (H // 4 - 1, W // 4 - 1) each."""
    blocks: npt.NDArray[Any] = np.lib.stride_tricks.sliding_window_view(values, (_BLOCK, _BLOCK))[::_STRIDE, ::_STRIDE]
    flat = blocks.reshape(*blocks.shape[:2], -1)
    middle, eighth = flat.shape[2] // 2, flat.shape[2] // 8
    ordered = np.partition(flat, (eighth, middle), axis=2)
    return ordered[:, :, middle], ordered[:, :, eighth]


def _clipped_fractions(luma: Plane) -> Plane:
    """Of each block, in the places of `_block_levels`, the fraction of px that are black or white."""
    clipped = (luma < 0.5) | (luma > 254.5)
    height, width = (side // _STRIDE * _STRIDE for side in luma.shape)
    cells = clipped[:height, :width].reshape(height // _STRIDE, _STRIDE, width // _STRIDE, _STRIDE)
    sums = cells.sum((1, 3), dtype=np.float32)
    fractions: Plane = (sums[:-1, :-1] + sums[1:, :-1] + sums[:-1, 1:] + sums[1:, 1:]) / _BLOCK**2
    return fractions


# Blocking

_GRID = 8
_STEP_LIMIT = 16.0  # an edge of the picture's own counts no more than a visible seam does
_FLOOR = 0.05
_SHORTEST = 4 * _GRID


def blocking_of(luma: Plane) -> float:
    """How much larger the steps across the best grid of 8 px are than others in `luma` (H, W; 0 to 255); ≥ 1.

    A step is how far a difference of neighbours departs from the mean of those on both its sides. The grid's phase is
    unknown, as the picture may have been cropped: it is the one with the largest steps, against the largest of the
    phases 2 to 6 px away. That leaves out what the grid itself does to its neighbours, and what repeats every 2 or
    4 px, as in enlarged pictures. Both directions must show it.
    """
    if min(luma.shape) < _SHORTEST:
        return 1.0
    return min(_grid_ratio(luma), _grid_ratio(luma.T))


def _grid_ratio(luma: Plane) -> float:
    differences = np.diff(luma, axis=1)
    steps = np.abs(differences[:, 1:-1] - (differences[:, :-2] + differences[:, 2:]) / 2)
    columns = np.minimum(steps, _STEP_LIMIT).mean(0)
    whole = len(columns) // _GRID * _GRID
    phases = columns[:whole].reshape(-1, _GRID).mean(0)
    best = int(phases.argmax())
    other = max(float(phases[(best + away) % _GRID]) for away in range(2, _GRID - 1))
    # Nothing at all inside the cells: drawn in squares of 8 px, or enlarged by repeating px; no codec does that.
    if other < 0.001 * phases[best]:
        return 1.0
    return (float(phases[best]) + _FLOOR) / (other + _FLOOR)
