"""A teacher's kept results during whole runs: resumed, longer, interrupted, and with little room."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import pytest

from srgan_cli.errors import InterruptedRunError
from srgan_cli.training import checkpoint, sources, trainer
from srgan_cli.training.observer import SilentTraining
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import begin
from srgan_cli.training.sources import prepare, scanned
from srgan_cli.training.state import State
from srgan_cli.training_data_config import TeacherSettings
from tests.training.runs import Witness, same, stop_at, weights
from tests.training.runs import teaching as config


def test_a_lost_or_damaged_cache_is_made_again_and_changes_nothing(
    photos: Path,
    teachers: Path,
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    settings = config(photos, teachers / "x2.safetensors", data={"cache_dir": str(cache)})
    trainer.train(settings, tmp_path / "whole", Witness())
    trainer.train(settings, tmp_path / "parts", Witness(stop_at(2)))
    (kept,) = cache.glob("*.taught")
    kept.write_bytes(kept.read_bytes()[: kept.stat().st_size // 3])
    trainer.train(settings, tmp_path / "parts", Witness())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_how_many_pieces_there_are_stays_when_a_run_goes_on(
    photos: Path,
    teachers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = config(
        photos, teachers / "x2.safetensors", data={"cache_dir": str(tmp_path / "c")}, teacher={"crops": 0}
    )
    monkeypatch.setattr(sources, "_MIN_PIECES", 7)
    trainer.train(settings, tmp_path / "run", Witness(stop_at(2)))
    assert checkpoint.load(tmp_path / "run" / "checkpoint")["values"]["pieces"] == 7
    monkeypatch.setattr(sources, "_MIN_PIECES", 20)
    trainer.train(settings, tmp_path / "run", Witness())
    assert checkpoint.load(tmp_path / "run" / "checkpoint")["values"]["pieces"] == 7


def test_a_longer_run_learns_from_more_pieces(photos: Path, teachers: Path, tmp_path: Path) -> None:
    settings = config(photos, teachers / "x2.safetensors", budget_s=60.0)
    state = State()
    state.take_pieces(7, settings)
    assert state.has_pieces_for(settings)
    assert state.has_pieces_for(dataclasses.replace(settings, budget_s=30.0))
    assert not state.has_pieces_for(dataclasses.replace(settings, budget_s=90.0))
    assert not state.has_pieces_for(dataclasses.replace(settings, budget_s=None))
    assert not State().has_pieces_for(settings)

    many = config(photos, teachers / "x2.safetensors", data={"cache_dir": str(tmp_path / "c")}, teacher={"crops": 0})
    trainer.train(many, tmp_path / "run", Witness())
    kept = checkpoint.load(tmp_path / "run" / "checkpoint")["values"]
    assert (kept["pieces"], kept["taught_for"]) == (sources._MIN_PIECES, [4.0])
    longer = dataclasses.replace(many, steps=(sources._MIN_PIECES + 1) * sources._CROPS_PER_PIECE // 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_loop", lambda *_: True)  # its steps do not matter here
        trainer.train(longer, tmp_path / "run", Witness())
    assert len(list((tmp_path / "c").glob("*.taught"))) == 1
    run, state = begin(longer, Processes()), State.restored({**kept})
    found = prepare(run, state, scanned(run, SilentTraining()), SilentTraining())
    assert found.taught is not None
    assert len(found.taught) == state.pieces == sources._MIN_PIECES + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_while_the_teacher_works_says_what_is_kept(
    photos: Path, teachers: Path, tmp_path: Path, number: int
) -> None:
    class Impatient(Witness):
        def teaching(self, done: int, total: int) -> None:
            if done == 4:
                os.kill(os.getpid(), number)

    cache = tmp_path / "cache"
    settings = config(photos, teachers / "x2.safetensors", data={"cache_dir": str(cache)})
    with pytest.raises(InterruptedRunError, match=rf"results so far, for 4 pieces, are kept in {cache}, and the same"):
        trainer.train(settings, tmp_path / "run", Impatient())
    assert not (tmp_path / "run").exists()
    assert not trainer.train(settings, tmp_path / "run", Witness()).interrupted


def test_a_disk_with_little_room_is_not_called_a_slow_teacher(
    photos: Path, teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    settings = config(
        photos, teachers / "x2.safetensors", budget_s=600.0, data={"cache_dir": str(cache)}, teacher={"crops": 0}
    )
    run, state = begin(settings, Processes()), State()
    found = scanned(run, SilentTraining())
    prepare(
        begin(dataclasses.replace(settings, teacher=TeacherSettings()), Processes()), State(), found, SilentTraining()
    )  # its pictures are decoded
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 20_000})())
    (note,) = prepare(run, state, found, SilentTraining()).notes
    assert "the disk is nearly full: there was room for only" in note
