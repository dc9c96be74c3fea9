"""How the low picture of a training pair is made from the high one: `sample` decides, `apply` does.

`sample` draws what happens to one crop, as frozen plain values; `apply` is pure: the same values give the same picture,
on a CPU to the bit, and whatever else is in the batch. So a run can be resumed, and shared between processes, without a
random state that must be saved.

`bicubic` is what all published ×4 results are made with. It equals `evaluation.bicubic`, hence MATLAB's `imresize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from srgan_cli.training.config import DegradationSettings
from srgan_cli.training.kernels import along_both_axes, bicubic_matrix

_TOP = 255.0
_STREAM = 0x6465_6772  # keeps these random numbers apart from others of the same seed, step and index


@dataclass(frozen=True)
class Degradation:
    """What happens to one crop on its way to the low picture."""

    BICUBIC: ClassVar[Degradation]  # made smaller, nothing else


Degradation.BICUBIC = Degradation()


def rng_for(seed: int, step: int, index: int) -> np.random.Generator:
    """The random numbers for crop `index` of the whole batch, over all processes, at `step`: no state, any order.

    Philox counts (J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), so a place in its
    sequence is reached at once. The lower two of the counter's four words are left for the draws themselves.
    """
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, _STREAM], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, step]))


def sample(settings: DegradationSettings, rng: np.random.Generator) -> Degradation:
    """Draw what happens to one crop. Takes nothing from `rng` where nothing is random."""
    return Degradation.BICUBIC


def apply(high: Tensor, values: Sequence[Degradation], scale: int) -> Tensor:
    """Each crop degraded by its own values: (N, 3, H, W) in [0, 1] -> (N, 3, H/scale, W/scale), on the same device.

    Both are fp32 and hold 8-bit pictures: multiples of 1/255. H and W must be multiples of `scale`; no gradient.
    """
    if len(values) != len(high):
        raise ValueError(f"want one degradation a crop, not {len(values)} for {len(high)}")
    with torch.no_grad():
        return _bicubic_8bit(high, scale)


def bicubic_down(high: Tensor, scale: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H/scale, W/scale), neither rounded nor clipped, differentiable, in the dtype of `high`.

    H and W must be multiples of `scale`.
    """
    return along_both_axes(*_bicubic_operands(high, scale)).to(high.dtype)


def _bicubic_8bit(high: Tensor, scale: int) -> Tensor:
    pictures, rows, columns = _bicubic_operands(high, scale)
    halfway = _rounded(rows @ _rounded(pictures * _TOP))  # MATLAB rounds after each axis, rows first
    return (_rounded(halfway @ columns.T) / _TOP).to(high.dtype)


def _bicubic_operands(high: Tensor, scale: int) -> tuple[Tensor, Tensor, Tensor]:
    # In fp64, which neither autocast nor TF32 touches, ties round as they do in `evaluation.bicubic`. MPS has no fp64.
    height, width = high.shape[-2:]
    if height % scale or width % scale:
        raise ValueError(f"{width}x{height} px is not a multiple of the scale, {scale}")
    dtype = torch.float32 if high.device.type == "mps" else torch.float64
    rows = bicubic_matrix(height, height // scale, dtype, high.device)
    columns = bicubic_matrix(width, width // scale, dtype, high.device)
    return high.to(dtype), rows, columns


def _rounded(levels: Tensor) -> Tensor:
    """Half up and clipped to 0 … 255, as everywhere; `torch.round` would round halves to even."""
    return (levels + 0.5).floor_().clamp_(0, _TOP)
