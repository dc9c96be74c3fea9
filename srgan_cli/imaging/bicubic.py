"""Bicubic resizing equal to MATLAB's `imresize`: the field's standard way to make low pictures, and its baseline.

The kernel is Keys's cubic convolution with a = -1/2 (R. G. Keys, "Cubic convolution interpolation for digital image
processing", IEEE Trans. ASSP 29(6), 1981, eq. 15). Downscaling widens it by the factor (antialiasing), edge pixels are
repeated beyond the borders, and integers are rounded after each axis. This reproduces the published low pictures of
Set5, Set14 and BSD100 exactly. Later releases of MATLAB mirror at the borders instead, which changes the few outermost
pixels. Other libraries' bicubic differs everywhere: the default of OpenCV and PyTorch has a = -3/4 and no antialiasing;
Pillow truncates the kernel at the borders.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_KERNEL_PX = 4


def bicubic(pixels: npt.NDArray[Any], width: int, height: int) -> npt.NDArray[Any]:
    """`pixels` (H, W, C) or (H, W) resized to (height, width, …), as by `imresize(pixels, [height width])`.

    uint8 and uint16 are rounded half up and clipped; floats are returned as float64 and may overshoot. The axis that
    shrinks more goes first, rows before columns when equal.
    """
    if pixels.ndim not in (2, 3) or width < 1 or height < 1:
        raise ValueError(
            f"expected (H, W) or (H, W, C) and a size of at least 1x1, not {pixels.shape}, {width}x{height}"
        )
    targets = (height, width)
    result = pixels
    for axis in sorted((0, 1), key=lambda axis: targets[axis] / pixels.shape[axis]):
        result = _resize_axis(result, targets[axis], axis)
    return result


def contributions(length: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The source pixels of an axis of `length` px for each of `target` px, and their weights.

    Two arrays (target, taps): indices in [0, length), and weights whose rows sum to 1.
    """
    scale = target / length
    stretch = min(scale, 1.0)  # below 1 the kernel is widened
    reach = _KERNEL_PX / stretch
    taps = math.ceil(reach) + 2
    centres = (np.arange(target) + 0.5) / scale - 0.5  # in the source's pixels
    first = np.floor(centres - reach / 2).astype(np.int64)
    indices = first[:, None] + np.arange(taps)  # (target, taps)
    weights = _keys(stretch * (centres[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    return np.clip(indices[:, used], 0, length - 1), weights[:, used]


def _keys(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _resize_axis(pixels: npt.NDArray[Any], target: int, axis: int) -> npt.NDArray[Any]:
    indices, weights = contributions(pixels.shape[axis], target)
    shape = [1] * pixels.ndim
    shape[axis] = target
    total = np.zeros([target if i == axis else n for i, n in enumerate(pixels.shape)])
    for tap in range(indices.shape[1]):
        total += np.take(pixels, indices[:, tap], axis) * weights[:, tap].reshape(shape)
    if not np.issubdtype(pixels.dtype, np.integer):
        return total
    top = np.iinfo(pixels.dtype).max
    return np.floor(total + 0.5).clip(0, top).astype(pixels.dtype)
