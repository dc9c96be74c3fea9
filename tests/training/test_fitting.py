"""Checks before the first step: whether a batch fits, and whether the crop sizes can be judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from srgan_cli.engine.backends import pytorch
from srgan_cli.errors import OutOfMemoryError, SettingsError
from srgan_cli.training import fitting
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, begin, step
from srgan_cli.training.state import State
from srgan_cli.training.steps import Examples
from srgan_cli.training_config import Phase, TrainConfig
from srgan_cli.training_presets import from_mapping, merged

TINY: Mapping[str, Any] = {
    "phase": "adversarial",
    "generator": {"scale": 2, "features": 4, "blocks": 1},
    "adversarial": {"batch": 8, "crop_px": 32},
    "perceptual": {"source": "random", "layers": {"conv3_1": 1.0}},
    "discriminator": {"channels": 2},
    "compute": {"device": "cpu", "precision": "fp32"},
}


def tiny(**adversarial: object) -> TrainConfig:
    return from_mapping(merged(TINY, {"adversarial": adversarial}))


def adapting(phase: Phase, **adaptation: object) -> Run:
    """Before its first step in `phase`."""
    learned = {"worn_dirs": ["worn"], "batch": 4, "crop_px": 32, "features": 4, "discriminator_channels": 2}
    settings = {
        "phase": "fidelity" if phase == "fidelity" else "adversarial",
        "fidelity": {"batch": 4, "crop_px": 32},
        "adversarial": {"batch": 4},
        "adaptation": {**learned, **adaptation},
    }
    return begin(from_mapping(merged(TINY, settings)), Processes())


def test_what_a_step_keeps_does_not_depend_on_where_memory_lies() -> None:
    run = begin(tiny(), Processes())
    counts = set()
    for number in range(8):
        junk = [torch.rand(700 * (i + number)) for i in range(number)]
        counts.add(fitting._kept_bytes(lambda: fitting._try(run, "adversarial", 2)))
        del junk
    assert len(counts) == 1


@pytest.mark.parametrize("phase", ["wear", "fidelity", "adversarial"])
def test_the_trial_keeps_what_a_step_keeps(phase: Phase) -> None:
    """With adaptation: its cycles and the wearer's own step as well."""
    run = adapting(phase)
    low, high = torch.rand(4, 3, 16, 16), torch.rand(4, 3, 32, 32)
    low, high = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (low, high))
    tried = fitting._kept_bytes(lambda: fitting._try(run, phase, 4))
    state = State(phase=phase)
    kept = fitting._kept_bytes(lambda: step(run, state, 0.5, Examples(low, high, worn=low)))
    assert tried == pytest.approx(kept, rel=0.02)


def test_the_cycles_take_the_same_memory_for_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    run = adapting("fidelity")
    each = fitting._kept_bytes(lambda: fitting._try(run, "fidelity", 2, cycled=0)) / 2
    cycles = fitting._kept_bytes(lambda: fitting._try_cycles(run, "fidelity", 2))
    free = int((cycles + 3.5 * each) * fitting._BESIDES / fitting._FREE_FRACTION)
    monkeypatch.setattr(pytorch, "free_memory_bytes", lambda device: free)
    assert fitting.fit(run, Processes())[0]["fidelity"] == 3
    without = adapting("fidelity", cycle_weight=0.0)
    assert fitting.fit(without, Processes())[0]["fidelity"] == 4
    monkeypatch.setattr(pytorch, "free_memory_bytes", lambda device: cycles)
    with pytest.raises(OutOfMemoryError, match="not even one crop"):
        fitting.fit(run, Processes())


def test_processes_of_a_machine_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    run = begin(tiny(), Processes())
    assert fitting.fit(run, Processes()) == ({"adversarial": 8}, [])
    monkeypatch.setattr(pytorch, "free_memory_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemoryError, match="not even one crop"):
        fitting.fit(run, Processes())
    need = fitting._kept_bytes(lambda: fitting._try(run, "adversarial", 2)) / 2 * fitting._BESIDES
    monkeypatch.setattr(pytorch, "free_memory_bytes", lambda device: int(need * 6.5 / fitting._FREE_FRACTION))
    batches, (note,) = fitting.fit(run, Processes())
    assert batches == {"adversarial": 6}
    assert "taking 6" in note
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert fitting.fit(run, Processes())[0] == {"adversarial": 3}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"small_crop_px": 20, "small_crop_fraction": 0.5}, "adversarial.small_crop_px, 20, must be a multiple of 8"),
        ({"small_crop_px": 2, "small_crop_fraction": 0.5}, "must be a multiple of 8"),
    ],
)
def test_small_crops_that_cannot_be_judged_are_told_before_the_first_step(sizes: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        tiny(**sizes)


def test_small_crops_are_smaller() -> None:
    with pytest.raises(SettingsError, match="small_crop_px, 32, must be less than crop_px, 32"):
        tiny(small_crop_px=32, small_crop_fraction=0.5)
