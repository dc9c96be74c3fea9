"""Losses that make a wearer's results resemble worn pictures of other content, and match the high pictures they come
from.

Conventions as in `losses`: NCHW, RGB, [0, 1], computed in fp32, 0-d tensors with gradients.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli import stored
from srgan_cli.imaging.standards import CHROMA, LUMA
from srgan_cli.training.losses import wide

_BLOCK_PX = 8
_FLOOR = 0.5 / 255  # of a coefficient: below half a level there is only rounding
_AREA_PX = 8
_ROWS, _BINS = 3 * 63, 64
_OURS, _REAL = 0.1, 0.02  # update rate of the running means: F changes, real pictures do not
_CLEAR = 0.05  # a difference of logarithms above the statistical noise
_YCBCR = (LUMA, *CHROMA)


class BlockStatistics:
    """The distance between F's results and real worn pictures in the distributions of their 8×8 blocks' DCT
    coefficients.

    For each of the 63 frequencies of Y, Cb and Cr, the logarithms of all blocks' magnitudes are sorted, and the sorted
    lists compared: the Wasserstein distance of one-dimensional distributions (as in Rabin et al. 2011, with these
    frequencies as projections). Quiet blocks, the lower part of a list, reflect noise and a codec's zeros; busy ones,
    its upper part, reflect blur. Blocks are not matched by content, so pictures of different content can be compared.

    A batch holds a few hundred blocks, and the distance between two such samples is biased: it is least if one of them
    varies too little (Bellemare et al. 2017, arXiv:1705.10743), so learned noise would be too weak. Therefore running
    means of both lists determine the direction in which F's must change, and the batch only provides the gradient. Each
    process has its own; a checkpoint contains the first one's.
    """

    def __init__(self) -> None:
        self._ours = self._real = torch.empty(0)
        self._steps = 0

    def loss(self, worn: Tensor, real: Tensor) -> Tensor:
        """Both (N, 3, H, W). The value is the distance of the running means. Call it once per step."""
        with torch.autocast(worn.device.type, enabled=False):
            ours = _coefficients(wide(worn))
            with torch.no_grad():
                self._take(ours, _coefficients(wide(real)))
                error = self._ours - self._real
                direction = (error / _CLEAR).clamp(-1.0, 1.0)
            return error.abs().mean() + ((ours - ours.detach()) * direction).mean()

    def _take(self, ours: Tensor, real: Tensor) -> None:
        if not self._steps:
            self._ours, self._real = ours.clone(), real.clone()
        early = 1 / (self._steps + 1)
        self._ours = self._ours.to(ours).lerp(ours, max(early, _OURS))
        self._real = self._real.to(real).lerp(real, max(early, _REAL))
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        return {"ours": self._ours, "real": self._real, "steps": self._steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        ours, real, steps = state_dict["ours"], state_dict["real"], stored.whole(state_dict["steps"])
        for values in (ours, real):
            if not isinstance(values, Tensor) or values.shape != ((_ROWS, _BINS) if steps else (0,)):
                raise ValueError("no distributions")
        self._ours, self._real, self._steps = ours, real, steps


def _coefficients(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (189, 64): logarithms of magnitudes, each row sorted, as the means of equal parts."""
    planes = torch.einsum("cd,ndhw->nchw", pictures.new_tensor(_YCBCR), pictures)
    height, width = planes.shape[2:]
    kernels = _cosines().to(planes)
    found = F.conv2d(planes.reshape(-1, 1, height, width), kernels, stride=_BLOCK_PX)  # (3N, 63, h, w)
    rows = found.reshape(len(pictures), 3, *found.shape[1:]).permute(1, 2, 0, 3, 4).flatten(0, 1).flatten(1)
    sizes = torch.log(rows.abs() + _FLOOR)
    return F.adaptive_avg_pool1d(sizes.sort(dim=1).values[None], _BINS)[0]


@functools.cache
def _cosines() -> Tensor:
    """(63, 1, 8, 8): the orthonormal DCT's basis, without the mean."""
    with torch.inference_mode(False):
        place = torch.arange(_BLOCK_PX, dtype=torch.float64)
        waves = torch.cos(math.pi * place[:, None] * (2 * place + 1) / (2 * _BLOCK_PX)) * math.sqrt(2 / _BLOCK_PX)
        waves[0] /= math.sqrt(2)
        return torch.einsum("ay,bx->abyx", waves, waves).flatten(0, 1)[1:, None]


def low_frequency(worn: Tensor, low: Tensor) -> Tensor:
    """L1 between means over 8×8 px: content stays in its position, and colours do not change."""
    return (_areas(worn) - _areas(low)).abs().mean()


def _areas(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(wide(pictures), min(_AREA_PX, *pictures.shape[2:]))


def cycle(again: Tensor, low: Tensor) -> Tensor:
    """L1 between a worn picture and the wearer's result for its enlargement, up to noise: of means over overlapping 2×2
    px (Zhu et al. 2017, eq. 2, for random wear)."""
    return (F.avg_pool2d(wide(again), 2, stride=1) - F.avg_pool2d(wide(low), 2, stride=1)).abs().mean()
