"""A budget of time is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.dataset.scan import scan
from srgan_cli.errors import TrainingError
from srgan_cli.runlog.report import write_report
from srgan_cli.training import clock as clock_module
from srgan_cli.training import recorder, run, sources, trainer, validation
from tests.training.runs import FakeTime, Witness, config, log_of


@pytest.mark.parametrize(
    ("budget_s", "step_s", "validation_s"),
    [
        (20.0, 0.5, 0.1),
        pytest.param(40.0, 0.41, 1.5, marks=pytest.mark.slow),
        pytest.param(100.0, 0.8, 9.0, marks=pytest.mark.slow),
    ],
)
def test_a_budget_is_kept_within_two_per_cent(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_s: float, step_s: float, validation_s: float
) -> None:
    clock = FakeTime()
    began_s = clock.now_s
    monkeypatch.setattr(clock_module, "time", clock)
    monkeypatch.setattr(sources, "scan", clock.during(scan, 3.0))
    monkeypatch.setattr(trainer, "step", clock.during(run.step, step_s))
    monkeypatch.setattr(validation, "validate", clock.during(validation.validate, validation_s))
    monkeypatch.setattr(recorder, "write_report", clock.during(write_report, 0.4))
    rarely = {"checkpoint_every_steps": 0, "log_every_steps": 2, "validate_every_s": 20.0}
    settings = config(photos, budget_s=budget_s, phase="both", watch=rarely, fidelity={"warmup_steps": 3})
    outcome = trainer.train(settings, tmp_path, Witness())
    assert abs(clock.now_s - began_s - budget_s) < 0.02 * budget_s
    assert outcome.seconds == pytest.approx(clock.now_s - began_s, abs=0.5)
    steps = [event for event in log_of(tmp_path) if event["event"] == "step"]
    assert {event["phase"] for event in steps} == {"fidelity", "adversarial"}
    for phase in ("fidelity", "adversarial"):  # each schedule begins at its beginning, and ends at its end
        rates = [event["learning_rate"] for event in steps if event["phase"] == phase]
        assert rates[0] > 0.5 * max(rates)
        assert rates[-1] < 0.1 * max(rates)


def test_a_budget_that_setting_up_takes_is_told(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(clock_module, "time", clock)
    monkeypatch.setattr(sources, "scan", clock.during(scan, 30.0))
    with pytest.raises(TrainingError, match="over before the first step"):
        trainer.train(config(photos, budget_s=20.0), tmp_path, Witness())


def test_a_session_that_only_set_up_costs_the_next_one_no_time(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(clock_module, "time", clock)
    monkeypatch.setattr(trainer, "step", clock.during(run.step, 1.0))
    settings = config(photos, budget_s=20.0)
    with monkeypatch.context() as slow:
        slow.setattr(sources, "scan", clock.during(scan, 30.0))
        with pytest.raises(TrainingError, match=r"first scores took 30 s.*; the decoded pictures are kept"):
            trainer.train(settings, tmp_path, Witness())
    outcome = trainer.train(settings, tmp_path, Witness())
    assert outcome.steps == pytest.approx(20, abs=1)
    rates = [event["learning_rate"] for event in log_of(tmp_path) if event["event"] == "step"]
    assert rates[-1] < 0.2 * max(rates)  # the schedule is over, too
