"""Several processes compute the same as one."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from srgan_cli.errors import SettingsError
from srgan_cli.training import clock as clock_module
from srgan_cli.training import processes, trainer
from srgan_cli.training.clock import Clock
from srgan_cli.training.observer import SilentTraining
from srgan_cli.training.processes import Processes
from srgan_cli.training.state import State
from srgan_cli.training_presets import from_mapping, merged, to_toml
from tests.training.runs import TINY, FakeTime, Witness, config, nearly_same, run_by_two_processes


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["fidelity", "adversarial"])
def test_two_processes_compute_what_one_does(photos: Path, tmp_path: Path, phase: str) -> None:
    values = merged(merged(TINY, {"data": {"high_dirs": [str(photos)]}}), {"phase": phase, "steps": 3})
    trainer.train(from_mapping(values), tmp_path / "one", Witness())
    toml = tmp_path / "settings.toml"
    toml.write_text(to_toml(from_mapping(values)))
    command = [sys.executable, "-m", "srgan_cli", "train", "--config", str(toml), "--out", str(tmp_path / "two"), "-q"]
    run_by_two_processes(command)
    nearly_same(tmp_path / "one", tmp_path / "two")


def test_all_processes_go_by_the_first_ones_clock(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a budget, even how much of a phase is done depends on the clock: rates and crops would differ otherwise."""
    settings = config(photos, phase="both", budget_s=100.0)
    said: list[list[float]] = []
    monkeypatch.setattr(processes, "first_says", lambda values, group: said.append(list(values)) or said[0])
    monkeypatch.setattr(processes, "anyone", lambda flag, group: flag)
    monkeypatch.setattr(clock_module, "time", FakeTime())
    places = []
    for began_s, elapsed_s in ((5.0, 70.0), (30.0, 60.0)):
        clock, state = Clock(settings), State()
        clock.resume(elapsed_s=elapsed_s, begun_s=began_s)
        state.enter("adversarial", 10.0 + began_s)
        run = SimpleNamespace(config=settings, group=Processes())
        session = trainer._Session(tmp_path, cast(Any, run), state, clock, cast(Any, SilentTraining()))
        places.append(trainer._agreed(session, False, False))
    assert said[0] != said[1]
    assert places[0] == places[1]


def test_a_batch_must_be_shared_evenly(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be divided evenly among 3"):
        trainer._check_batches(config(photos), Processes(world=3))
