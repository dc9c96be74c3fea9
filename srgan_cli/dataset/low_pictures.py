"""The low version of a whole high picture, for validation and evaluation: the same in every run with the same seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from srgan_cli.dataset import degradation
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.training_data_config import DegradationSettings

# Training steps count from 0; degradations of whole pictures use a step number that training never reaches.
_STEP = 2**40


def low_picture(high: Pixels, settings: DegradationSettings, scale: int, seed: int, index: int) -> Pixels:
    """(H, W, C) uint8 -> (H / scale, W / scale, C), if not bicubic (…, 3): noise may have colours."""
    if settings.kind == "bicubic":
        return bicubic(high, high.shape[1] // scale, high.shape[0] // scale)
    values = degradation.sample(settings, degradation.rng_for(seed, _STEP, index))
    return to_pixels(degradation.apply(to_tensor(high), [values], scale))


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 1 or 3) uint8 -> (1, 3, H, W), RGB in [0, 1]."""
    rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 255.0  # a copy: torch needs it writable


def to_pixels(picture: Tensor) -> Pixels:
    """(1, 3, H, W) -> (H, W, 3) uint8, rounded."""
    return (picture[0].float().clamp(0, 1) * 255.0 + 0.5).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
