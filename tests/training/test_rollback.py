"""Problems in training cause a rollback, or end the run."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from srgan_cli.errors import DivergedError, TrainingError
from srgan_cli.training import checkpoint, recorder, steps, trainer
from srgan_cli.training import run as run_module
from srgan_cli.training.monitor import Finding, Monitor
from tests.training.runs import Witness, config, log_of, poisoned, weights


def test_not_a_number_goes_back_and_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda count: count == 3)
    witness = Witness()
    outcome = trainer.train(config(photos, steps=5, watch={"validate_every_steps": 1}), tmp_path, witness)
    assert outcome.steps == 5
    assert any("NaN" in note for note in witness.notes)
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())
    assert checkpoint.load(tmp_path / "checkpoint")["values"]["rollbacks"] == 1
    rates = [event["learning_rate"] for event in log_of(tmp_path) if event["event"] == "step"]
    assert len(rates) == 6  # step 3 twice


@pytest.mark.parametrize("at", [2, 4])
def test_what_no_line_of_the_log_shows_is_judged(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    poisoned(monkeypatch, lambda count: count == at)  # the last step of a phase
    rarely = {"log_every_steps": 20, "checkpoint_every_steps": 0}
    witness = Witness()
    outcome = trainer.train(config(photos, phase="both", watch=rarely), tmp_path, witness)
    assert any("NaN" in note for note in witness.notes)
    assert outcome.steps == 4
    for name in ("model", "fidelity"):
        kept = load_file(tmp_path / f"{name}.safetensors")
        assert all(bool(value.isfinite().all()) for value in kept.values())
    assert np.isfinite(outcome.scores["model"]["psnr_y_db"])


def test_going_back_is_to_where_all_was_well(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault comes after the last good validation, and is saved before the next one finds it."""
    real, count = run_module.step, [0]

    def step(run: Any, state: Any, *rest: Any) -> Any:
        count[0] += 1
        made = real(run, state, *rest)
        if count[0] == 5:
            with torch.no_grad():
                for parameter in (*run.generator.parameters(), *run.ema.parameters()):
                    parameter.fill_(0.3)
        return made

    monkeypatch.setattr(trainer, "step", step)
    found = [0]

    def judge(self: Any, step: int, numbers: Any) -> list[Finding]:
        bad = numbers.psnr_y_db < 12
        found[0] += bad
        return [Finding("collapsed", "it has collapsed", roll_back=True)] if bad else []

    monkeypatch.setattr("srgan_cli.training.monitor.Monitor.validation", judge)
    watch = {"validate_every_steps": 4, "checkpoint_every_steps": 1}
    trainer.train(config(photos, steps=10, watch=watch), tmp_path, Witness())
    assert found == [1]
    back = next(event for event in log_of(tmp_path) if event["event"] == "resumed")
    assert back["step"] == 4
    assert back["rollbacks"] == 1


def test_a_won_discriminator_is_told(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = steps.discriminator_terms

    def won(*args: Any) -> Any:
        terms, verdicts = real(*args)
        terms.raw = {name: value * 1e-6 for name, value in terms.raw.items()}
        return terms, dataclasses.replace(verdicts, accuracy=torch.tensor(1.0))

    monkeypatch.setattr(run_module, "discriminator_terms", won)
    monkeypatch.setattr(recorder, "Monitor", partial(Monitor, window_steps=20))
    watch = {"log_every_steps": 5, "checkpoint_every_steps": 0}
    settings = config(
        photos, phase="adversarial", steps=40, watch=watch, adversarial={"perceptual_weight": 0.0, "batch": 1}
    )
    witness = Witness()
    trainer.train(settings, tmp_path, witness)
    assert sum("has won" in note for note in witness.notes) == 1


def test_going_wrong_for_ever_ends(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda count: count >= 3)
    with pytest.raises(DivergedError, match="2 times"):
        trainer.train(config(photos, watch={"max_rollbacks": 2}), tmp_path, Witness())
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())
    values = checkpoint.load(tmp_path / "checkpoint")["values"]
    assert (values["rollbacks"], values["rate"]) == (2, 0.25)  # a kill now would not restart the count


def test_a_full_disk_keeps_the_last_checkpoint(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = torch.save, [0]

    def save(state: Any, file: Any) -> None:
        count[0] += 1
        if count[0] == 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", save)
    settings = config(photos, watch={"checkpoint_every_steps": 1})
    with pytest.raises(TrainingError, match="No space left"):
        trainer.train(settings, tmp_path, Witness())
    assert checkpoint.load(tmp_path / "checkpoint")["values"]["step"] == 1
    assert not list(tmp_path.glob(".*.part"))
    witness = Witness()
    trainer.train(settings, tmp_path, witness)
    assert witness.steps == [2, 3, 4]
