"""Finding the part of a frame that changed, so that unchanged pixels are not written again and do not flicker."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from srgan_cli.imaging.image import Pixels


class Box(NamedTuple):
    """A rectangle in px: rows top … bottom - 1, columns left … right - 1."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def of(self, pixels: Pixels) -> Pixels:
        """This part of (H, W, C), as a contiguous copy."""
        return np.ascontiguousarray(pixels[self.top : self.bottom, self.left : self.right])


def whole(pixels: Pixels) -> Box:
    return Box(0, 0, pixels.shape[1], pixels.shape[0])


def box_of(changed: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Box:
    """The bounding box of the true elements of (H, W); a box of one px if there are none, since a frame must not be
    empty."""
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    if not len(rows):
        return Box(0, 0, 1, 1)
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)


def changed_box(pixels: Pixels, before: Pixels | None, *, even: bool = False) -> Box:
    """The box in which `pixels` differ from `before`, or all of them if there is none. `even`: starts at even
    coordinates."""
    if before is None:
        return whole(pixels)
    changed = (pixels != before).any(2)
    if pixels.shape[2] in (2, 4):  # the colour of transparent pixels is invisible
        changed &= (pixels[:, :, -1] > 0) | (before[:, :, -1] > 0)
    box = box_of(changed)
    return Box(box.left - box.left % 2, box.top - box.top % 2, box.right, box.bottom) if even else box
