"""The linear part of a degradation: matrices that resize an axis, and kernels that blur.

A resize is separable and linear, so each axis is one matrix product, whatever the filter. All filters keep the centre
of the picture where it is and have rows that sum to 1, so no colour drifts and nothing shifts by half a pixel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from srgan_cli.evaluation.bicubic import contributions


def along_both_axes(pictures: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(…, H, W) with `rows` (H', H) and `columns` (W', W) -> (…, H', W'), rows first."""
    return rows @ pictures @ columns.T


# Made outside inference mode, whoever asks first: what is made inside it can never take part in a backward pass again.
@lru_cache(maxsize=64)
@torch.inference_mode(False)
def bicubic_matrix(length: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(target, length): MATLAB's bicubic, the edges repeated beyond the borders. See `evaluation.bicubic`."""
    indices, weights = contributions(length, target)
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target)[:, None], indices), weights)  # an edge pixel may be named more than once
    return torch.from_numpy(matrix).to(device, dtype)
