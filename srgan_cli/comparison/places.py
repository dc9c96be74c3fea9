"""Where to look: the parts of a scene in which its pictures differ most, or those chosen by the user.

Only structure counts. Differences are measured by their standard deviation inside small cells, so a uniform change of
brightness is not a difference, but the joints between bricks are. Cells in which the pictures themselves show nothing
but noise count little: there a method that smooths differs from one that does not, but there is nothing to see.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from srgan_cli.comparison.scenes import Area, Enlarged, Scene, Still, View
from srgan_cli.errors import SettingsError
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.standards import luma

_CELLS_ACROSS = 8  # of a crop: finer finds little more, and coarser positions it badly
_MIN_CELL_PX = 4
_BAND_PX = 256  # approximate number of px examined at once, so that memory stays small for pictures of any size

# The side of a grain of noise, in px of the frame, if no view says how much it was enlarged: srgan's usual scale. If
# the true one is smaller, only the finest texture counts less.
_GRAIN_PX = 4
_MAX_GRAIN_PX = 16  # srgan's largest scale; a band holds whole grains, and should not become high
# White noise has a quarter of its variance left at twice the size; 0.36 allows for the few samples of a neighbourhood.
_OF_NOISE = 0.36
# In units of the noise's variance: the excess at which a cell counts half.
_HALF_COUNTED = 0.5
_LEAST_WEIGHT = 0.05  # of noise alone: something must be chosen in a picture of nothing else
_SMOOTHING_BLOCKS, _QUIETEST_BLOCKS = 1.2, 5
_NO_VARIANCE = 0.01  # below what rounding to integers leaves

Grid = npt.NDArray[np.float64]  # (rows, columns) of cells
Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Spot:
    """The centre of a crop: in px of the frame, or, if `is_fraction`, in fractions of its width and height."""

    x: float
    y: float
    is_fraction: bool = False

    @staticmethod
    def parse(text: str) -> Spot:
        """`'1200,800'` are px; `'0.5,0.25'` and `'1.0,0.0'`, with points, fractions. Raises `SettingsError`."""
        number = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*"
        match = re.fullmatch(f"{number},{number}", text, re.ASCII)
        if match is None:
            raise SettingsError(
                f"--at expects X,Y in px of the largest picture (1200,800) or as fractions (0.5,0.25), not {text!r}"
            )
        x, y = float(match[1]), float(match[2])
        return Spot(x, y, is_fraction="." in text and max(x, y) <= 1)

    def box(self, scene: Scene, side_px: int) -> Area:
        """The crop around it, moved inside the frame if necessary."""
        x, y = (self.x * scene.width, self.y * scene.height) if self.is_fraction else (self.x, self.y)
        if x > scene.width or y > scene.height:
            raise SettingsError(
                f"--at {self.x:g},{self.y:g} lies outside of {scene.name or 'the pictures'}, "
                f"{scene.width}x{scene.height} px"
            )
        width, height = min(side_px, scene.width), min(side_px, scene.height)
        left = min(max(0, round(x - width / 2)), scene.width - width)
        top = min(max(0, round(y - height / 2)), scene.height - height)
        return Area(left, top, width, height)


def most_different(scene: Scene, views: Sequence[View], count: int, side_px: int) -> list[Area]:
    """Up to `count` crops of `side_px` that do not overlap, starting with the one in which the views differ most.

    Each view is requested for the whole frame, band by band. A single view is compared with black, which finds its
    areas of most structure.
    """
    cell_px, grain_px = _cell_px(scene, side_px), _grain_px(scene)
    examined = [_examined(pictures, cell_px, grain_px) for pictures in _bands(scene, views, cell_px, grain_px)]
    std, reduced = np.vstack([one for one, _ in examined]), np.concatenate([one for _, one in examined], axis=1)
    return _best(std * _structure(reduced, std.shape, cell_px / grain_px), scene, count, side_px, cell_px)


def difference(scene: Scene, pictures: Sequence[Pixels]) -> float:
    """How much crops of one size out of a scene differ in structure; comparable between crops of that size."""
    height, width = pictures[0].shape[:2]
    grain_px = _grain_px(scene)
    cell_px = min(_multiple(max(_MIN_CELL_PX, width // _CELLS_ACROSS), grain_px), width, height)
    std, reduced = _examined(pictures, cell_px, grain_px)
    return float((std * _structure(reduced, std.shape, cell_px / grain_px)).sum())


def _cell_px(scene: Scene, side_px: int) -> int:
    side_px = min(side_px, scene.width, scene.height)
    return min(_multiple(max(_MIN_CELL_PX, side_px // _CELLS_ACROSS), _grain_px(scene)), side_px)


def _multiple(cell_px: int, grain_px: int) -> int:
    """Rounded down, so that bands of whole cells are of whole grains as well."""
    return cell_px // grain_px * grain_px or cell_px


def _grain_px(scene: Scene) -> int:
    """How many px of the frame a px of the smallest picture is: its noise is as coarse as that in all results. At
    most 16."""
    scales = [view.upscaler.scale if isinstance(view, Enlarged) else view.across
              for view in scene.views if isinstance(view, (Enlarged, Still))]  # fmt: skip
    scale = round(max(scales, default=1.0))
    return min(scale, _MAX_GRAIN_PX) if scale > 1 else _GRAIN_PX


def _bands(scene: Scene, views: Sequence[View], cell_px: int, grain_px: int) -> Iterator[list[Pixels]]:
    unit_px = math.lcm(cell_px, grain_px)
    step_px = max(1, _BAND_PX // unit_px) * unit_px
    for top in range(0, scene.height - cell_px + 1, step_px):
        rows = min(step_px, scene.height - top)
        yield [view.crop(Area(0, top, scene.width, rows)) for view in views]


def _examined(pictures: Sequence[Pixels], cell_px: int, grain_px: int) -> tuple[Grid, Plane]:
    """For every complete cell, the difference of the pictures' luma, without its mean there; and the luma of each of
    them, (pictures, h, w), reduced so that one px is a grain.

    The standard deviation is used, not the variance, so that one hard edge does not outweigh a meadow.
    """
    parts = [luma(one, np.float32) for one in pictures]  # (H, W, 3) -> (H, W)
    mean = sum(parts) / np.float32(len(parts)) if len(parts) > 1 else np.float32(0)
    variance = sum(_cells(part - mean, cell_px).var(axis=(1, 3), dtype=np.float64) for part in parts)
    return np.sqrt(variance), np.stack([_cells(part, grain_px).mean(axis=(1, 3)) for part in parts])


def _cells(values: Plane, cell_px: int) -> Plane:
    """(H, W) -> (rows, cell_px, columns, cell_px), of complete cells only."""
    rows, columns = (length // cell_px for length in values.shape)
    return values[: rows * cell_px, : columns * cell_px].reshape(rows, cell_px, columns, cell_px)


def _structure(reduced: Plane, shape: tuple[int, ...], cell_px: float) -> Grid:
    """For every cell of a grid, from 0.05 (nothing but noise) to 1, how much structure there is beside noise.

    `reduced` (pictures, h, w) has px of the size of a grain, and `cell_px` is a cell's side in these. In blocks of
    4 × 4 px the variance inside squares of 2 × 2 px, in the picture with the most of it, is compared with that between
    these squares, in the pictures' mean: white noise has a quarter left, structure about as much or more. The noise is
    that of the quietest block nearby, since texture is hardly distinguishable from it in a single block.
    """
    rows, columns = (length // 4 for length in reduced.shape[1:])
    if not rows or not columns:
        return np.ones(shape)
    squares = reduced[:, : 4 * rows, : 4 * columns].reshape(-1, rows, 2, 2, columns, 2, 2)
    fine = squares.var(axis=(3, 6)).mean(axis=(2, 4)).max(0)
    coarse = squares.mean(axis=(0, 3, 6)).var(axis=(1, 3))
    fine, coarse = (cv2.GaussianBlur(one, (0, 0), _SMOOTHING_BLOCKS, borderType=cv2.BORDER_REFLECT)
                    for one in (fine, coarse))  # fmt: skip
    noise = cv2.erode(fine, np.ones((_QUIETEST_BLOCKS, _QUIETEST_BLOCKS), np.uint8))
    excess = np.maximum(coarse - _OF_NOISE * noise, 0) + _NO_VARIANCE
    weight = _LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * excess / (excess + _HALF_COUNTED * noise)
    # The block at the centre of each cell.
    at = [
        np.minimum(((np.arange(count) + 0.5) * cell_px / 4).astype(int), length - 1)
        for count, length in zip(shape, weight.shape, strict=True)
    ]
    return np.asarray(weight[np.ix_(*at)], np.float64)


def _best(grid: Grid, scene: Scene, count: int, side_px: int, cell_px: int) -> list[Area]:
    """Greedy: the best window of cells, and then the best that does not overlap earlier ones."""
    width, height = min(side_px, scene.width), min(side_px, scene.height)
    across, down = (min(grid.shape[i], math.ceil(side / cell_px)) for i, side in ((1, width), (0, height)))
    total = np.pad(grid, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    windows = total[down:, across:] - total[:-down, across:] - total[down:, :-across] + total[:-down, :-across]
    found: list[Area] = []
    while len(found) < count and np.isfinite(windows).any():
        row, column = divmod(int(np.argmax(windows)), windows.shape[1])
        # The picture may extend beyond the last complete cells; a crop begins where its window does, or as far in as
        # necessary.
        left, top = min(column * cell_px, scene.width - width), min(row * cell_px, scene.height - height)
        found.append(Area(left, top, width, height))
        windows[max(0, row - down + 1) : row + down, max(0, column - across + 1) : column + across] = -np.inf
    return found
