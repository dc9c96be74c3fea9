"""The linear part of a degradation: blur kernels, and matrices that resize one axis.

Resizing is separable and linear, so each axis is one matrix product, for any filter. All filters keep the centre of the
picture fixed and have rows that sum to 1, so colours do not drift and there is no shift by half a pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.imaging.bicubic import contributions

Floats: TypeAlias = npt.NDArray[Any]

# ----------------------------------------------------------------------------------------------------------------- blur

BlurKind: TypeAlias = Literal["gaussian", "lens", "motion"]


@dataclass(frozen=True)
class Blur:
    """A blur of about `sigma_px` standard deviation along its longer axis.

    gaussian: exp(-(u² + v²/`narrow`²)^`shape` / (2 `sigma_px`^(2 `shape`))): long tails for a shape below 1, a plateau
    above it, and the Gaussian itself at 1 (the generalised Gaussian of Real-ESRGAN, arXiv:2107.10833, section 3.1).
    lens: a disc, as from a lens out of focus. motion: a line of 1 px width. `angle` in radians, from x towards y.
    """

    kind: BlurKind
    sigma_px: float
    angle: float = 0.0
    narrow: float = 1.0  # the shorter axis as a fraction of the longer
    shape: float = 1.0


@dataclass(frozen=True)
class Ringing:
    """An ideal low-pass filter truncated at `radius_px`: halos along edges, like those of sharpening and codecs.

    `cutoff` is the highest frequency that passes, as a fraction of the Nyquist frequency: 1 changes nothing.
    """

    cutoff: float
    radius_px: int


def blurred(picture: Tensor, blur: Blur | Ringing) -> Tensor:
    """(C, H, W) -> (C, H, W), with edges repeated beyond the borders. Ringing overshoots and is not clipped."""
    kernel = torch.from_numpy(sinc_kernel(blur) if isinstance(blur, Ringing) else blur_kernel(blur)).to(picture)
    padded = F.pad(picture[None], (len(kernel) // 2,) * 4, mode="replicate")
    return F.conv2d(padded, kernel.expand(len(picture), 1, *kernel.shape), groups=len(picture))[0]


def blur_kernel(blur: Blur) -> Floats:
    """(side, side) with an odd side; nonnegative, with sum 1 and its centre of mass in the middle."""
    reach = {"gaussian": 3.0, "lens": 2.0, "motion": math.sqrt(3)}[blur.kind] * blur.sigma_px
    radius = math.ceil(reach)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    u = x * math.cos(blur.angle) + y * math.sin(blur.angle)
    v = y * math.cos(blur.angle) - x * math.sin(blur.angle)
    if blur.kind == "gaussian":
        squared = (u**2 + (v / blur.narrow) ** 2) / blur.sigma_px**2
        kernel = np.exp(-0.5 * squared**blur.shape)
    elif blur.kind == "lens":  # a disc of radius r has a standard deviation of r/2 along each axis
        kernel = _covered(np.hypot(x, y), reach)
    else:  # and a line of length l has l/√12
        kernel = _covered(np.abs(u), reach) * np.maximum(1 - np.abs(v), 0.0)
    result: Floats = (kernel / kernel.sum()).astype(np.float32)
    return result


def sinc_kernel(ringing: Ringing) -> Floats:
    """(side, side) with an odd side and sum 1, partly negative.

    The circular sinc filter, w / (2 pi r) J1(w r) with w = pi `cutoff` (X. Wang et al. 2021, arXiv:2107.10833, section
    3.3, eq. 6).
    """
    radius, omega = ringing.radius_px, math.pi * ringing.cutoff
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    distance = np.hypot(x, y)
    distance[radius, radius] = 1.0  # the centre is a limit, computed below
    kernel = omega * torch.special.bessel_j1(torch.from_numpy(omega * distance)).numpy() / (2 * math.pi * distance)
    kernel[radius, radius] = omega**2 / (4 * math.pi)
    result: Floats = (kernel / kernel.sum()).astype(np.float32)
    return result


def _covered(distance: Floats, reach: float) -> Floats:
    """The fraction of a pixel at `distance` that is within `reach` of the centre: soft edges, so that every size makes
    a difference."""
    return np.minimum(np.maximum(reach + 0.5 - distance, 0.0), 1.0)


# ------------------------------------------------------------------------------------------------------------- resizing

Filter: TypeAlias = Literal["area", "bilinear", "bicubic", "lanczos"]
FILTERS: tuple[Filter, ...] = ("area", "bilinear", "bicubic", "lanczos")


def resized(picture: Tensor, width: int, height: int, kind: Filter) -> Tensor:
    """(C, H, W) -> (C, height, width), antialiased, with edges repeated. Bicubic and Lanczos overshoot and are not
    clipped."""
    rows = resize_matrix(kind, picture.shape[-2], height, picture.dtype, picture.device)
    columns = resize_matrix(kind, picture.shape[-1], width, picture.dtype, picture.device)
    return along_both_axes(picture, rows, columns)


def along_both_axes(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(…, H, W) with `rows` (H', H) and `columns` (W', W) -> (…, H', W'), rows first."""
    return rows @ pictures @ columns.T


# Only small ones are cached: crops of 128 px need about a thousand, 40 MB in total; one for a large photo is 100 MB.
_KEPT_NUMBERS, _KEPT_MATRICES = 1 << 16, 1024  # at most 256 MB in fp32, with large crops


def resize_matrix(kind: Filter, length: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(target, length), with rows that sum to 1. Bicubic is MATLAB's: `imaging.bicubic`."""
    make = _kept_matrix if length * target <= _KEPT_NUMBERS else _resize_matrix
    return make(kind, length, target, dtype, device)


# Created outside inference mode: tensors created inside it could never be used in a backward pass.
@torch.inference_mode(False)
def _resize_matrix(kind: Filter, length: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    indices, weights = contributions(length, target) if kind == "bicubic" else _contributions(kind, length, target)
    return _matrix(indices, weights, length).to(device, dtype)


_kept_matrix = lru_cache(maxsize=_KEPT_MATRICES)(_resize_matrix)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def gaussian_matrix(length: int, sigma_px: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(length, length): a Gaussian blur along one axis, truncated at 3 sigma, with edges repeated."""
    radius = math.ceil(3 * sigma_px)
    taps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (taps / sigma_px) ** 2)
    indices = np.arange(length)[:, None] + taps
    return _matrix(indices, np.tile(weights / weights.sum(), (length, 1)), length).to(device, dtype)


def _contributions(kind: Filter, length: int, target: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Like `imaging.bicubic.contributions`, for the other filters. Indices may be beyond the borders."""
    reach, weight = _FILTERS[kind]
    stretch = max(length / target, 1.0)  # the filter is widened for downscaling
    centres = (np.arange(target) + 0.5) * length / target - 0.5  # in source px
    radius = math.ceil(reach * stretch)
    indices = np.floor(centres).astype(np.int64)[:, None] + np.arange(-radius, radius + 2)
    weights = weight(np.abs(centres[:, None] - indices), stretch)
    return indices, weights / weights.sum(axis=1, keepdims=True)


def _matrix(indices: npt.NDArray[np.int64], weights: Floats, length: int) -> Tensor:
    matrix = np.zeros((len(indices), length))
    rows = np.arange(len(indices))[:, None]
    np.add.at(matrix, (rows, indices.clip(0, length - 1)), weights)  # an edge pixel may occur more than once
    return torch.from_numpy(matrix)


def _area(distance: Floats, stretch: float) -> Floats:
    """The fraction of a pixel covered by a box of `stretch` px. With 1 px, for enlarging, it is the bilinear filter."""
    return _covered(distance, stretch / 2)


def _bilinear(distance: Floats, stretch: float) -> Floats:
    return np.maximum(1 - distance / stretch, 0.0)


def _lanczos(distance: Floats, stretch: float) -> Floats:
    """Lanczos with three lobes, like Pillow's and libvips'."""
    x = distance / stretch
    return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


# A filter's radius before it is widened, and its weights by distance in px.
_FILTERS: dict[str, tuple[float, Callable[[Floats, float], Floats]]] = {
    "area": (1.0, _area),
    "bilinear": (1.0, _bilinear),
    "lanczos": (3.0, _lanczos),
}
