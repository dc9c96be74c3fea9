"""A whole run with tiny networks: its folder, going on, being stopped, going wrong, and several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from srgan_cli.errors import DivergedError, NothingToDoError, SettingsError, TrainingError, WeightsError
from srgan_cli.networks.weights import load_model
from srgan_cli.training import checkpoint, trainer
from srgan_cli.training import run as run_module
from srgan_cli.training.config import TrainConfig, from_mapping, merged, to_toml
from srgan_cli.training.observer import Progress, Silent
from srgan_cli.training.record import read_log

TINY: Mapping[str, Any] = {
    "preset": "compact",
    "phase": "fidelity",
    "steps": 4,
    "generator": {"scale": 2, "features": 8, "blocks": 1},
    "data": {"levels": [1.0], "val_most": 2, "val_share": 0.2},
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


class Witness(Silent):
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
    expected = {"config.toml", "log.jsonl", "samples", "curves.png", "report.html", "checkpoint", "model.safetensors"}
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


@pytest.mark.parametrize("phase", ["fidelity", "both"])
def test_two_and_two_steps_are_four_to_the_bit(photos: Path, tmp_path: Path, phase: str) -> None:
    whole = config(photos, phase=phase)
    trainer.train(whole, tmp_path / "whole", Witness())
    stopped = trainer.train(whole, tmp_path / "parts", Witness(stop_at(2)))
    assert stopped.interrupted
    assert stopped.exit_code == 130
    assert stopped.steps == 2
    witness = Witness()
    trainer.train(whole, tmp_path / "parts", witness)
    assert witness.steps == [3, 4]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    steps = [event["step"] for event in log_of(tmp_path / "parts") if event["event"] == "step"]
    assert steps == [1, 2, 3, 4]


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


# ------------------------------------------------------------------------------------------------------ time


def test_a_budget_is_kept(photos: Path, tmp_path: Path) -> None:
    budget_s = 6.0
    began = time.monotonic()
    settings = config(
        photos, budget_s=budget_s, phase="both", watch={"checkpoint_every_steps": 0, "log_every_steps": 5}
    )
    outcome = trainer.train(settings, tmp_path, Witness())
    assert outcome.seconds <= time.monotonic() - began
    # Two per cent of half an hour is 36 s; of a run this short, what the machine does beside it counts for more.
    assert abs(time.monotonic() - began - budget_s) < 1.5
    steps = [event for event in log_of(tmp_path) if event["event"] == "step"]
    assert {event["phase"] for event in steps} == {"fidelity", "adversarial"}
    assert steps[-1]["learning_rate"] < 0.1 * max(
        event["learning_rate"] for event in steps if event["phase"] == "adversarial"
    )


# ---------------------------------------------------------------------------------------------------------- going wrong


def poisoned(monkeypatch: pytest.MonkeyPatch, when: Callable[[int], bool]) -> None:
    """Steps of which `when` is true are made on pictures that are not numbers."""
    real, count = trainer.step, [0]

    def step(run: Any, state: Any, share: float, low: torch.Tensor, high: torch.Tensor) -> Any:
        count[0] += 1
        return real(run, state, share, low, high * float("nan") if when(count[0]) else high)

    monkeypatch.setattr(trainer, "step", step)


def test_not_a_number_goes_back_and_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda count: count == 3)
    witness = Witness()
    outcome = trainer.train(config(photos, steps=5), tmp_path, witness)
    assert outcome.steps == 5
    assert any("NaN" in note for note in witness.notes)
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())
    assert checkpoint.load(tmp_path / "checkpoint")["values"]["rollbacks"] == 1
    rates = [event["learning_rate"] for event in log_of(tmp_path) if event["event"] == "step"]
    assert len(rates) == 6  # step 3 twice


def test_going_wrong_for_ever_ends(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poisoned(monkeypatch, lambda count: count >= 3)
    with pytest.raises(DivergedError, match="3 times"):
        trainer.train(config(photos, watch={"most_rollbacks": 2}), tmp_path, Witness())
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path).values())


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
        (SettingsError, config(photos, phase="both", adversarial={"crop_px": 20})),  # no discriminator for it
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
                trainer.train(config(photos), tmp_path, Silent())
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
    monkeypatch.setattr("srgan_cli.upscaling.backends.free_memory_bytes", lambda device: 130_000)
    witness = Witness()
    trainer.train(config(photos), tmp_path, witness)
    assert any("do not fit into memory" in note for note in witness.notes)
    assert 1 <= int(str(witness.facts["batch"])) < 4


# ---------------------------------------------------------------------------------------------------- several processes


@pytest.mark.parametrize("phase", ["fidelity", "adversarial"])
def test_two_processes_compute_what_one_does(photos: Path, tmp_path: Path, phase: str) -> None:
    values = merged(merged(TINY, {"data": {"high_dirs": [str(photos)]}}), {"phase": phase, "steps": 3})
    trainer.train(from_mapping(values), tmp_path / "one", Witness())
    toml = tmp_path / "settings.toml"
    toml.write_text(to_toml(from_mapping(values)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "srgan_cli", "train", "--config", str(toml), "--out", str(tmp_path / "two"), "-q"]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in both:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_a_batch_must_be_shared_evenly(monkeypatch: pytest.MonkeyPatch, photos: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be shared evenly by 3"):
        trainer._checked_share(config(photos), run_module.Processes(world=3))
