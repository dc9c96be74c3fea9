"""The alarms of adaptation, set off by real runs and real networks: not by numbers that are made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.dataset.wear import RandomInputs, Wear
from srgan_cli.imaging.image import Pixels
from srgan_cli.training import sources, trainer
from srgan_cli.training.monitor import Monitor
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, begin
from srgan_cli.training.validation import held_out
from srgan_cli.training.wear_numbers import WearNumbers
from srgan_cli.training.wear_validation import WearValidation
from tests.training.runs import Witness, config

_ALARMS = ("shifts colours by", "ignores its noise", "discriminator of low pictures has won", "may be hiding a signal")


def worn_pictures(folder: Path, wear: Callable[[Pixels, np.random.Generator], Any]) -> Path:
    """Smooth pictures of 26 × 22 px, each another, after `wear` (levels of 255)."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for number in range(9):
        coarse = Image.fromarray(rng.integers(40, 216, (5, 5, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((26, 22), Image.Resampling.BICUBIC))
        Image.fromarray(np.clip(wear(smooth, rng), 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def adapting(photos: Path, mine: Path, **adaptation: Any) -> Any:
    tiny = {"wear_fraction": 0.9, "features": 4, "blocks": 1, "blur_px": 5, "discriminator_channels": 4, "batch": 2,
            "crop_px": 32, "replay": 3, "cycle_crops": 1, "warmup_steps": 0, "worn_dirs": [str(mine)]}  # fmt: skip
    return config(
        photos, phase="adversarial", steps=40, adversarial={"crop_px": 32, "batch": 2},
        adaptation={**tiny, **adaptation},
        watch={"validate_every_steps": 10, "log_every_steps": 10, "samples": 1, "checkpoint_every_s": 1e6,
               "validate_every_s": 1e6},
    )  # fmt: skip


def alarms(photos: Path, mine: Path, where: Path, **adaptation: Any) -> list[str]:
    """Which of the alarms a run sets off."""
    witness = Witness()
    trainer.train(adapting(photos, mine, **adaptation), where, witness)
    return [alarm for alarm in _ALARMS if any(alarm in note for note in witness.notes)]


def orange(pixels: Pixels, _: np.random.Generator) -> Any:
    return pixels * np.array([1.1, 0.85, 0.5]) + [40, 10, 0]


def noisy(pixels: Pixels, rng: np.random.Generator) -> Any:
    return pixels + rng.normal(0, 30, pixels.shape)


@pytest.mark.slow
def test_colours_that_nothing_holds_move(photos: Path, tmp_path: Path) -> None:
    mine = worn_pictures(tmp_path / "mine", orange)
    free = {"low_frequency_weight": 0.0, "restraint_weight": 0.0, "learning_rate": 0.01}
    assert "shifts colours by" in alarms(photos, mine, tmp_path / "free", **free)
    assert alarms(photos, mine, tmp_path / "held") == []


@pytest.mark.slow
def test_a_wearer_to_which_noise_does_not_pay_ignores_it(photos: Path, tmp_path: Path) -> None:
    mine = worn_pictures(tmp_path / "mine", noisy)
    alike = {"statistics_weight": 0.0, "adversarial_weight": 0.0, "learning_rate": 2e-4}
    assert alarms(photos, mine, tmp_path / "alike", **alike) == ["ignores its noise"]
    assert alarms(photos, mine, tmp_path / "usual") == []


# ----------------------------------------------------------------------------------------------------- hidden signals

_FAINT = 1 / 12  # what is hidden is so much weaker than what it tells


def checks(pictures: Tensor) -> Tensor:
    """(N, 3, 2H, 2W) -> (N, 3, H, W): how much of a chessboard each 2×2 px hold; downscaling leaves none."""
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(pictures.shape[2] // 2, pictures.shape[3] // 2)
    return F.avg_pool2d(pictures * board, 2)


def chessboard(values: Tensor) -> Tensor:
    """The reverse."""
    large = values.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return large * torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(values.shape[2], values.shape[3])


class HidingGenerator(nn.Module):
    """Smooths, and hides what is lost, faintly, in a chessboard."""

    def forward(self, low: Tensor) -> Tensor:
        smooth = F.interpolate(F.avg_pool2d(low, 5, 1, 2, count_include_pad=False), scale_factor=2, mode="bilinear")
        return smooth - chessboard(checks(smooth)) + chessboard((low - bicubic_down(smooth, 2)) * _FAINT)


class ReadingWearer(nn.Module):
    """Reads what is hidden there."""

    def __init__(self, blur: nn.Parameter) -> None:
        super().__init__()
        self.blur = blur

    def forward(self, low: Tensor, high: Tensor, random: RandomInputs) -> Wear:
        return Wear(low + checks(high) / _FAINT, torch.zeros_like(low))


class TrustingGenerator(nn.Module):
    """Takes faint structure for all that it needs, and makes it six times as strong."""

    def forward(self, low: Tensor) -> Tensor:
        smooth = F.avg_pool2d(low, 5, 1, 2, count_include_pad=False)
        return F.interpolate(smooth + (low - smooth) * 6, scale_factor=2, mode="bilinear")


def smooth_photos(folder: Path) -> Path:
    """Without anything fine, so that what is fine in their low pictures was put there."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = Image.fromarray(rng.integers(40, 216, (3, 3, 3), dtype=np.uint8))
        coarse.resize((128, 112), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def numbers(photos: Path, mine: Path, change: Callable[[Run], None]) -> WearNumbers:
    run = begin(adapting(photos, mine), Processes())
    found = sources.scanned(run, Witness())
    change(run)
    assert run.adaptation is not None
    return WearValidation(run, run.adaptation, found, held_out(run.config, found, 2)).numbers(run)


def kinds(seen: WearNumbers) -> set[str]:
    monitor = Monitor()
    return {finding.kind for step in range(3) for finding in monitor.wear(step, seen)}


def test_what_either_network_hides_for_the_other_is_found(tmp_path: Path) -> None:
    photos = smooth_photos(tmp_path / "photos")
    mine = worn_pictures(tmp_path / "mine", noisy)
    honest = numbers(photos, mine, lambda run: None)
    assert max(honest.hidden_db, honest.returned_db) < 0.1

    def hide(run: Run) -> None:
        assert run.adaptation is not None
        run.ema = HidingGenerator()  # type: ignore[assignment]
        reader: Any = ReadingWearer(run.adaptation.ema.blur)
        run.adaptation = dataclasses.replace(run.adaptation, ema=reader)

    hidden = numbers(photos, mine, hide)
    assert hidden.returned_db > 5
    assert hidden.hidden_db < 0.5
    assert "wear-returned" in kinds(hidden)

    def trust(run: Run) -> None:
        assert run.adaptation is not None
        run.ema = TrustingGenerator()  # type: ignore[assignment]
        torch.nn.init.constant_(run.adaptation.ema.grain_strength, -5.0)  # no noise but that of the measure

    trusting = numbers(photos, mine, trust)
    assert trusting.hidden_db > 1.5
    assert trusting.returned_db < 0.5
    assert "wear-hidden" in kinds(trusting)
