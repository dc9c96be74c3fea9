"""Shared by the tests of degradations: pictures, settings and draws."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from srgan_cli.dataset.degradation import (
    Degradation,
    Round,
    rng_for,
    sample,
)
from srgan_cli.training_data_config import DegradationSettings

PHOTO = DegradationSettings(kind="photo")


BARE = Round(blur=None, factor=None, filter="bicubic", noise=None, compression=None)


def pictures(count: int = 4, side: int = 48, seed: int = 0) -> torch.Tensor:
    """Smooth shapes with some texture, (N, 3, side, side), multiples of 1/255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = rng.uniform(1, 9, (count, 3, 2, 1, 1))
    smooth = 0.5 + 0.3 * np.sin(waves[:, :, 0] * x * 6 + waves[:, :, 1] * y * 6)
    levels = np.floor(255 * (smooth + rng.normal(0, 0.05, smooth.shape)).clip(0, 1) + 0.5)
    return torch.from_numpy(levels / 255).float()


def as_levels(picture: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1], multiples of 1/255 -> (H, W, 3) uint8."""
    levels = picture.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    return levels.round().byte().permute(1, 2, 0).numpy()


def draws(config: DegradationSettings, count: int, seed: int = 0) -> list[Degradation]:
    return [sample(config, rng_for(seed, 0, index)) for index in range(count)]


def once(**changes: object) -> Degradation:
    return Degradation((dataclasses.replace(BARE, **changes),))  # type: ignore[arg-type]
