"""The wearer's losses against their formulas, and what each is insensitive to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from srgan_cli.training import wear_losses
from srgan_cli.training.wear_losses import BlockStatistics


def noise(count: int = 4, side_px: int = 32, std: float = 0.05, seed: int = 0) -> Tensor:
    return 0.5 + std * torch.randn(count, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed))


def distance(ours: Tensor, theirs: Tensor) -> Tensor:
    return BlockStatistics().loss(ours, theirs)


def test_statistics_are_sorted_coefficients_of_blocks() -> None:
    ours, theirs = noise(2, 16, seed=1), noise(2, 16, 0.1, seed=2)
    place = np.arange(8)
    waves = np.cos(np.pi * np.outer(place, 2 * place + 1) / 16) * 0.5
    waves[0] *= math.sqrt(0.5)

    def sizes(pictures: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
        planes = np.einsum("cd,ndhw->cnhw", matrix, pictures.double().numpy())
        blocks = planes.reshape(3, 2, 2, 8, 2, 8).transpose(0, 1, 2, 4, 3, 5)
        found = np.einsum("ay,bx,cnijyx->cabnij", waves, waves, blocks).reshape(3, 64, -1)[:, 1:]
        return np.sort(np.log(np.abs(found) + 0.5 / 255), axis=2)

    wanted = np.abs(sizes(ours) - sizes(theirs)).mean()
    assert abs(float(distance(ours, theirs)) - wanted) < 1e-4


def test_statistics_do_not_care_which_block_is_where() -> None:
    picture = noise(1, 32)
    blocks = picture.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)  # (1, 3, 16, 8, 8)
    moved = blocks[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(3))]
    rows = moved.reshape(1, 3, 4, 4, 8, 8).permute(0, 1, 2, 4, 3, 5).reshape(1, 3, 32, 32)
    assert float(distance(rows, picture)) < 1e-6
    assert float(distance(noise(std=0.1, seed=5), noise(std=0.05, seed=6))) > 0.4


def test_statistics_lead_noise_to_its_strength_though_batches_are_small() -> None:
    statistics, strength = BlockStatistics(), torch.tensor(0.01, requires_grad=True)
    optimizer = torch.optim.Adam([strength], 1e-3)
    for step in range(150):
        optimizer.zero_grad()
        white = noise(2, 16, std=1.0, seed=2 * step) - 0.5
        statistics.loss(0.5 + strength * white, noise(2, 16, std=0.05, seed=2 * step + 1)).backward()
        optimizer.step()
    assert abs(float(strength.detach()) - 0.05) < 0.003


def test_statistics_are_kept_and_taken_back() -> None:
    first, again = BlockStatistics(), BlockStatistics()
    again.load_state_dict(first.state_dict())
    for step in range(3):
        first.loss(noise(seed=step), noise(seed=step + 9))
    again.load_state_dict(first.state_dict())
    one, other = (statistics.loss(noise(seed=5), noise(seed=6)) for statistics in (first, again))
    assert torch.equal(one, other)
    with pytest.raises(ValueError, match="no distributions"):
        again.load_state_dict({"ours": torch.zeros(2, 2), "real": torch.zeros(2, 2), "steps": 3})


def test_low_frequencies_hold_colours_and_leave_noise_alone() -> None:
    low = noise(std=0.0)
    assert abs(float(wear_losses.low_frequency(low + 0.02, low)) - 0.02) < 1e-6
    assert float(wear_losses.low_frequency(low + noise(std=0.05) - 0.5, low)) < 0.2 * 0.05


def test_the_cycle_forgives_noise_more_than_shape() -> None:
    low = noise(std=0.0)
    checkers = 0.05 * (-1.0) ** (torch.arange(32)[:, None] + torch.arange(32)[None])
    assert float(wear_losses.cycle(low + checkers, low)) < 1e-6
    assert abs(float(wear_losses.cycle(low + 0.05, low)) - 0.05) < 1e-6
