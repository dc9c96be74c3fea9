"""A trainer that trains nothing, for the tests of `srgan train`."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import srgan_cli.training
from srgan_cli.training.observer import Outcome, Progress, TrainingObserver
from srgan_cli.training_config import TrainConfig

Train = Callable[[TrainConfig, Path, TrainingObserver], Outcome]


@dataclass
class Refusal:
    path: Path
    reason: str


@dataclass
class Scan:
    train: tuple[object, ...] = (1, 2, 3)
    val: tuple[object, ...] = (4,)
    refused: tuple[Refusal, ...] = (Refusal(Path("photos/odd[1].png"), "is smaller than the crop, 9x7 px"),)
    split: str = "held out by hash"
    unlabelled: tuple[object, ...] = ()


SCORES = {"bicubic": {"psnr_y_db": 27.5, "ssim_y": 0.78}, "model": {"psnr_y_db": 28.9, "ssim_y": 0.8123}}


HERE = Progress(
    phase="adversarial",
    step=12_300,
    fraction=0.43,
    steps_per_s=7.43,
    pictures_per_s=118.9,
    losses={"pixel": 0.0213, "perceptual": 0.41, "adversarial": 0.693, "discriminator": math.nan},
    seconds_left=1705.0,
)


def tell_all(config: TrainConfig, folder: Path, observer: TrainingObserver) -> Outcome:
    """A run that calls all that an observer has."""
    observer.scanned(Scan())  # type: ignore[arg-type]
    observer.caching(1, 3)
    observer.started({"device": "cpu", "precision": "fp32", "batch": 2, "crop_px": 32, "steps": 5, "resumed_at": None})
    observer.validated({"psnr_y_db": 28.4, "bicubic_psnr_y_db": 27.5})
    observer.progress(HERE)
    observer.note("The discriminator has won [really].")
    return Outcome(folder, folder / "model.safetensors", SCORES, steps=5, seconds=65.0)


@dataclass
class Trainer:
    """Stands in for `training.trainer`; remembers what it was called with."""

    run: Train = tell_all
    calls: list[tuple[TrainConfig, Path]] = field(default_factory=list)

    def train(self, config: TrainConfig, folder: Path, observer: TrainingObserver) -> Outcome:
        self.calls.append((config, folder))
        return self.run(config, folder, observer)


def _stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> None:
    module = types.ModuleType(f"srgan_cli.training.{name}")
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(srgan_cli.training, name, module, raising=False)
