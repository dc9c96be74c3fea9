"""Shared by the tests of whole training runs: tiny settings, pictures, and a recording observer."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from srgan_cli.training import run, trainer
from srgan_cli.training.observer import Progress, SilentTraining
from srgan_cli.training.steps import Examples
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, merged

TINY: Mapping[str, Any] = {
    "preset": "compact",
    "phase": "fidelity",
    "steps": 4,
    "generator": {"scale": 2, "features": 8, "blocks": 1},
    "data": {"levels": [1.0], "val_max": 2, "val_fraction": 0.2},
    "fidelity": {"batch": 4, "crop_px": 16, "warmup_steps": 2},
    "adversarial": {"batch": 4, "crop_px": 16, "learning_rate": 1e-3},
    "perceptual": {"source": "random", "layers": {"conv1_2": 1.0}},
    "discriminator": {"channels": 4},
    "compute": {"device": "cpu", "precision": "fp32"},
    "watch": {
        "log_every_steps": 1,
        "validate_every_s": 1e6,
        "checkpoint_every_s": 1e6,
        "checkpoint_every_steps": 0,
        "samples": 1,
    },
}


def save_photos(folder: Path, count: int) -> Path:
    """Smooth pictures of 48 × 40 px, each another."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def config(photos: Path, **changes: Any) -> TrainConfig:
    return from_mapping(merged(merged(TINY, {"data": {"high_dirs": [str(photos)]}}), changes))


def teaching(photos: Path, model: Path, **changes: Any) -> TrainConfig:
    """With a teacher, whose results are kept beside its file."""
    base = merged(TINY, {"data": {"high_dirs": [str(photos)], "cache_dir": str(model.parent / "cache")}})
    taught = {"teacher": {"model": str(model), "crops": 6, "context_px": 2, "piece_px": 12}}
    return from_mapping(merged(merged(base, taught), changes))


class Witness(SilentTraining):
    """Remembers what is reported, and may act at a step."""

    def __init__(self, at: Callable[[Progress], None] = lambda p: None) -> None:
        self.steps: list[int] = []
        self.notes: list[str] = []
        self.facts: Mapping[str, object] = {}
        self._at = at

    def started(self, facts: Mapping[str, object]) -> None:
        self.facts = facts

    def progress(self, p: Progress) -> None:
        self.steps.append(p.step)
        self._at(p)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def stop_at(step: int) -> Callable[[Progress], None]:
    def act(p: Progress) -> None:
        if p.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return act


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


class FakeTime:
    """Time that passes when something is done."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def during(self, what: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.now_s += seconds
            return what(*args, **kwargs)

        return wrapped


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors(item)]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in {*a, *b})


def poisoned(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    """Steps of which `when` is true are made on pictures that are not numbers."""
    real, count = run.step, [0]

    def step(run: Any, state: Any, fraction: float, examples: Examples) -> Any:
        count[0] += 1
        high = examples.high * float("nan") if when(count[0]) else examples.high
        return real(run, state, fraction, dataclasses.replace(examples, high=high))

    monkeypatch.setattr(trainer, "step", step)


def _pair_of_processes(command: list[str]) -> tuple[list[int], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    each = [{**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    both = [subprocess.Popen(command, env=one, stderr=subprocess.PIPE, text=True) for one in each]
    told = [process.communicate(timeout=60)[1] for process in both]
    return [process.returncode for process in both], "".join(told)


def run_by_two_processes(command: list[str]) -> None:
    """As torchrun would start them; both must succeed."""
    for _ in range(3):  # somebody else may take the free port before they do
        codes, told = _pair_of_processes(command)
        if codes == [0, 0]:
            break
    assert codes == [0, 0], told


def nearly_same(one: Path, two: Path) -> None:
    """Two runs have learned the same, up to the order of summation."""
    found = weights(two)
    for key, value in weights(one).items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6, msg=key)
