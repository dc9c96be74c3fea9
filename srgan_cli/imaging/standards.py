"""Numbers from standards that several parts of srgan use."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_Real = TypeVar("_Real", np.float32, np.float64)

# Of R, G and B: ITU-R BT.601, in full range as in JPEG.
LUMA = (0.299, 0.587, 0.114)
CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # Cb, Cr


def luma(pixels: npt.NDArray[Any], dtype: type[_Real]) -> npt.NDArray[_Real]:
    """(…, R G B) -> (…), on the same scale, neither rounded nor clipped. For tensors see `networks.layers.luma`."""
    return np.asarray(np.asarray(pixels, dtype) @ np.array(LUMA, dtype))


def srgb_to_linear(encoded: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IEC 61966-2-1, 0 to 1."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
