"""Signs in a picture of earlier processing: compression and its strength, noise, the grid of an old JPEG, a palette.

Measured in one strip of its rows, and in the tables of its own file. Callers choose their own thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging import sniffing, standards
from srgan_cli.imaging.compression import codec_quality
from srgan_cli.imaging.decoding import boundary
from srgan_cli.imaging.history import Plane, jpeg_quality_of
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source

Mask: TypeAlias = npt.NDArray[np.bool_]

_STRIP_ROWS, _STRIP_COLUMNS = 256, 2048
# Rows are decoded from the top, and skipping some costs as much as decoding them.
_DECODED_PX = 8_000_000
_FETCH_ROWS = 64
# What looks like an old JPEG's grid above this is a drawing. Of 80 drawings with smooth edges (`benchmarks.drawings`),
# 9 looked so; they have 0.46 and more. As JPEGs of quality 30 to 75 they have 0.10 at most, of quality 90 0.23; 60
# pictures of BSD100 and Set14 as JPEGs of quality 10 to 90, 0.02.
MIN_DRAWN = 0.35


@dataclass(frozen=True)
class Signs:
    """`codec` and `quality` are those of `file_signs`; the others are measured in luma (Y of BT.601, 0 to 255). Fully
    transparent px do not count in any: what is left under them is not seen, and is not enlarged.

    `noise` is a standard deviation in 8-bit levels, 0 in flat and drawn pictures. For white noise it is right within 10
    to 20 %; grain that was smoothed or compressed is underestimated. Texture without any quiet area adds some levels.
    `grain` is the same, measured at half size: half as much for white noise, several times as much for noise that was
    smoothed, or enlarged with the picture. `blocking` is the ratio of the steps across a grid of 8 px to those
    elsewhere, in the direction where it is smaller; at least 1, which means no grid. `pixels` is how many were
    examined: in a small sample, even the quietest parts may not be quiet. `earlier_quality` is the quality of a JPEG
    that the picture seems to have been saved as before (`history`); None if there is no trace of one. `one_bit` is
    true if there are only two levels, as in scans of text, whose edges are stair-stepped. `dither`: see `dither_of`;
    `drawn`: see `drawn_of`.
    """

    codec: str | None
    quality: int | None
    noise: float
    grain: float
    blocking: float
    pixels: int
    earlier_quality: int | None = None
    one_bit: bool = False
    dither: float = 0.0
    drawn: float = 0.0

    @property
    def may_be_jpeg(self) -> bool:
        """Whether a grid of 8 px can come from an earlier JPEG: in a drawing its lines only happen to lie on one."""
        return self.drawn < MIN_DRAWN

    @property
    def was_jpeg_of(self) -> int | None:
        """The quality of an earlier JPEG; None if there is no trace of one, or only what drawings show, too."""
        return self.earlier_quality if self.may_be_jpeg else None


def find_signs(source: Path | bytes, *, max_pixels: int) -> Signs:
    """The signs of a picture file of any format.

    At most about 8 megapixels are decoded, unless the decoder needs the whole picture (see `reading`). Raises
    `UnreadablePictureError` as `open_picture` and `OpenPicture.read_rows` do.
    """
    codec, quality = file_signs(source)
    with open_picture(source, max_pixels=max_pixels) as picture:
        strip = _strip(picture)
    shown = _shown(strip)
    colours = strip[:, :, : 3 if strip.shape[2] > 2 else 1]
    luma = _luma(colours)
    if shown is not None:
        luma[~shown] = np.nan
    return Signs(
        codec,
        quality,
        noise_of(luma),
        noise_of(_halved(luma)),
        blocking_of(luma),
        luma.size if shown is None else int(shown.sum()),
        jpeg_quality_of(luma),
        _has_one_bit(luma),
        dither_of(colours, shown),
        drawn_of(luma),
    )


def _has_one_bit(luma: Plane) -> bool:
    levels = luma[~np.isnan(luma)]
    if not levels.size:
        return False
    darkest, brightest = levels.min(), levels.max()
    return bool(darkest < brightest and np.all((levels == darkest) | (levels == brightest)))


def file_signs(source: Path | bytes) -> tuple[str | None, int | None]:
    """Codec and quality from the first kilobytes of the file: see `compression.codec_quality`.

    Raises `UnreadablePictureError` if it cannot be read or is not a picture. With a damaged header, quality is None.
    """
    with Source(source) as opened, boundary(opened.name):
        return codec_quality(opened, sniffing.sniff(opened))


# The strip


def _strip(picture: OpenPicture) -> Pixels:
    """At most 256 rows and 2048 columns, from about a quarter of the height: (H, W, 1 to 4) uint8 or uint16."""
    header = picture.header
    top, rows = _strip_rows(header.width, header.height)
    left = max((header.width - _STRIP_COLUMNS) // 2, 0)
    parts = []
    done = 0
    while done < top + rows:
        count = min(_FETCH_ROWS, (top if done < top else top + rows) - done)
        pixels = picture.read_rows(count)
        if done >= top:
            parts.append(pixels[:, left : left + _STRIP_COLUMNS])
        done += count
    return np.concatenate(parts)


def _strip_rows(width: int, height: int) -> tuple[int, int]:
    """First row and number of rows."""
    affordable = max(_DECODED_PX // width, 32)
    rows = min(_STRIP_ROWS, height, affordable)
    return min(height // 4, height - rows, affordable - rows), rows


def _shown(strip: Pixels) -> Mask | None:
    """(H, W): which px are not fully transparent; None if all are."""
    if strip.shape[2] not in (2, 4):
        return None
    shown: Mask = strip[:, :, -1] > 0
    return None if shown.all() else shown


def _luma(pixels: Pixels) -> Plane:
    """(H, W, 1 or 3) to (H, W), 0 to 255."""
    luma: Plane = standards.luma(pixels, np.float32) if pixels.shape[2] == 3 else pixels[..., 0].astype(np.float32)
    return luma if pixels.dtype == np.uint8 else luma / np.float32(257)


# Noise

_BLOCK, _STRIDE = 8, 4
_LOWEST = 0.005
_MAX_CLIPPED = 0.05
_MIN_COUNTED = 0.02  # fraction of all blocks: fewer are the edges in a page of text
_QUIET = 0.01  # rounding errors of float sums stay below this in an area of one colour
_FEW_MIXED = 0.9
# The lowest 0.5 % of blocks have less noise than the average: measured on white noise, including the mask's gain.
_PER_LEVEL = 2.36


def noise_of(luma: Plane) -> float:
    """The standard deviation of the noise in `luma` (H, W; 0 to 255, NaN: ignored), in its quietest parts; 0 if there
    are none.

    The mask is Immerkær's (Fast Noise Variance Estimation, 1996), which does not respond to planes and to straight
    edges along rows and columns. For each block of 8 × 8 px the median of the absolute response is taken, which a thin
    edge does not affect. Of all blocks the 0.5th percentile is taken, as Colom and Buades (IPOL 2013) found: texture
    only ever increases the response. Blocks that are clipped or mostly perfectly flat are ignored. So are those that
    are partly flat, if there are few: they are the edge of a flat area beside noise. If there are many, the picture is
    a drawing.
    """
    if min(luma.shape) < 2 * _BLOCK:
        return 0.0
    levels, low = _block_levels(np.abs(_response(luma)))
    counted = (levels > _QUIET) & (_clipped_fractions(luma[1:-1, 1:-1]) <= _MAX_CLIPPED)
    if not counted.any() or counted.sum() < _MIN_COUNTED * (~np.isnan(levels)).sum():
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
    """[1 -2 1] horizontally and vertically, where the mask fits: (H, W) -> (H - 2, W - 2)."""
    across = luma[:, :-2] - 2 * luma[:, 1:-1] + luma[:, 2:]
    response: Plane = across[:-2] - 2 * across[1:-1] + across[2:]
    return response


def _block_levels(values: Plane) -> tuple[Plane, Plane]:
    """The median and the 12.5 % quantile of each block of 8 × 8 px, every 4 px: (H, W) -> (H // 4 - 1, W // 4 - 1)
    each. NaN if any of its values is."""
    blocks: npt.NDArray[Any] = np.lib.stride_tricks.sliding_window_view(values, (_BLOCK, _BLOCK))[::_STRIDE, ::_STRIDE]
    flat = blocks.reshape(*blocks.shape[:2], -1)
    middle, eighth = flat.shape[2] // 2, flat.shape[2] // 8
    ordered = np.partition(flat, (eighth, middle), axis=2)
    if np.isnan(values).any():
        ordered[np.isnan(flat).any(2)] = np.nan
    return ordered[:, :, middle], ordered[:, :, eighth]


def _clipped_fractions(luma: Plane) -> Plane:
    """For each block of `_block_levels`, the fraction of px that are black or white."""
    clipped = (luma < 0.5) | (luma > 254.5)
    height, width = (side // _STRIDE * _STRIDE for side in luma.shape)
    cells = clipped[:height, :width].reshape(height // _STRIDE, _STRIDE, width // _STRIDE, _STRIDE)
    sums = cells.sum((1, 3), dtype=np.float32)
    fractions: Plane = (sums[:-1, :-1] + sums[1:, :-1] + sums[:-1, 1:] + sums[1:, 1:]) / _BLOCK**2
    return fractions


# Palettes

_STEP_OF_DITHER = 4  # smaller ones are noise, or the rounding of a slope
_FEWEST_CHANGES = 256


def dither_of(pixels: Pixels, shown: Mask | None = None) -> float:
    """The fraction (0 to 1) of changes from a px to the next, along rows and columns of `pixels` (H, W, 1 or 3), that
    the px after it undoes exactly; 0 if there are hardly any changes. Straight lines and edges along rows and columns,
    as in tables and windows, do not count. Nor do changes to and from px that are not `shown` (H, W; None: all are).

    A palette's missing colours are imitated by turns of two that it has (R. W. Floyd and L. Steinberg, "An Adaptive
    Algorithm for Spatial Greyscale", 1976), and lines that are drawn without intermediate colours have the same colour
    on both sides. In other pictures exactly the same colour hardly ever returns after another one.
    """
    eight = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    seen = np.ones(eight.shape[:2], np.bool_) if shown is None else shown
    counts = [_returns(eight, seen), _returns(eight.swapaxes(0, 1), seen.T)]
    returned, changed = (sum(count) for count in zip(*counts, strict=True))
    return returned / changed if changed >= _FEWEST_CHANGES else 0.0


def _returns(pixels: Pixels, shown: Mask) -> tuple[int, int]:
    """Of the px that differ from the one on the left and do not belong to a vertical line, and are shown as both of
    their neighbours are: how many have the same colour on both sides, and how many there are."""
    same = (pixels[1:] == pixels[:-1]).all(2)  # as the px above
    straight = same[:-1, 1:-1] & same[1:, 1:-1]
    inner = pixels[1:-1].astype(np.int16)
    changes = (np.abs(np.diff(inner, axis=1)).max(2, initial=0)[:, :-1] >= _STEP_OF_DITHER) & ~straight
    changes &= shown[1:-1, :-2] & shown[1:-1, 1:-1] & shown[1:-1, 2:]
    return int((changes & (inner[:, :-2] == inner[:, 2:]).all(2)).sum()), int(changes.sum())


# Blocking

_GRID = 8
_STEP_LIMIT = 16.0  # an edge of the picture itself counts no more than a visible block boundary
_FLOOR = 0.05
_SHORTEST = 4 * _GRID
_FEWEST_STEPS = _SHORTEST * (_SHORTEST // _GRID - 1)  # at each phase, in a picture of the smallest size


def blocking_of(luma: Plane) -> float:
    """The ratio (≥ 1) of the steps across the best grid of 8 px to the others in `luma` (H, W; 0 to 255, NaN: ignored).

    A step is the deviation of a difference of neighbours from the mean of the differences on both sides. The grid's
    phase is unknown, since the picture may have been cropped: it is the phase with the largest steps, compared with the
    largest of the phases 2 to 6 px away. This excludes the grid's own effect on its neighbours, and patterns that
    repeat every 2 or 4 px, as in enlarged pictures. Both directions must show it.
    """
    if min(luma.shape) < _SHORTEST:
        return 1.0
    return min(_grid_ratio(luma), _grid_ratio(luma.T))


def _grid_ratio(luma: Plane) -> float:
    phases = _phases(luma)
    if phases is None:
        return 1.0
    best = int(phases.argmax())
    other = max(float(phases[(best + away) % _GRID]) for away in range(2, _GRID - 1))
    # No steps at all inside the cells: drawn in squares of 8 px, or enlarged by repeating px. No codec does that.
    if other < 0.001 * phases[best]:
        return 1.0
    return (float(phases[best]) + _FLOOR) / (other + _FLOOR)


def _phases(luma: Plane) -> npt.NDArray[np.float64] | None:
    """The mean step between columns at each of 8 phases, of which the first is that between the columns 1 and 2. None
    if there are too few."""
    differences = np.diff(luma, axis=1)
    steps = np.abs(differences[:, 1:-1] - (differences[:, :-2] + differences[:, 2:]) / 2)
    whole = steps.shape[1] // _GRID * _GRID
    cells = np.minimum(steps[:, :whole], _STEP_LIMIT).reshape(len(steps), -1, _GRID)
    counts = (~np.isnan(cells)).sum((0, 1))
    if counts.min() < _FEWEST_STEPS:
        return None
    means: npt.NDArray[np.float64] = np.nansum(cells, (0, 1), dtype=np.float64) / counts
    return means


_EDGE_LEVELS = 16
_FEWEST_EDGES = 8


def drawn_of(luma: Plane) -> float:
    """Of the blocks of 8 × 8 px that hold an edge, the fraction (0 to 1) that have one colour in a quarter of them (4 ×
    4 px), in `luma` (H, W; 0 to 255, NaN: ignored); 0 if there are hardly any edges.

    The blocks are those of the grid that `blocking_of` compares. A JPEG's coefficients are waves across the whole
    block, so an edge leaves traces in all of it; only beyond black and white are they clipped. In a drawing that was
    never compressed, the areas are flat right up to the edge, wherever that is.
    """
    if min(luma.shape) < _SHORTEST:
        return 0.0
    top, left = _grid_start(luma.T), _grid_start(luma)
    return 0.0 if top is None or left is None else _flat_beside_edges(luma[top:, left:])


def _grid_start(luma: Plane) -> int | None:
    """The first column at which a block of the best grid begins."""
    phases = _phases(luma)
    return None if phases is None else (int(phases.argmax()) + 2) % _GRID


def _flat_beside_edges(luma: Plane) -> float:
    """Of the blocks from the top left corner on."""
    rows, columns = (side // _GRID for side in luma.shape)
    half = _GRID // 2
    quarters = luma[: rows * _GRID, : columns * _GRID].reshape(rows, 2, half, columns, 2, half)
    brightest, darkest = quarters.max((2, 5)), quarters.min((2, 5))
    edges = brightest.max((1, 3)) - darkest.min((1, 3)) >= _EDGE_LEVELS
    flat = (brightest - darkest < _QUIET).any((1, 3))
    return float((flat & edges).sum() / edges.sum()) if edges.sum() >= _FEWEST_EDGES else 0.0
