"""Conversion between integer pixels and a network's tensors, on the device.

Tensors of pixels are NHWC, `uint8` or `uint16`; `low` and sub-pixels are as in `srgan_cli.networks.generators`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.imaging.standards import LUMA

# How far colour is spread into transparent areas, in low-resolution px; the engine adds it to the halo.
BLEED_PX = 8


def full_scale(dtype: torch.dtype) -> float:
    return 255.0 if dtype == torch.uint8 else 65535.0


def split(pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """(N, H, W, C) integers -> low (N, 3, H, W) and alpha (N, 1, H, W) or None, both fp32 in [0, 1]."""
    # uint16 has few kernels in PyTorch; conversion to float is one of them.
    planes = pixels.permute(0, 3, 1, 2).to(torch.float32).mul_(1.0 / full_scale(pixels.dtype))
    channels = planes.shape[1]
    color = planes if channels in (1, 3) else planes[:, :-1]
    alpha = None if channels in (1, 3) else planes[:, -1:]
    if color.shape[1] == 1:
        color = color.expand(-1, 3, -1, -1)
    return color.contiguous(memory_format=torch.channels_last), alpha


def bleed(low: Tensor, alpha: Tensor) -> Tensor:
    """Spread the visible colours `BLEED_PX` px into fully transparent areas.

    The stored colour there is arbitrary (often black), and the network would spread it over the edge as a dark fringe.
    """
    known = (alpha > 0).to(low.dtype)
    color = low * known
    for _ in range(BLEED_PX):
        # A 3×3 mean of the known neighbours; the factor 9 that avg_pool divides by cancels out.
        weight = F.avg_pool2d(known, 3, stride=1, padding=1)
        spread = F.avg_pool2d(color, 3, stride=1, padding=1) / weight.clamp_min(1e-6)
        reached = (weight > 0) & (known == 0)
        color = torch.where(reached, spread, color)
        known = torch.where(reached, torch.ones_like(known), known)
    return torch.where(known > 0, color, low)


def enlarge_alpha(alpha: Tensor, scale: int) -> Tensor:
    """Alpha, enlarged separately: bicubic (a = -0.5), exact where it is constant. (N, 1, H, W) -> (N, 1, sH, sW)"""
    high = F.interpolate(alpha, scale_factor=float(scale), mode="bicubic", align_corners=False, antialias=True)
    return high.clamp_(0.0, 1.0)


def join(subpixels: Tensor, shuffle: int, alpha: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Sub-pixels (N, C·r², h, w) in [0, 1], and alpha (N, 1, rh, rw) -> (N, rh, rw, C or C+1) integers, nearest.

    Quantisation precedes the pixel shuffle: bytes are shuffled four times as fast as floats.
    """
    high = F.pixel_shuffle(bits(quantise(subpixels, dtype)), shuffle)  # -> (N, 3 or 1, rh, rw)
    if alpha is not None:
        high = torch.cat((high, bits(quantise(alpha, dtype))), dim=1)
    return high.permute(0, 2, 3, 1).view(dtype)


def luma(subpixels: Tensor) -> Tensor:
    """(N, 3r², h, w) -> (N, r², h, w): the three channels of a grey picture combined."""
    red, green, blue = subpixels.chunk(3, dim=1)
    return red * LUMA[0] + green * LUMA[1] + blue * LUMA[2]


def quantise(values: Tensor, dtype: torch.dtype) -> Tensor:
    """[0, 1] -> integers, nearest; values outside are clipped."""
    top = full_scale(dtype)
    return values.mul(top).add_(0.5).clamp_(0.0, top).to(dtype)


def bits(values: Tensor) -> Tensor:
    """uint16 reinterpreted as int16, which all kernels support; the bits are the same."""
    return values.view(torch.int16) if values.dtype == torch.uint16 else values
