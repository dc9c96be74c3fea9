"""Where to look: the parts of a scene in which its pictures differ most, or those chosen by the user.

Only structure counts. Differences are measured by their standard deviation inside small cells, so a uniform change of
brightness is not a difference, but the joints between bricks are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srgan_cli.comparison.scenes import Area, Scene, Still, View
from srgan_cli.errors import SettingsError
from srgan_cli.imaging.image import Pixels

_CELLS_ACROSS = 8  # of a crop: finer finds little more, and coarser positions it badly
_MIN_CELL_PX = 4
_BAND_PX = 256  # approximate number of px examined at once, so that memory stays small for pictures of any size
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Grid = npt.NDArray[np.float64]  # (rows, columns) of cells


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
    if len(views) == 1:
        black = np.broadcast_to(np.uint8(0), (1, 1, 3))
        views = (*views, Still("", "", black, scene.width, scene.height, "nearest"))
    cell_px = _cell_px(scene, side_px)
    grid = np.vstack([_std_of_cells(pictures, cell_px) for pictures in _bands(scene, views, cell_px)])
    return _best(grid, scene, count, side_px, cell_px)


def difference(pictures: Sequence[Pixels]) -> float:
    """How much crops of one size differ in structure; comparable between crops of that size."""
    height, width = pictures[0].shape[:2]
    cell_px = min(max(_MIN_CELL_PX, width // _CELLS_ACROSS), width, height)
    return float(_std_of_cells(pictures, cell_px).sum())


def _cell_px(scene: Scene, side_px: int) -> int:
    side_px = min(side_px, scene.width, scene.height)
    return min(max(_MIN_CELL_PX, side_px // _CELLS_ACROSS), side_px)


def _bands(scene: Scene, views: Sequence[View], cell_px: int) -> Iterator[list[Pixels]]:
    step_px = max(1, _BAND_PX // cell_px) * cell_px
    for top in range(0, scene.height - cell_px + 1, step_px):
        rows = min(step_px, scene.height - top)
        yield [view.crop(Area(0, top, scene.width, rows)) for view in views]


def _std_of_cells(pictures: Sequence[Pixels], cell_px: int) -> Grid:
    """For every complete cell, the difference of the pictures' luma, without its mean there.

    The standard deviation is used, not the variance, so that one hard edge does not outweigh a meadow.
    """
    rows, columns = (length // cell_px for length in pictures[0].shape[:2])
    parts = [one[: rows * cell_px, : columns * cell_px] @ _LUMA for one in pictures]  # (H, W, 3) -> (H, W)
    mean = sum(parts) / len(parts)
    cells = [(part - mean).reshape(rows, cell_px, columns, cell_px) for part in parts]
    variance = sum(one.var(axis=(1, 3), dtype=np.float64) for one in cells)
    return np.asarray(np.sqrt(variance))


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
