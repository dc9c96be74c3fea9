"""A whole run with tiny networks: its folder, going on, being stopped, going wrong, and several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from srgan_cli.errors import DivergedError, NothingToDoError, SettingsError, TrainingError, WeightsError
from srgan_cli.networks.weights import load_model
from srgan_cli.runlog.record import read_log
from srgan_cli.training import checkpoint, recorder, sources, trainer, validation
from srgan_cli.training import clock as clock_module
from srgan_cli.training import run as run_module
from srgan_cli.training.clock import Clock
from srgan_cli.training.monitor import Finding
from srgan_cli.training.observer import Progress, SilentTraining
from srgan_cli.training.processes import Processes
from srgan_cli.training.state import State
from srgan_cli.training.steps import Examples
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, merged, to_toml

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
        "checkpoint_every_steps": 1,
        "samples": 1,
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(8):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
    return folder


def config(photos: Path, **changes: Any) -> TrainConfig:
    return from_mapping(merged(merged(TINY, {"data": {"high_dirs": [str(photos)]}}), changes))


class Witness(SilentTraining):
    """Remembers what it is told, and may act at a step."""

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


def steps_of(folder: Path) -> list[int]:
    return [int(event["step"]) for event in read_log(folder / "log.jsonl") if event["event"] == "step"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a | b)


# ---------------------------------------------------------------------------------------------------------- a whole run


def test_a_run_of_both_phases_leaves_all_that_was_promised(photos: Path, tmp_path: Path) -> None:
    where = tmp_path / "run"
    outcome = trainer.train(config(photos, phase="both", steps=6), where, Witness())
    assert outcome.exit_code == 0
    assert outcome.steps == 6
    expected = {"config.toml", "log.jsonl", "samples", "report.html", "checkpoint", "model.safetensors"}
    assert expected | {"fidelity.safetensors"} <= {path.name for path in where.iterdir()}
    events = log_of(where)
    phases = [event["phase"] for event in events if event["event"] == "step"]
    assert phases == ["fidelity"] * 3 + ["adversarial"] * 3
    assert "discriminator" in next(e for e in events if e["event"] == "step" and e["phase"] == "adversarial")
    assert events[-1]["event"] == "finished"
    model, first = load_model(where), load_model(where / "fidelity.safetensors")
    assert (model.scale, model.adversarial, first.adversarial) == (2, True, False)
    assert model.entry is not None
    assert model.entry.recipe["steps"] == 6
    assert str(photos) not in json.dumps(model.entry.recipe)  # a model travels, and paths are nobody's business
    kept = model.entry.scores["validation"]["psnr_y_db"]
    assert outcome.scores["model"]["psnr_y_db"] == pytest.approx(kept, abs=1e-3)


def test_training_learns(photos: Path, tmp_path: Path) -> None:
    rates = {"fidelity": {"learning_rate": 3e-3, "frequency_weight": 0.0, "ema": 0.9}}
    outcome = trainer.train(
        config(photos, steps=120, watch={"checkpoint_every_steps": 0}, **rates), tmp_path / "r", Witness()
    )
    losses = [event["losses"]["pixel"] for event in log_of(tmp_path / "r") if event["event"] == "step"]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
    first = next(event for event in log_of(tmp_path / "r") if event["event"] == "validation")
    assert outcome.scores["model"]["psnr_y_db"] > first["psnr_y_db"]


# --------------------------------------------------------------------------------------------------------- going on


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


@pytest.mark.parametrize("case", CASES)
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


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors(item)]
    return [tensor for item in value for tensor in tensors(item)] if isinstance(value, list | tuple) else []


def test_a_kill_loses_at_most_the_interval(photos: Path, tmp_path: Path) -> None:
    where, toml = tmp_path / "run", tmp_path / "settings.toml"
    settings = config(photos, steps=100_000)
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


def test_a_finished_run_is_not_run_again(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos), tmp_path, Witness())
    before = weights(tmp_path)
    witness = Witness()
    outcome = trainer.train(config(photos), tmp_path, witness)
    assert not witness.steps
    assert outcome.exit_code == 0
    assert same(before, weights(tmp_path))


def test_a_longer_run_does_not_go_back_to_fidelity(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos, phase="both"), tmp_path, Witness())
    fidelity = (tmp_path / "fidelity.safetensors").read_bytes()
    trainer.train(config(photos, phase="both", steps=20), tmp_path, Witness())
    phases = [event["phase"] for event in log_of(tmp_path) if event["event"] == "step"]
    assert phases == ["fidelity"] * 2 + ["adversarial"] * 18
    assert (tmp_path / "fidelity.safetensors").read_bytes() == fidelity


def test_a_damaged_checkpoint_is_told(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos), tmp_path, Witness())
    whole = (tmp_path / "checkpoint").read_bytes()
    (tmp_path / "checkpoint").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match=r"is damaged.*checkpoint\.good is an earlier one"):
        trainer.train(config(photos, steps=5), tmp_path, Witness())
    (tmp_path / "checkpoint.good").replace(tmp_path / "checkpoint")
    assert trainer.train(config(photos, steps=5), tmp_path, Witness()).steps == 5


def test_a_run_without_its_checkpoint_is_not_trained_over(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos), tmp_path, Witness())
    (tmp_path / "checkpoint").unlink()
    witness = Witness()
    trainer.train(config(photos, steps=5), tmp_path, witness)
    assert witness.steps == [5]  # from the good one
    for name in ("checkpoint", "checkpoint.good"):
        (tmp_path / name).unlink()
    before = weights(tmp_path)
    with pytest.raises(SettingsError, match="no checkpoint to go on from"):
        trainer.train(config(photos, steps=6), tmp_path, Witness())
    assert same(before, weights(tmp_path))


def test_other_pictures_are_told(photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    trainer.train(config(mine), tmp_path / "run", Witness())
    Image.effect_noise((48, 40), 60).convert("RGB").save(mine / "new.png")
    witness = Witness()
    trainer.train(config(mine, steps=5), tmp_path / "run", witness)
    assert any("not those that this run began with" in note for note in witness.notes)


def test_a_longer_run_goes_on_from_a_shorter_one(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos), tmp_path, Witness())
    witness = Witness()
    trainer.train(config(photos, steps=6), tmp_path, witness)
    assert witness.steps == [5, 6]


def test_a_run_of_other_settings_is_not_gone_on_with(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos), tmp_path, Witness())
    before = (tmp_path / "checkpoint").read_bytes()
    with pytest.raises(SettingsError, match=r"generator\.blocks: 1, now 2"):
        trainer.train(config(photos, generator={"blocks": 2}), tmp_path, Witness())
    assert (tmp_path / "checkpoint").read_bytes() == before


def test_starting_from_a_file_takes_its_sizes(photos: Path, tmp_path: Path) -> None:
    trainer.train(config(photos), tmp_path / "first", Witness())
    start = str(tmp_path / "first")
    witness = Witness()
    again = config(photos, init=start, phase="adversarial", generator={"features": 64, "blocks": 9}, steps=1)
    trainer.train(again, tmp_path / "second", witness)
    assert {key: value.shape for key, value in weights(tmp_path / "second").items()} == {
        key: value.shape for key, value in weights(tmp_path / "first").items()
    }
    trainer.train(again, tmp_path / "second", Witness())  # the same command once more: nothing to do, no complaint
    with pytest.raises(SettingsError, match="enlarges 2 times, not 4"):
        trainer.train(config(photos, init=start, generator={"scale": 4}), tmp_path / "third", Witness())


def test_a_larger_network_goes_on_where_a_smaller_one_ended(photos: Path, tmp_path: Path) -> None:
    first = trainer.train(config(photos), tmp_path / "first", Witness())
    larger = config(photos, init=str(first.folder), generator={"blocks": 3, "grow": True}, steps=2)
    trainer.train(larger, tmp_path / "second", Witness())
    assert sum(key.endswith("conv2.weight") for key in weights(tmp_path / "second")) == 3
    trainer.train(larger, tmp_path / "second", Witness())  # the same command once more
    other = config(photos, init=str(first.folder), generator={"scale": 4, "grow": True}, steps=1)
    trainer.train(other, tmp_path / "third", Witness())
    assert weights(tmp_path / "third")["tail.weight"].shape[0] == 3 * 4**2


# ------------------------------------------------------------------------------------------------------ time


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


@pytest.mark.parametrize(
    ("budget_s", "step_s", "validation_s"), [(60.0, 0.13, 1.5), (20.0, 0.5, 0.1), (100.0, 0.05, 9.0)]
)
def test_a_budget_is_kept_within_two_per_cent(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_s: float, step_s: float, validation_s: float
) -> None:
    clock = FakeTime()
    began_s = clock.now_s
    monkeypatch.setattr(clock_module, "time", clock)
    monkeypatch.setattr(sources, "scan", clock.during(sources.scan, 3.0))
    monkeypatch.setattr(trainer, "step", clock.during(trainer.step, step_s))
    monkeypatch.setattr(validation, "validate", clock.during(validation.validate, validation_s))
    monkeypatch.setattr(recorder, "write_report", clock.during(recorder.write_report, 0.4))
    rarely = {"checkpoint_every_steps": 0, "log_every_steps": 5, "validate_every_s": 20.0}
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
    monkeypatch.setattr(sources, "scan", clock.during(sources.scan, 30.0))
    with pytest.raises(TrainingError, match="over before the first step"):
        trainer.train(config(photos, budget_s=20.0), tmp_path, Witness())


# ---------------------------------------------------------------------------------------------------------- going wrong


def poisoned(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    """Steps of which `when` is true are made on pictures that are not numbers."""
    real, count = trainer.step, [0]

    def step(run: Any, state: Any, fraction: float, examples: Examples) -> Any:
        count[0] += 1
        high = examples.high * float("nan") if when(count[0]) else examples.high
        return real(run, state, fraction, dataclasses.replace(examples, high=high))

    monkeypatch.setattr(trainer, "step", step)


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
    """The fault comes after the last good look, and is saved before the next one finds it."""
    real, count = trainer.step, [0]

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
    real = run_module.discriminator_terms

    def won(*args: Any) -> Any:
        terms, verdicts = real(*args)
        terms.raw = {name: value * 1e-6 for name, value in terms.raw.items()}
        return terms, dataclasses.replace(verdicts, accuracy=torch.tensor(1.0))

    monkeypatch.setattr(run_module, "discriminator_terms", won)
    watch = {"log_every_steps": 20, "checkpoint_every_steps": 0}
    settings = config(photos, phase="adversarial", steps=300, watch=watch, adversarial={"perceptual_weight": 0.0})
    witness = Witness()
    trainer.train(settings, tmp_path, witness)
    assert sum("has won" in note for note in witness.notes) == 1


def test_going_wrong_for_ever_ends(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda count: count >= 3)
    with pytest.raises(DivergedError, match="2 times"):
        trainer.train(config(photos, watch={"max_rollbacks": 2}), tmp_path, Witness())
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())
    values = checkpoint.load(tmp_path / "checkpoint")["values"]
    assert (values["rollbacks"], values["rate"]) == (2, 0.25)  # a kill now would not begin to count anew


def test_a_full_disk_keeps_the_last_checkpoint(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = torch.save, [0]

    def save(state: Any, file: Any) -> None:
        count[0] += 1
        if count[0] == 3:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(TrainingError, match="No space left"):
        trainer.train(config(photos), tmp_path, Witness())
    assert checkpoint.load(tmp_path / "checkpoint")["values"]["step"] == 1
    assert not list(tmp_path.glob(".*.part"))
    witness = Witness()
    trainer.train(config(photos), tmp_path, witness)
    assert witness.steps == [2, 3, 4]


# ------------------------------------------------------------------------------------------------ before the first step


def test_bad_input_is_told_before_the_first_step(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[type[Exception], TrainConfig]] = [
        (NothingToDoError, config(empty)),
        (NothingToDoError, config(photos, fidelity={"crop_px": 64})),
        (
            WeightsError,
            config(photos, phase="adversarial", perceptual={"source": "vgg19", "weights_file": str(empty / "no")}),
        ),
        (WeightsError, config(photos, init=str(empty))),
    ]
    for number, (kind, settings) in enumerate(cases):
        with pytest.raises(kind):
            trainer.train(settings, tmp_path / str(number), Witness(lambda p: pytest.fail("a step was made")))


def test_a_folder_of_something_else_is_not_written_to(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(SettingsError, match="not the folder of a run"):
        trainer.train(config(photos), tmp_path, Witness())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_two_runs_cannot_share_a_folder(photos: Path, tmp_path: Path) -> None:
    def intrude(p: Progress) -> None:
        found: list[BaseException] = []

        def other() -> None:
            try:
                trainer.train(config(photos), tmp_path, SilentTraining())
            except SettingsError as err:
                found.append(err)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "another process" in str(found[0])

    trainer.train(config(photos, steps=1), tmp_path, Witness(intrude))


def test_a_batch_that_does_not_fit_is_made_smaller(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.backends.pytorch.free_memory_bytes", lambda device: 130_000)
    witness = Witness()
    trainer.train(config(photos), tmp_path, witness)
    assert any("do not fit into memory" in note for note in witness.notes)
    assert 1 <= int(str(witness.facts["batch"])) < 4


# --------------------------------------------------------------------------------------------------------- paired data


def test_paired_data_are_learned_from_and_judged_as_they_are(photos: Path, tmp_path: Path) -> None:
    """The small pictures are darker: what a degradation would make is not what is there."""
    low = tmp_path / "low"
    low.mkdir()
    for path in photos.iterdir():
        with Image.open(path) as picture:
            small = picture.reduce(2)
        small.point(lambda value: value // 2).save(low / path.name)
    paired = {"high_dirs": [str(photos)], "low_dirs": [str(low)]}
    outcome = trainer.train(config(photos, data=paired), tmp_path / "run", Witness())
    plain = trainer.train(config(photos), tmp_path / "plain", Witness())
    assert outcome.scores["bicubic"]["psnr_y_db"] < plain.scores["bicubic"]["psnr_y_db"] - 5


# ---------------------------------------------------------------------------------------------------- several processes


def pair_of_processes(command: list[str]) -> tuple[list[int], str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    each = [{**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    both = [subprocess.Popen(command, env=one, stderr=subprocess.PIPE, text=True) for one in each]
    told = [process.communicate(timeout=60)[1] for process in both]
    return [process.returncode for process in both], "".join(told)


@pytest.mark.parametrize("phase", ["fidelity", "adversarial"])
def test_two_processes_compute_what_one_does(photos: Path, tmp_path: Path, phase: str) -> None:
    values = merged(merged(TINY, {"data": {"high_dirs": [str(photos)]}}), {"phase": phase, "steps": 3})
    trainer.train(from_mapping(values), tmp_path / "one", Witness())
    toml = tmp_path / "settings.toml"
    toml.write_text(to_toml(from_mapping(values)))
    command = [sys.executable, "-m", "srgan_cli", "train", "--config", str(toml), "--out", str(tmp_path / "two"), "-q"]
    for _ in range(3):  # somebody else may take the free port before they do
        codes, told = pair_of_processes(command)
        if codes == [0, 0]:
            break
    assert codes == [0, 0], told
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_all_processes_go_by_the_first_ones_clock(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a budget, even how much of a phase is done depends on the clock: rates and crops would differ otherwise."""
    settings = config(photos, phase="both", budget_s=100.0)
    said: list[list[float]] = []
    monkeypatch.setattr(trainer.processes, "first_says", lambda values, group: said.append(list(values)) or said[0])
    monkeypatch.setattr(trainer.processes, "anyone", lambda flag, group: flag)
    monkeypatch.setattr(clock_module, "time", FakeTime())
    places = []
    for began_s, elapsed_s in ((5.0, 70.0), (30.0, 60.0)):
        clock, state = Clock(settings), State()
        clock.resume(elapsed_s=elapsed_s, begun_s=began_s)
        state.enter("adversarial", 10.0 + began_s)
        session = trainer._Session(
            tmp_path, SimpleNamespace(config=settings, group=Processes()), state, clock, SilentTraining()
        )
        places.append(trainer._agreed(session, False, False))
    assert said[0] != said[1]
    assert places[0] == places[1]


def test_a_batch_must_be_shared_evenly(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be shared evenly by 3"):
        trainer._check_batches(config(photos), Processes(world=3))


# ---------------------------------------------------------------------------------------------------------------- a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", ["bicubic", "photo"])
def test_a_gpu_trains_both_phases_and_goes_on(photos: Path, tmp_path: Path, precision: str, kind: str) -> None:
    settings = config(
        photos, phase="both", steps=40, compute={"device": "cuda", "precision": precision}, degradation={"kind": kind}
    )
    stopped = trainer.train(settings, tmp_path, Witness(stop_at(30)))
    assert stopped.interrupted
    witness = Witness()
    outcome = trainer.train(settings, tmp_path, witness)
    assert witness.steps == list(range(31, 41))
    assert np.isfinite(outcome.scores["model"]["psnr_y_db"])
    assert not any("NaN" in note for note in witness.notes)
