"""A run that was stopped or killed continues as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.runlog.record import read_log
from srgan_cli.training import checkpoint, trainer
from srgan_cli.training_presets import to_toml
from tests.training.runs import Witness, config, log_of, same, stop_at, tensors, weights


def steps_of(folder: Path) -> list[int]:
    return [int(event["step"]) for event in read_log(folder / "log.jsonl") if event["event"] == "step"]


CASES: Mapping[str, Mapping[str, Any]] = {
    "fidelity": {},
    "both": {"phase": "both"},
    "patch": {"phase": "adversarial", "adversarial": {"r1_weight": 1.0, "r1_every_steps": 2, "artifact_weight": 1.0}},
    "unet": {"phase": "adversarial", "discriminator": {"kind": "unet"}, "adversarial": {"objective": "hinge"}},
    "vgg": {
        "phase": "adversarial",
        "generator": {"architecture": "srresnet", "batch_norm": True},
        "discriminator": {"kind": "vgg"},
        "adversarial": {"objective": "nonsaturating", "crop_px": 32},
    },
    "photo": {"degradation": {"kind": "photo"}},
}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in ("both", "unet") else pytest.mark.slow) for case in CASES]
)
def test_two_and_two_steps_are_four_to_the_bit(photos: Path, tmp_path: Path, case: str) -> None:
    whole = config(photos, **CASES[case])
    trainer.train(whole, tmp_path / "whole", Witness())
    stop = 3 if case == "both" else 2  # inside the second phase, with a discriminator that has learned
    stopped = trainer.train(whole, tmp_path / "parts", Witness(stop_at(stop)))
    assert stopped.interrupted
    assert stopped.exit_code == 130
    assert stopped.steps == stop
    witness = Witness()
    trainer.train(whole, tmp_path / "parts", witness)
    assert witness.steps == list(range(stop + 1, 5))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    one, other = (checkpoint.load(tmp_path / name / "checkpoint")["parts"] for name in ("whole", "parts"))
    assert set(one) == set(other)
    for name, part in one.items():
        for mine, theirs in zip(tensors(part), tensors(other[name]), strict=True):
            assert torch.equal(mine, theirs), name
    steps = [event["step"] for event in log_of(tmp_path / "parts") if event["event"] == "step"]
    assert steps == [1, 2, 3, 4]


def test_a_request_to_stop_at_the_last_step_leaves_a_finished_run_with_its_own_scores(
    photos: Path, tmp_path: Path
) -> None:
    whole = config(photos, steps=3)
    outcome = trainer.train(whole, tmp_path / "run", Witness(stop_at(3)))
    assert not outcome.interrupted
    assert [event["step"] for event in log_of(tmp_path / "run") if event["event"] == "validation"][-1] == 3
    assert outcome.scores["model"] == trainer.train(whole, tmp_path / "other", Witness()).scores["model"]


@pytest.mark.slow
def test_a_kill_loses_at_most_the_interval(photos: Path, tmp_path: Path) -> None:
    where, toml = tmp_path / "run", tmp_path / "settings.toml"
    settings = config(photos, steps=100_000, watch={"checkpoint_every_steps": 1})
    toml.write_text(to_toml(settings))
    command = [sys.executable, "-m", "srgan_cli", "train", "--config", str(toml), "--out", str(where), "-q"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (where.exists() and max(steps_of(where), default=0) >= 9):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    logged = max(steps_of(where))
    kept = checkpoint.load(where / "checkpoint")["values"]["step"]
    assert logged - 1 <= kept <= logged
    witness = Witness(lambda p: os.kill(os.getpid(), signal.SIGTERM))
    trainer.train(settings, where, witness)
    assert witness.steps[0] == kept + 1


def test_a_finished_run_is_not_run_again(photos: Path, finished: Path) -> None:
    before = weights(finished)
    witness = Witness()
    outcome = trainer.train(config(photos), finished, witness)
    assert not witness.steps
    assert outcome.exit_code == 0
    assert same(before, weights(finished))


def test_a_longer_run_does_not_go_back_to_fidelity(photos: Path, tmp_path: Path) -> None:
    # AdamW changes so small a network slowly enough that the monitor takes nothing of it for a collapse.
    settings: dict[str, Any] = {
        "phase": "both", "fidelity": {"optimizer": "adamw"}, "watch": {"checkpoint_every_steps": 10},
    }  # fmt: skip
    trainer.train(config(photos, **settings), tmp_path, Witness())
    fidelity = (tmp_path / "fidelity.safetensors").read_bytes()
    trainer.train(config(photos, **settings, steps=20), tmp_path, Witness())
    phases = [event["phase"] for event in log_of(tmp_path) if event["event"] == "step"]
    assert phases == ["fidelity"] * 2 + ["adversarial"] * 18
    assert (tmp_path / "fidelity.safetensors").read_bytes() == fidelity


def test_a_damaged_checkpoint_is_reported(photos: Path, finished: Path) -> None:
    whole = (finished / "checkpoint").read_bytes()
    (finished / "checkpoint").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"is damaged.*checkpoint\.good is an earlier one"):
        trainer.train(config(photos, steps=5), finished, Witness())
    (finished / "checkpoint.good").replace(finished / "checkpoint")
    assert trainer.train(config(photos, steps=5), finished, Witness()).steps == 5


def test_a_run_without_its_checkpoint_is_not_trained_over(photos: Path, finished: Path) -> None:
    (finished / "checkpoint").unlink()
    witness = Witness()
    trainer.train(config(photos, steps=5), finished, witness)
    assert witness.steps == [5]  # from the good one
    for name in ("checkpoint", "checkpoint.good"):
        (finished / name).unlink()
    before = weights(finished)
    with pytest.raises(SettingsError, match="no checkpoint to resume from"):
        trainer.train(config(photos, steps=6), finished, Witness())
    assert same(before, weights(finished))


def test_other_pictures_are_reported(photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    trainer.train(config(mine), tmp_path / "run", Witness())
    Image.effect_noise((48, 40), 60).convert("RGB").save(mine / "new.png")
    witness = Witness()
    trainer.train(config(mine, steps=5), tmp_path / "run", witness)
    assert any("the pictures have changed since this run began" in note for note in witness.notes)


def test_a_longer_run_goes_on_from_a_shorter_one(photos: Path, finished: Path) -> None:
    witness = Witness()
    trainer.train(config(photos, steps=6), finished, witness)
    assert witness.steps == [5, 6]


def test_a_run_of_other_settings_is_not_resumed(photos: Path, finished: Path) -> None:
    before = (finished / "checkpoint").read_bytes()
    with pytest.raises(SettingsError, match=r"generator\.blocks: 1, now 2"):
        trainer.train(config(photos, generator={"blocks": 2}), finished, Witness())
    assert (finished / "checkpoint").read_bytes() == before


def test_starting_from_a_file_takes_its_sizes(photos: Path, trained: Path, tmp_path: Path) -> None:
    start = str(trained)
    witness = Witness()
    again = config(photos, init=start, phase="adversarial", generator={"features": 64, "blocks": 9}, steps=1)
    trainer.train(again, tmp_path / "second", witness)
    assert {key: value.shape for key, value in weights(tmp_path / "second").items()} == {
        key: value.shape for key, value in weights(trained).items()
    }
    trainer.train(again, tmp_path / "second", Witness())  # the same command once more: nothing to do, no complaint
    with pytest.raises(SettingsError, match="enlarges 2 times, not 4"):
        trainer.train(config(photos, init=start, generator={"scale": 4}), tmp_path / "third", Witness())


def test_a_larger_network_goes_on_where_a_smaller_one_ended(photos: Path, trained: Path, tmp_path: Path) -> None:
    larger = config(photos, init=str(trained), generator={"blocks": 3, "grow": True}, steps=2)
    trainer.train(larger, tmp_path / "second", Witness())
    assert sum(key.endswith("conv2.weight") for key in weights(tmp_path / "second")) == 3
    trainer.train(larger, tmp_path / "second", Witness())  # the same command once more
    other = config(photos, init=str(trained), generator={"scale": 4, "grow": True}, steps=1)
    trainer.train(other, tmp_path / "third", Witness())
    assert weights(tmp_path / "third")["tail.weight"].shape[0] == 3 * 4**2
