"""PSNR and SSIM as usually reported, equal to MATLAB's.

Conventions for both: on Y of BT.601 in studio swing, as from `rgb2ycbcr` for 8-bit RGB, rounded; grey pictures are used
as they are; a border as wide as the scale is cut off. Values on RGB are given too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from srgan_cli.imaging import standards

Plane = npt.NDArray[np.float64]

_PEAK = 255.0
# Wang et al. 2004, section III-B.
_WINDOW_PX, _SIGMA_PX = 11, 1.5
_K1, _K2 = 0.01, 0.03


@dataclass(frozen=True)
class Scores:
    """How close a picture is to its original. PSNR in dB (infinite if equal), SSIM at most 1.

    `psnr_y_unrounded_db` is what most PyTorch code reports instead: Y is not rounded, and grey counts as RGB with three
    equal channels. It is about 0.02 dB higher, and on grey pictures 1.3 dB.
    """

    psnr_y_db: float
    ssim_y: float
    psnr_rgb_db: float
    ssim_rgb: float
    psnr_y_unrounded_db: float


def compare(picture: npt.NDArray[Any], original: npt.NDArray[Any], border_px: int) -> Scores:
    """Compare two pictures, both (H, W, 3) or (H, W, 1) of uint8, RGB or grey.

    If the original is grey, its values are compared as they are, in 0 … 255: the published figures for Set14, which
    contains one such picture, are computed that way. A result in colour is first converted to grey.

    `border_px` is cut off on each side: the scale, by convention. Raises `ValueError` if the sizes differ, or if less
    than SSIM's window of 11 px would be left.
    """
    if picture.shape[:2] != original.shape[:2]:
        raise ValueError(f"cannot compare pictures of {picture.shape[:2]} and {original.shape[:2]} px")
    ours, truth = _cropped(picture, border_px), _cropped(original, border_px)
    if truth.shape[2] == 1:
        grey, grey_truth = grey_plane(ours), truth[..., 0].astype(np.float64)
        value, likeness = psnr(grey, grey_truth), ssim(grey, grey_truth)
        swing = 20.0 * math.log10(_PEAK / (235.0 - 16.0))  # Y of a grey picture has a range of 219 levels
        return Scores(value, likeness, value, likeness, value + swing)
    ours = np.broadcast_to(ours, truth.shape)
    ours_y, truth_y = luma(ours), luma(truth)
    channels = [(ours[..., i].astype(np.float64), truth[..., i].astype(np.float64)) for i in range(3)]
    return Scores(
        psnr_y_db=psnr(ours_y, truth_y),
        ssim_y=ssim(ours_y, truth_y),
        psnr_rgb_db=psnr(ours, truth),
        ssim_rgb=float(np.mean([ssim(a, b) for a, b in channels])),
        psnr_y_unrounded_db=psnr(_unrounded_luma(ours), _unrounded_luma(truth)),
    )


def luma(rgb: npt.NDArray[Any]) -> Plane:
    """Y in 16 … 235, whole numbers: (H, W, 3) uint8 -> (H, W) float64. ITU-R BT.601, as MATLAB's `rgb2ycbcr`."""
    return np.floor(_unrounded_luma(rgb) + 0.5)


def _unrounded_luma(rgb: npt.NDArray[Any]) -> Plane:
    return np.asarray(16.0 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0)


def psnr(picture: npt.NDArray[Any], original: npt.NDArray[Any]) -> float:
    """Peak signal-to-noise ratio in dB, for a peak of 255 and arrays of one shape; infinite if they are equal."""
    difference = picture.astype(np.float64) - original.astype(np.float64)
    error = float(np.mean(difference * difference))
    return float("inf") if error == 0.0 else float(10.0 * np.log10(_PEAK * _PEAK / error))


def ssim(picture: Plane, original: Plane) -> float:
    """Mean structural similarity of two planes (H, W), at least 11 × 11 px, in 0 … 255.

    Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image quality assessment: from error visibility to structural
    similarity", IEEE Trans. Image Processing 13(4), 2004, eq. 13 with the authors' `ssim_index.m`: an 11 × 11 Gaussian
    of σ 1.5 px, K1 0.01, K2 0.03, only windows completely inside the picture. (Their suggestion to downscale large
    pictures first is not followed, as is usual in this field.)
    """
    if min(picture.shape) < _WINDOW_PX:
        raise ValueError(f"SSIM needs at least {_WINDOW_PX}x{_WINDOW_PX} px, not {picture.shape}")
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    mean_a, mean_b = _smooth(picture), _smooth(original)
    variance_a = _smooth(picture * picture) - mean_a * mean_a
    variance_b = _smooth(original * original) - mean_b * mean_b
    covariance = _smooth(picture * original) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float(np.mean(likeness / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))))


def gaussian(window_px: int, sigma_px: float) -> npt.NDArray[np.float64]:
    """The weights of a window, (window_px,), whose sum is 1."""
    taps = np.exp(-0.5 * ((np.arange(window_px) - window_px // 2) / sigma_px) ** 2)
    return np.asarray(taps / taps.sum())


def _smooth(plane: Plane) -> Plane:
    """The Gaussian mean for windows completely inside: (H, W) -> (H-10, W-10)."""
    taps = gaussian(_WINDOW_PX, _SIGMA_PX)
    inside = _WINDOW_PX // 2
    smooth: Plane = cv2.sepFilter2D(plane, cv2.CV_64F, taps, taps)
    return smooth[inside:-inside, inside:-inside]


def _cropped(picture: npt.NDArray[Any], border_px: int) -> npt.NDArray[Any]:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"expected (H, W, 3) or (H, W, 1) of uint8, not {picture.shape} of {picture.dtype}")
    height, width = picture.shape[:2]
    if border_px < 0 or min(height, width) <= 2 * border_px:
        raise ValueError(f"cannot cut a border of {border_px} px off {width}x{height} px")
    return picture[border_px : height - border_px, border_px : width - border_px]


def grey_plane(picture: npt.NDArray[Any]) -> Plane:
    """(H, W, 1 or 3) -> (H, W), full range, as MATLAB's `rgb2gray`."""
    if picture.shape[2] == 1:
        return np.asarray(picture[..., 0], np.float64)
    return np.asarray(np.floor(standards.luma(picture, np.float64) + 0.5))
