"""Checks before the first step: whether a batch fits, and whether the crop sizes can be judged."""

from __future__ import annotations

import pytest
import torch

from srgan_cli.engine.backends import pytorch
from srgan_cli.errors import OutOfMemoryError, SettingsError
from srgan_cli.training import fitting
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import begin
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping


def tiny(**adversarial: object) -> TrainConfig:
    return from_mapping(
        {
            "phase": "adversarial",
            "generator": {"scale": 2, "features": 4, "blocks": 1},
            "adversarial": {"batch": 8, "crop_px": 32, **adversarial},
            "perceptual": {"source": "random", "layers": {"conv3_1": 1.0}},
            "discriminator": {"channels": 2},
            "compute": {"device": "cpu", "precision": "fp32"},
        }
    )


def test_what_a_step_keeps_does_not_depend_on_where_memory_lies() -> None:
    run = begin(tiny(), Processes())
    counts = set()
    for number in range(8):
        junk = [torch.rand(700 * (i + number)) for i in range(number)]
        counts.add(fitting._kept_bytes(lambda: fitting._try(run, "adversarial", 2)))
        del junk
    assert len(counts) == 1


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
