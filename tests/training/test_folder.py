"""The run folder: its ownership, its contents, and requests to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from srgan_cli.errors import InterruptedRunError, SettingsError, WeightsError
from srgan_cli.training import checkpoint, folder
from srgan_cli.training_config import TrainConfig


def test_hidden_files_do_not_make_a_folder_strange(tmp_path: Path) -> None:
    for name in (".DS_Store", ".config.toml.part"):
        (tmp_path / name).touch()
    with folder.claimed(tmp_path):
        pass
    (tmp_path / "letter.txt").touch()
    with pytest.raises(SettingsError, match="not the folder of a run"), folder.claimed(tmp_path):
        pass


def test_a_run_that_is_refused_leaves_no_new_folder(tmp_path: Path) -> None:
    new, empty = tmp_path / "new", tmp_path / "empty"
    empty.mkdir()
    for where in (new, empty):
        with pytest.raises(SettingsError, match="refused"), folder.claimed(where):
            raise SettingsError("refused")
    assert not new.exists()
    assert empty.is_dir(), "it was the user's own"


def test_the_folder_of_a_run_that_has_just_begun_is_left_alone(tmp_path: Path) -> None:
    where = tmp_path / "run"
    with folder.claimed(where):
        with pytest.raises(SettingsError, match="another process"), folder.claimed(where):
            pass
        assert (where / ".lock").exists()
        (where / "log.jsonl").touch()
    assert (where / "log.jsonl").exists()


def test_half_a_config_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SettingsError, match="the disk is full"):
        folder.write_config(tmp_path, TrainConfig())
    assert list(tmp_path.iterdir()) == []


def test_another_phase_in_the_same_folder_is_told_the_way(tmp_path: Path) -> None:
    folder.write_config(tmp_path, TrainConfig(phase="fidelity"))
    (tmp_path / folder.CHECKPOINT_NAME).touch()
    with pytest.raises(SettingsError, match=f"--init {tmp_path}"):
        checkpoint.earlier_run(tmp_path, TrainConfig(phase="adversarial"))
    with pytest.raises(SettingsError) as caught:
        checkpoint.earlier_run(tmp_path, TrainConfig(phase="fidelity", seed=1))
    assert "--init" not in str(caught.value)


def test_a_second_sigterm_is_patient_and_a_second_ctrl_c_is_not() -> None:
    with folder.asked_to_stop() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_anything_to_save_a_request_to_stop_ends_the_run_at_once(number: int) -> None:
    with folder.asked_to_stop() as stop:
        with pytest.raises(InterruptedRunError, match="nothing is lost, and the same command resumes"), stop.at_once():
            os.kill(os.getpid(), number)
        assert stop()
        os.kill(os.getpid(), signal.SIGTERM)  # from now on, it is patient


def test_a_closed_terminal_saves_and_stops_unless_it_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with folder.asked_to_stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop(), "as under nohup"
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with folder.asked_to_stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


class Part:
    def __init__(self, state: dict[str, object], refusal: str = "") -> None:
        self.state, self.refusal, self.given = state, refusal, False

    def state_dict(self) -> dict[str, object]:
        return self.state

    def load_state_dict(self, state_dict: object) -> None:
        if self.refusal:
            raise RuntimeError(self.refusal)
        self.given = True


def test_a_scaler_that_was_not_used_is_left_fresh() -> None:
    now = {"net": Part({"a": 1}), "net_scaler": Part({"scale": 2.0})}
    checkpoint.restore(checkpoint.capture({"net": Part({"a": 1}), "net_scaler": Part({})}, {}), now)
    assert (now["net"].given, now["net_scaler"].given) == (True, False)
    checkpoint.restore(checkpoint.capture(now, {}), now)
    assert now["net_scaler"].given


def test_what_does_not_fit_is_told_with_its_reason() -> None:
    state = checkpoint.capture({"net": Part({"a": 1})}, {})
    with pytest.raises(WeightsError, match="size mismatch for conv"):
        checkpoint.restore(state, {"net": Part({}, "Error(s) in loading state_dict:\n\tsize mismatch for conv\nmore")})


def test_ctrl_c_in_a_save_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint"
    path.write_bytes(b"last")

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {})
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint"]
    assert path.read_bytes() == b"last"
