"""Was this picture a JPEG before it was saved in another format, and of which quality? Determined from its pixels.

A JPEG's cosine coefficients are multiples of its quantiser's steps, up to the rounding of the decoded pixels. As long
as the picture has not been resized or retouched, their histogram is a comb, but only at the position of the original
grid of 8 × 8 px (Z. Fan and R. L. de Queiroz, "Identification of Bitmap Compression History", IEEE Trans. Image
Processing 12(2), 2003). This detects JPEGs whose blocks are invisible and do not show in differences between
neighbouring pixels.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.compression import quality_of_steps

Plane: TypeAlias = npt.NDArray[np.float32]
Frequency: TypeAlias = tuple[int, int]  # row and column in a block of coefficients

_GRID = 8
_PHASE_BLOCKS, _COMB_BLOCKS = 400, 2048
# The lowest frequencies: they have nonzero coefficients at any quality, and the finest steps.
_JUDGED: tuple[Frequency, ...] = tuple((v, u) for v in range(6) for u in range(6) if 0 < v + u < 6)
_ZERO = 0.5
_CANDIDATES = 3
_MAX_STEP = 120
_MIN_COUNT = 24
_COMB = 0.6  # mean cosine: white noise of 0.3 levels, as from rounding twice, leaves 0.83 of a comb of step 3
_MIN_COMBS = 4
_MIDDLE = np.float32(128)


def jpeg_quality_of(luma: Plane) -> int | None:
    """The quality (1 to 100, as in libjpeg) of the JPEG that `luma` (H, W; 0 to 255, NaN: unknown) was decoded from.

    None if there is no trace of one: never compressed, resized since, or of a quality above about 92, where a step is
    lost in rounding. The picture may have been cropped anywhere.
    """
    if min(luma.shape) < 4 * _GRID:
        return None
    centred = luma - _MIDDLE
    for top, left in _phases(centred):
        steps = _steps(_coefficients(centred[top:, left:], _COMB_BLOCKS))
        if len(steps) >= _MIN_COMBS and any(step > 1 for step in steps.values()):
            return quality_of_steps(steps)
    return None


def _phases(luma: Plane) -> list[tuple[int, int]]:
    """The most likely positions of the grid: where most coefficients are 0."""
    zeros = {
        (top, left): _zeros(_coefficients(luma[top:, left:], _PHASE_BLOCKS))
        for top in range(_GRID)
        for left in range(_GRID)
    }
    return sorted(zeros, key=lambda phase: -zeros[phase])[:_CANDIDATES]


def _zeros(coefficients: Plane) -> float:
    """Which fraction is 0."""
    return float((np.abs(coefficients) < _ZERO).mean()) if coefficients.size else 0.0


def _coefficients(luma: Plane, max_blocks: int) -> Plane:
    """The cosine transform of blocks of 8 × 8 px, evenly distributed over the picture: (H, W) -> (N, 8, 8). Those with
    unknown px are left out."""
    rows, columns = (side // _GRID for side in luma.shape)
    cells = luma[: rows * _GRID, : columns * _GRID].reshape(rows, _GRID, columns, _GRID)
    blocks = cells.transpose(0, 2, 1, 3).reshape(-1, _GRID, _GRID)
    if np.isnan(luma).any():
        blocks = blocks[~np.isnan(blocks).any((1, 2))]
    chosen = blocks[:: max(-(-len(blocks) // max_blocks), 1)]
    return (_COSINES @ chosen @ _COSINES.T).astype(np.float32, copy=False)


def _cosines() -> Plane:
    """T.81 A.3.3 as a matrix, orthonormal."""
    n = np.arange(_GRID)
    matrix: Plane = np.cos((2 * n[None] + 1) * n[:, None] * np.pi / (2 * _GRID)).astype(np.float32)
    matrix *= np.float32(math.sqrt(2 / _GRID))
    matrix[0] /= np.float32(math.sqrt(2))
    return matrix


_COSINES = _cosines()


def _steps(coefficients: Plane) -> dict[Frequency, int]:
    """The quantiser's step at each low frequency that shows a comb."""
    found = {place: _step(coefficients[:, place[0], place[1]]) for place in _JUDGED}
    return {place: step for place, step in found.items() if step is not None}


def _step(values: npt.NDArray[np.float32]) -> int | None:
    """The largest step whose multiples match the values, if there is one."""
    for step in range(_MAX_STEP, 1, -1):
        if _comb(values, step) > _COMB:
            # The next larger step may have reached the threshold first.
            return max((step, step - 1), key=lambda near: _comb(values, near) if near > 1 else 0.0)
    return None


def _comb(values: npt.NDArray[np.float32], step: int) -> float:
    """How close the values are to multiples of `step`: 1 if exact, 0 if unrelated or if there are too few values.

    Values that round to 0 are ignored, since all small values do. A single cluster is ignored too, since it may be
    anywhere by chance.
    """
    multiples = values[np.abs(values) > 0.6 * step] / step
    if len(multiples) < _MIN_COUNT or (np.abs(multiples) > 1.5).sum() < _MIN_COUNT // 4:
        return 0.0
    return float(np.cos(2 * np.pi * multiples).mean())
