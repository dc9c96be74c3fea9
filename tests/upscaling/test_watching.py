"""A watched folder: files that arrive, change, disappear, fail, and return; with events and without."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions, UpscaleOptions, WriteOptions
from srgan_cli.errors import ExitCode, SettingsError
from srgan_cli.upscaling import watching
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.session import Session, prepare
from srgan_cli.upscaling.watching import FAILED_FILE, WatchOptions, watch
from tests import commands
from tests.upscaling.pictures import cut_short, picture, tree


class Watched:
    """A folder that is watched in a thread, and what has been heard of it."""

    def __init__(self, options: WatchOptions) -> None:
        self.options, self.sessions = options, 0
        self.notes: list[str] = []
        self.failures: list[list[str]] = []
        self.made = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def batch(self, session: Session) -> Iterator[Any]:
        self.sessions += 1
        yield Silent()

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def failed(self, sources: Sequence[Path]) -> None:
        self.failures.append([source.name for source in sources])

    def _run(self) -> None:
        self.made = watch(self.options, self, is_over=self._end.is_set)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(120)
        assert not self._thread.is_alive()

    def results(self) -> set[str]:
        output = self.options.output
        names = tree(output) if output.exists() else set()
        return {name for name in names if not Path(name).name.startswith(".")}

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (self.results(), self.notes, self.failures)
            assert self._thread.is_alive()
            time.sleep(0.02)


@pytest.fixture(scope="session")
def model(tiny_x4: Path) -> str:
    return str(tiny_x4)


@pytest.fixture(params=["events", pytest.param("polling", marks=pytest.mark.slow)])
def options(
    tmp_path: Path, model: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> WatchOptions:
    monkeypatch.setattr(watching, "_MIN_S", 0.02)
    (tmp_path / "in").mkdir()
    pictures = UpscaleOptions(model=model, engine=EngineOptions("cpu", "fp32"))
    poll_s = None
    if request.param == "polling":
        poll_s = 0.05
    else:
        pytest.importorskip("watchfiles")
    return WatchOptions(tmp_path / "in", tmp_path / "out", pictures, settle_s=0.1, poll_s=poll_s)


def test_pictures_are_made_as_they_come_also_in_folders(options: WatchOptions) -> None:
    here = options.folder
    picture(here / "before.png")
    picture(here / ".hidden.png")
    (here / "notes.txt").write_text("no picture")
    with Watched(options) as watched:
        watched.until(lambda: watched.results() == {"before.png"})
        picture(here / "deep" / "er" / "new.png")
        watched.until(lambda: watched.results() == {"before.png", "deep/er/new.png"})
        written = picture(here.parent / "elsewhere.png")
        written.rename(here / "moved.png")
        watched.until(lambda: "moved.png" in watched.results())
        assert watched.failures == []
    assert watched.made == 3


def test_a_file_that_is_still_written_is_waited_for(options: WatchOptions) -> None:
    whole = picture(options.folder.parent / "whole.png", 200, 200).read_bytes()
    with Watched(replace(options, settle_s=0.7)) as watched, (options.folder / "slow.png").open("wb") as file:
        for start in range(0, len(whole), len(whole) // 8):
            file.write(whole[start : start + len(whole) // 8])
            file.flush()
            time.sleep(0.1)
            assert watched.results() == set()
        watched.until(lambda: watched.results() == {"slow.png"})
        assert watched.failures == []


def test_what_fails_is_listed_and_tried_again_when_it_changes(options: WatchOptions) -> None:
    broken = cut_short(options.folder / "broken.jpg")
    listed = options.output / FAILED_FILE
    with Watched(options) as watched:
        picture(options.folder / "good.png")
        watched.until(lambda: watched.failures == [["broken.jpg"]] and watched.results() == {"good.png"})
        sessions = watched.sessions
        time.sleep(0.3)
        assert watched.sessions == sessions, "it is not tried again and again"
    entry = json.loads(listed.read_text())
    assert entry["source"] == "broken.jpg"
    assert "damaged" in entry["reason"]
    with Watched(options) as watched:  # nor after a restart
        watched.until(lambda: watched.failures == [["broken.jpg"]])
        time.sleep(0.3)
        assert watched.failures == [["broken.jpg"]]
        picture(broken)
        watched.until(lambda: watched.results() == {"good.png", "broken.jpg"} and watched.failures[-1] == [])
    assert listed.read_text() == ""
    assert watched.made == 1


def test_what_failed_with_other_settings_is_tried_again(options: WatchOptions) -> None:
    cut_short(options.folder / "broken.jpg")
    with Watched(options) as watched:
        watched.until(lambda: watched.failures == [["broken.jpg"]])
    lossless = replace(options.pictures, write=WriteOptions("webp", lossless=True))
    with Watched(replace(options, pictures=lossless)) as watched:
        watched.until(lambda: watched.sessions == 1)


def test_a_restart_goes_on_by_the_record(options: WatchOptions) -> None:
    for number in range(4):
        picture(options.folder / f"{number}.png", seed=number)
    with Watched(options) as watched:
        watched.until(lambda: len(watched.results()) == 4)
    times = {name: (options.output / name).stat().st_mtime_ns for name in watched.results()}
    picture(options.folder / "1.png", seed=9)  # changed while no watcher ran
    picture(options.folder / "4.png")
    with Watched(options) as watched:
        watched.until(lambda: len(watched.results()) == 5)
        watched.until(lambda: (options.output / "1.png").stat().st_mtime_ns != times["1.png"])
    assert watched.made == 2
    assert {name: (options.output / name).stat().st_mtime_ns for name in ("0.png", "2.png", "3.png")} == {
        name: times[name] for name in ("0.png", "2.png", "3.png")
    }


def test_renamed_and_deleted_while_working(options: WatchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the work, and in the middle of the work."""
    here = options.folder
    for name in ("a.png", "b.png", "c.png", "d.png"):
        picture(here / name)
    run = Session.run
    monkeypatch.setattr(watching, "prepare", lambda *args, **more: (_gone(here / "a.png"), prepare(*args, **more))[1])

    def running(self: Session, *args: Any, **more: Any) -> Tally:
        _gone(here / "b.png")
        if (here / "c.png").exists():
            (here / "c.png").rename(here / "renamed.png")
        return run(self, *args, **more)

    monkeypatch.setattr(Session, "run", running)
    with Watched(options) as watched:
        watched.until(lambda: {"d.png", "renamed.png"} <= watched.results())
        time.sleep(0.3)
        assert [names for names in watched.failures if names] == []
    assert watched.results() <= {"c.png", "d.png", "renamed.png"}
    assert not (options.output / FAILED_FILE).exists()


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def test_a_picture_that_changes_while_it_is_made_is_made_again(
    options: WatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(options.folder / "a.png", 10, 10)
    run = Session.run
    runs: list[Tally] = []

    def running(self: Session, *args: Any, **more: Any) -> Tally:
        tally = run(self, *args, **more)
        if not runs:
            picture(path, 20, 20)
        runs.append(tally)
        return tally

    monkeypatch.setattr(Session, "run", running)
    with Watched(options) as watched:
        watched.until(lambda: len(runs) >= 2 and bool(runs[-1].done))
    assert runs[-1].done[0].output.width == 80


def test_two_of_one_name_both_have_a_result(options: WatchOptions) -> None:
    as_jpeg = replace(options.pictures, write=WriteOptions("jpeg"))
    with Watched(replace(options, pictures=as_jpeg)) as watched:
        picture(options.folder / "a.png")
        watched.until(lambda: watched.results() == {"a.jpg"})
        picture(options.folder / "a.webp", seed=3)
        watched.until(lambda: watched.results() == {"a.jpg", "a.png.jpg", "a.webp.jpg"})


def test_a_result_of_somebody_else_is_left_alone_and_the_others_go_on(options: WatchOptions) -> None:
    options.output.mkdir()
    (options.output / "a.png").write_bytes(b"mine")
    for name in ("a.png", "b.png", "c.png"):
        picture(options.folder / name)
    with Watched(options) as watched:
        watched.until(lambda: watched.failures == [["a.png"]] and {"b.png", "c.png"} <= watched.results())
    assert (options.output / "a.png").read_bytes() == b"mine"


def test_what_is_not_the_pictures_fault_is_tried_again_later(
    options: WatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_AGAIN_S", 0.15)
    options.output.mkdir()
    (options.output / "a.png").write_bytes(b"in the way")
    picture(options.folder / "a.png")
    with Watched(options) as watched:
        watched.until(lambda: watched.failures == [["a.png"]])
        (options.output / "a.png").unlink()
        watched.until(lambda: watched.results() == {"a.png"} and watched.failures[-1] == [])


def test_a_drive_that_goes_and_comes_back(options: WatchOptions) -> None:
    picture(options.folder / "a.png")
    away = options.folder.parent / "away"
    with Watched(options) as watched:
        watched.until(lambda: watched.results() == {"a.png"})
        options.folder.rename(away)
        watched.until(lambda: any("waiting for it to come back" in note for note in watched.notes), 90)
        picture(away / "b.png")
        away.rename(options.folder)
        watched.until(lambda: watched.results() == {"a.png", "b.png"}, 90)
    assert watched.made == 2


def test_the_output_may_lie_inside_and_is_not_taken_for_input(options: WatchOptions) -> None:
    picture(options.folder / "a.png")
    with Watched(replace(options, output=options.folder / "large")) as watched:
        watched.until(lambda: watched.results() == {"a.png"})
        time.sleep(0.3)
        assert watched.results() == {"a.png"}
    assert watched.made == 1


def test_without_subfolders(options: WatchOptions) -> None:
    picture(options.folder / "deep" / "b.png")
    picture(options.folder / "a.png")
    with Watched(replace(options, recursive=False)) as watched:
        watched.until(lambda: watched.results() == {"a.png"})
        time.sleep(0.2)
    assert watched.results() == {"a.png"}


@pytest.mark.slow
def test_10_000_files_at_once(options: WatchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are planned, each once; the network is left out. Events or not, they are found by looking."""
    if options.poll_s is not None:
        pytest.skip("once is enough")
    runs: list[int] = []

    def running(self: Session, *_args: Any, **_more: Any) -> Tally:
        runs.append(len(self.plan.jobs))
        return Tally(done=list(self.plan.jobs), failures=[Failure(f.source, f.reason) for f in self.plan.failures])

    monkeypatch.setattr(Session, "run", running)
    monkeypatch.setattr(watching, "_BATCH", 2_500)
    data = picture(options.folder.parent / "one.png", 4, 4).read_bytes()
    with Watched(options) as watched:
        for number in range(10_000):
            folder = options.folder / f"{number % 10}"
            folder.mkdir(exist_ok=True)
            (folder / f"{number}.png").write_bytes(data)
        watched.until(lambda: sum(runs) >= 10_000, 200)
    assert sum(runs) == watched.made == 10_000


def test_events_that_break_are_replaced_by_looking(options: WatchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    if options.poll_s is not None:
        pytest.skip("about events")
    import watchfiles

    def broken(*_args: Any, **_more: Any) -> Any:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", broken)
    monkeypatch.setattr(watching, "_NETWORK_LOOK_S", 0.05)
    with Watched(options) as watched:
        watched.until(lambda: any("watch limit reached" in note for note in watched.notes))
        picture(options.folder / "a.png")
        watched.until(lambda: watched.results() == {"a.png"})


def test_a_network_drive_is_looked_at_by_itself(options: WatchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "network_drive", lambda _folder: "nfs4")
    monkeypatch.setattr(watching, "_NETWORK_LOOK_S", 0.05)
    with Watched(replace(options, poll_s=None)) as watched:
        watched.until(lambda: any("network drive (nfs4)" in note for note in watched.notes))
        picture(options.folder / "a.png")
        watched.until(lambda: watched.results() == {"a.png"})


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"settle_s": 0.0}, "--settle"),
        ({"poll_s": -1.0}, "--poll"),
        ({"folder": Path("no such folder")}, "is not a folder"),
        ({"output": Path()}, "is or contains the watched folder"),
        ({"output": Path(__file__)}, "is a file; srgan watch needs a folder"),
        ({"pictures": UpscaleOptions(name_pattern="{index}{ext}")}, "must contain {stem}"),
    ],
)
def test_what_makes_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    plain = WatchOptions(Path("in"), Path("out"), UpscaleOptions())
    with pytest.raises(SettingsError, match=words):
        replace(plain, **change)


def test_a_model_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    arguments = ["watch", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--poll", "1"]
    assert main([*arguments, "-m", "no-such-model"]) == ExitCode.WEIGHTS
    assert main([*arguments, "--quality", "1000"]) == ExitCode.USAGE


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_ends_cleanly_on_sigterm(tmp_path: Path, model: str) -> None:
    here, out = tmp_path / "in", tmp_path / "out"
    picture(here / "a.png")
    cut_short(here / "broken.jpg")
    failed = tmp_path / "failed.txt"
    command = ["watch", str(here), "-o", str(out), "-m", model, "--device", "cpu",
               "--settle", "0.2", "--poll", "0.2", "--failed", str(failed), "--json", "--scale", "2"]  # fmt: skip
    with commands.Command(*command) as process:
        end = time.monotonic() + 120
        while not (failed.exists() and failed.read_text() and (out / "a.png").exists()) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    events = [json.loads(line) for line in output.splitlines()]
    assert {"plan", "done", "failed"} <= {event["event"] for event in events}
    assert failed.read_text() == f"{here / 'broken.jpg'}\n"
    assert b"ended; 1 made" in errors
    assert not [name for name in tree(out) if ".part" in name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals")
def test_sigterm_in_the_middle_of_a_picture(tmp_path: Path, model: str) -> None:
    here, out = tmp_path / "in", tmp_path / "out"
    picture(here / "large.png", 1500, 1500)
    command = ["watch", str(here), "-o", str(out), "-m", model, "--device", "cpu",
               "--settle", "0.1", "--poll", "0.2", "--json", "--tile", "64"]  # fmt: skip
    with commands.Command(*command) as process:
        assert any(b'"progress"' in line for line in iter(process.stdout.readline, b""))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    left = tree(out)
    assert "large.png" not in left
    assert not [name for name in left if ".part" in name]
    shutil.rmtree(out)
