"""What makes a wearer's results like worn pictures that show something else, and like the high pictures they are of.

Conventions as in `losses`: NCHW, RGB, [0, 1], computed in fp32, 0-d tensors with their graph.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.training.losses import wide

_BLOCK_PX = 8
_FLOOR = 0.5 / 255  # of a coefficient: below half a level, rounding is all there is
_AREA_PX = 8
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def statistics(worn: Tensor, real: Tensor) -> Tensor:
    """How far apart two batches are in the distributions of their 8×8 blocks' DCT coefficients; sizes must be equal.

    Of each of the 63 frequencies of Y, Cb and Cr, the logarithms of all blocks' magnitudes are sorted, and the sorted
    lists compared: Wasserstein's distance of two distributions on a line (as in Rabin et al. 2011, whose projections
    are these frequencies here). Quiet blocks, the lower part of a list, tell of noise and of a codec's zeros; lively
    ones, its upper part, of blur. Which block is whose does not matter, so pictures of other things can be compared.
    """
    with torch.autocast(worn.device.type, enabled=False):
        ours, theirs = (_sorted_coefficients(wide(pictures)) for pictures in (worn, real))
        return (ours - theirs).abs().mean()


def _sorted_coefficients(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (189, blocks): logarithms of magnitudes, each row sorted."""
    planes = torch.einsum("cd,ndhw->nchw", pictures.new_tensor(_YCBCR), pictures)
    height, width = planes.shape[2:]
    kernels = _cosines().to(planes)
    found = F.conv2d(planes.reshape(-1, 1, height, width), kernels, stride=_BLOCK_PX)  # (3N, 63, h, w)
    rows = found.reshape(len(pictures), 3, *found.shape[1:]).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
    sizes = torch.log(rows.abs() + _FLOOR)
    return sizes.sort(dim=1).values


@functools.cache
def _cosines() -> Tensor:
    """(63, 1, 8, 8): the orthonormal DCT's basis, without the mean."""
    with torch.inference_mode(False):
        place = torch.arange(_BLOCK_PX, dtype=torch.float64)
        waves = torch.cos(math.pi * place[:, None] * (2 * place + 1) / (2 * _BLOCK_PX)) * math.sqrt(2 / _BLOCK_PX)
        waves[0] /= math.sqrt(2)
        return torch.einsum("ay,bx->abyx", waves, waves).flatten(0, 1)[1:, None]


def low_frequency(worn: Tensor, low: Tensor) -> Tensor:
    """L1 between means over 8×8 px: what is shown stays in its place, and no colour moves."""
    return (_areas(worn) - _areas(low)).abs().mean()


def _areas(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(wide(pictures), min(_AREA_PX, *pictures.shape[2:]))


def cycle(again: Tensor, low: Tensor) -> Tensor:
    """L1 between a worn picture and what the wearer makes of its enlargement, up to noise: of means over 2×2 px,
    laid half over each other (Zhu et al. 2017, eq. 2, where wear is random)."""
    return (F.avg_pool2d(wide(again), 2, stride=1) - F.avg_pool2d(wide(low), 2, stride=1)).abs().mean()
