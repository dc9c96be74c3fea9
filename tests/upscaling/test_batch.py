"""A run: pictures in order through three threads, and every way it may be disturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import Upscaler, load_model
from srgan_cli.cli import main
from srgan_cli.config import EngineOptions, UpscaleOptions, WriteOptions
from srgan_cli.errors import (
    DefectError,
    DeviceError,
    OutOfMemoryError,
    PictureError,
    UnreadablePictureError,
    WeightsError,
)
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.reading import open_picture
from srgan_cli.sizes import Size
from srgan_cli.upscaling import intake, pipeline
from srgan_cli.upscaling.budget import ByteBudget
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.ledger import FILE_NAME
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.plan import Job, Skip
from srgan_cli.upscaling.session import Session, prepare
from tests.faults import at_call, disk_full, save_tiny
from tests.upscaling.pictures import cut_short, picture, tree

pytestmark = pytest.mark.timeout(60)  # what hangs here is a defect


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def started(self, job: Job) -> None:
        self.events.append(("started", job.source.name))

    def advanced(self, job: Job, network_pixels: int) -> None:
        self.events.append(("advanced", network_pixels))

    def done(self, job: Job, seconds: float, notes: tuple[str, ...]) -> None:
        self.events.append(("done", job.source.name))

    def failed(self, failure: Failure) -> None:
        self.events.append(("failed", failure.source.name))

    def skipped(self, skip: Skip) -> None:
        self.events.append(("skipped", skip.source.name))

    def note(self, sentence: str) -> None:
        self.events.append(("note", sentence))

    def detail(self, sentence: str) -> None:
        self.events.append(("detail", sentence))

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.events if name == kind]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors", 4, features=4)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """in/ with five pictures."""
    for number, name in enumerate("abcde"):
        picture(tmp_path / "in" / f"{name}.png", 20 + number, 16, seed=number)
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    deadline = time.monotonic() + 5
    while [t for t in threading.enumerate() if t.name.startswith("srgan-")] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("srgan-")]


def session(source: Path, model: Path, **options: Any) -> Session:
    settings: dict[str, Any] = {
        "inputs": (source,),
        "output": source.parent / "out",
        "model": str(model),
        "engine": EngineOptions("cpu", "fp32", 32),
        **options,
    }
    return prepare(UpscaleOptions(**settings))


def results(folder: Path) -> set[str]:
    """The finished files; fails when anything else has been left there."""
    left = tree(folder) - {FILE_NAME}
    assert not [name for name in left if Path(name).name.startswith(".")], "something half-made was left"
    for name in left:
        with Pillow.open(folder / name) as result:
            result.load()
    return left


def pixels_of(path: Path) -> Any:
    with Pillow.open(path) as result:
        return np.asarray(result)


def raising(error: BaseException) -> Callable[..., Any]:
    def fault(*_args: object, **_options: object) -> None:
        raise error

    return fault


def test_every_picture_gets_its_own_result(five: Path, model: Path) -> None:
    watch = Recorder()
    report = session(five, model).run(watch)
    assert report.exit_code == 0
    assert results(five.parent / "out") == {"a.png", "b.png", "c.png", "d.png", "e.png"}
    upscaler = Upscaler(load_model(model), EngineOptions("cpu", "fp32", 32))
    for name in "abcde":
        low, high = pixels_of(five / f"{name}.png"), pixels_of(five.parent / "out" / f"{name}.png")
        assert np.abs(high.astype(int) - upscaler.upscale(low)).max() <= 1
    assert watch.of("started") == watch.of("done") == [f"{name}.png" for name in "abcde"]
    assert sum(watch.of("advanced")) == report.network_pixels == sum((20 + n) * 16 * 16 for n in range(5))
    assert report.output_pixels == report.network_pixels
    assert 0 < report.network_seconds <= report.seconds


def test_the_exact_size_is_made_by_resampling(five: Path, model: Path) -> None:
    session(five / "a.png", model, size=Size(scale=2.5), output=five.parent / "out.png").run(Recorder())
    assert pixels_of(five.parent / "out.png").shape == (40, 50, 3)


def test_the_tree_is_kept(five: Path, model: Path) -> None:
    picture(five / "deep/er/f.png")
    assert session(five, model, recursive=True).run(Recorder()).exit_code == 0
    assert "deep/er/f.png" in results(five.parent / "out")


def test_the_time_is_kept_when_asked(five: Path, model: Path) -> None:
    os.utime(five / "a.png", ns=(1_000_000_000, 1_234_567_890_000_000_000))
    session(five, model, write=WriteOptions(keep_time=True)).run(Recorder())
    assert (five.parent / "out/a.png").stat().st_mtime_ns == 1_234_567_890_000_000_000


# ------------------------------------------------------------------------------------------------------- bad pictures


@pytest.mark.parametrize("ahead", [True, False], ids=["read ahead", "read row by row"])
def test_one_bad_picture_in_the_middle(five: Path, model: Path, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (five / "c.png").unlink()
    cut_short(five / "c.jpg")
    if not ahead:
        monkeypatch.setattr(pipeline, "READ_AHEAD_BYTES", 0)
    watch = Recorder()
    report = session(five, model).run(watch)
    assert [job.source.name for job in report.done] == ["a.png", "b.png", "d.png", "e.png"]
    (failure,) = report.failures
    assert failure.source == five / "c.jpg"
    assert failure.unreadable
    assert watch.of("failed") == ["c.jpg"]
    assert report.exit_code == 1
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def test_a_picture_that_changed_after_the_plan(five: Path, model: Path) -> None:
    ready = session(five, model)
    picture(five / "b.png", 77, 5)
    (five / "d.png").unlink()
    report = ready.run(Recorder())
    assert {failure.source.name for failure in report.failures} == {"b.png", "d.png"}
    assert results(five.parent / "out") == {"a.png", "c.png", "e.png"}


def test_failures_of_the_plan_are_told_and_counted(five: Path, model: Path) -> None:
    (five / "bad.png").write_bytes(b"")
    watch = Recorder()
    report = session(five, model).run(watch)
    assert watch.events[0] == ("failed", "bad.png")
    assert len(report.done) == 5
    assert report.exit_code == 1


def test_fail_fast_begins_nothing_after_a_failure(five: Path, model: Path) -> None:
    (five / "c.png").unlink()
    cut_short(five / "c.jpg")
    watch = Recorder()
    report = session(five, model, fail_fast=True).run(watch)
    assert watch.of("started")[:2] == ["a.png", "b.png"]
    assert "d.png" not in watch.of("started")
    assert [job.source.name for job in report.done] == ["a.png", "b.png"], "what was finished is written"
    assert report.exit_code == 1
    assert results(five.parent / "out") == {"a.png", "b.png"}


# ------------------------------------------------------------------------------------------------- writers that fail


def test_a_disk_that_is_full_at_the_third_picture(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "encode", at_call(3, encode, disk_full))
    report = session(five, model).run(Recorder())
    (failure,) = report.failures
    assert failure.source.name == "c.png"
    assert "disk is full" in failure.reason
    assert not failure.unreadable
    assert report.exit_code == 1
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def test_a_disk_that_fills_while_a_picture_is_written(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = encode

    def half(pixels: Any, file: Any, *args: Any) -> Any:
        file.write(b"\x89PNG half")
        disk_full()

    monkeypatch.setattr(writing, "encode", at_call(3, real, half))
    report = session(five, model).run(Recorder())
    assert [failure.source.name for failure in report.failures] == ["c.png"]
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def test_a_disk_that_is_full_when_it_is_synced(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(source: str | Path, target: str | Path, **options: Any) -> None:
        if Path(target).name == "b.png":  # claims are links, too
            disk_full()
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "replace", disk_full)
    report = session(five, model).run(Recorder())
    assert [failure.source.name for failure in report.failures] == ["b.png"]
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_no_room_for_a_scratch_file(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.results.CANVAS_BYTES", 0)
    monkeypatch.setattr(os, "posix_fallocate", at_call(2, os.posix_fallocate, disk_full))
    report = session(five, model).run(Recorder())
    (failure,) = report.failures
    assert failure.source.name == "b.png"
    assert "disk is full" in failure.reason
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_a_result_that_was_there_survives_a_writer_that_fails(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = picture(five.parent / "out/c.png", 3, 3).read_bytes()
    monkeypatch.setattr(writing, "encode", at_call(3, encode, disk_full))
    session(five, model, overwrite=True).run(Recorder())
    assert (five.parent / "out/c.png").read_bytes() == old


def test_a_defect_in_the_writer_costs_one_picture(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "encode", at_call(2, encode, raising(ZeroDivisionError("a defect"))))
    tally = session(five, model, queue_bytes=1).run(Recorder())
    _reported_as_a_defect(tally, "b.png")
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_a_defect_in_the_reader_costs_one_picture(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = session(five, model)
    monkeypatch.setattr(intake, "open_picture", at_call(3, open_picture, raising(ZeroDivisionError("a defect"))))
    _reported_as_a_defect(ready.run(Recorder()), "c.png")
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def _reported_as_a_defect(tally: Tally, name: str) -> None:
    assert [failure.source.name for failure in tally.failures] == [name]
    assert tally.failures[0].kind is DefectError
    assert "Please report this sentence" in tally.failures[0].reason
    assert tally.exit_code == 1


def test_a_damaged_picture_is_made_when_that_is_accepted(five: Path, model: Path) -> None:
    whole = (five / "c.png").read_bytes()
    data = cut_short(five / "bad.jpg").read_bytes() + b"\xff\xd9"
    (five / "bad.jpg").write_bytes(data)
    refused = session(five, model).run(Recorder())
    assert ([f.source.name for f in refused.failures], refused.exit_code) == (["bad.jpg"], 1)
    assert "premature end" in refused.failures[0].reason
    watch = Recorder()
    accepted = session(five, model, accept_damaged=True, overwrite=True).run(watch)
    assert (len(accepted.done), len(accepted.damaged), accepted.exit_code) == (6, 1, 1)
    assert whole == (five / "c.png").read_bytes()
    again = session(five, model, accept_damaged=True, resume=True)
    assert [job.source.name for job in again.plan.jobs] == ["bad.jpg"]  # it is not forgotten that it was damaged


def test_a_picture_that_takes_too_long_is_given_up(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = session(five, model, timeout_s=0.5)
    slow = at_call(2, encode, lambda *a, **k: (time.sleep(0.7), writing_encode(*a, **k))[1])
    writing_encode = encode
    monkeypatch.setattr(writing, "encode", slow)
    tally = ready.run(Recorder())
    assert [failure.source.name for failure in tally.failures] == ["b.png"]
    assert "--timeout 0.5 seconds" in tally.failures[0].reason
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_a_slow_picture_is_warned_of_once() -> None:
    said: list[str] = []
    patience = Patience(None, 0.0, said.append)
    patience._spent = 31.0
    patience.check()
    patience.check()
    assert len(said) == 1
    assert "more than 10 times what was expected" in said[0]
    Patience(None, None, said.append).check()
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["started", "advanced", "done"])
def test_an_observer_that_fails_ends_the_run_and_is_no_pictures_fault(five: Path, model: Path, kind: str) -> None:
    """As when whoever reads `--json` goes away."""

    class Gone(Recorder):
        pass

    def gone(*_args: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    watch = Gone()
    setattr(watch, kind, gone)
    failed: list[Failure] = []
    cast(Any, watch).failed = failed.append
    with pytest.raises(BrokenPipeError):
        session(five, model, queue_bytes=1).run(watch)
    assert failed == []
    results(five.parent / "out")


# ----------------------------------------------------------------------------------------------- devices that fail


@pytest.mark.parametrize("error", [DeviceError("no"), OutOfMemoryError("no"), WeightsError("not finite")])
def test_a_device_that_fails_ends_the_run_and_what_was_done_is_kept(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(3, Upscaler.upscale_rows, raising(error)))
    report = session(five, model).run(Recorder())
    assert type(report.error) is type(error)
    assert report.exit_code == report.error.exit_code
    assert results(five.parent / "out") == {"a.png", "b.png"}


def test_weights_that_vanish_before_the_run(five: Path, model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(model.read_bytes())
    ready = session(five, own)
    own.unlink()
    report = ready.run(Recorder())
    assert isinstance(report.error, WeightsError)
    assert report.exit_code == 4


# ---------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("scratch", [False, True], ids=["in memory", "in a scratch file"])
def test_ctrl_c_while_the_second_picture_is_upscaled(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
) -> None:
    if scratch:
        monkeypatch.setattr("srgan_cli.upscaling.results.CANVAS_BYTES", 0)

    def half_way(upscaler: Upscaler, source: Any, out: Any, *, on_rows: Callable[[int], None], **_: Any) -> None:
        out[:8] = 1
        on_rows(2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(2, Upscaler.upscale_rows, half_way))
    report = session(five, model).run(Recorder())
    assert report.interrupted
    assert report.exit_code == 130
    assert results(five.parent / "out") <= {"a.png"}
    assert {job.source.name for job in report.done} == {Path(n).name for n in results(five.parent / "out")}


def test_ctrl_c_while_a_picture_is_encoded(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, real_run = threading.Event(), Upscaler.upscale_rows

    def slow(pixels: Any, file: Any, *args: Any) -> Any:
        encoding.set()
        for _ in range(500):
            file.write(b"x")
            time.sleep(0.01)
        raise AssertionError("it was not stopped")

    def interrupted(*_args: Any, **_options: Any) -> None:
        assert encoding.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "encode", slow)
    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(2, real_run, interrupted))
    began = time.monotonic()
    report = session(five, model).run(Recorder())
    assert report.exit_code == 130
    assert time.monotonic() - began < 4
    assert results(five.parent / "out") == set()


def test_ctrl_c_while_the_writer_catches_up(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_encode, calls = encode, []

    def late(*args: Any) -> Any:
        calls.append(1)
        time.sleep(0.2)  # by now everything else is done
        if len(calls) == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # where the kernel delivers Ctrl-C
            time.sleep(0.2)
        return real_encode(*args)

    monkeypatch.setattr(writing, "encode", late)
    report = session(five, model).run(Recorder())
    assert report.exit_code == 130
    assert len(report.done) < 5
    assert {f"{job.target.name}" for job in report.done} == results(five.parent / "out")


@pytest.mark.parametrize("scratch", [False, True], ids=["in memory", "in a scratch file"])
def test_resume_after_ctrl_c_gives_what_an_undisturbed_run_gives(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
) -> None:
    if scratch:
        monkeypatch.setattr("srgan_cli.upscaling.results.CANVAS_BYTES", 0)
    small = EngineOptions("cpu", "fp32", 4)
    session(five, model, output=five.parent / "plain", engine=small).run(Recorder())

    real, calls = Upscaler.upscale_rows, []

    def stopped(upscaler: Upscaler, source: Any, out: Any, *, on_rows: Callable[[int], None], **more: Any) -> None:
        calls.append(1)
        rows = []

        def count(number: int) -> None:
            on_rows(number)
            rows.append(number)
            if len(calls) == 3 and len(rows) == 2:
                raise KeyboardInterrupt

        real(upscaler, source, out, on_rows=count, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", stopped)
        first = session(five, model, engine=small, resume=True).run(Recorder())
    assert first.interrupted
    second = session(five, model, engine=small, resume=True).run(Recorder())
    assert second.exit_code == 0
    assert len(first.done) + len(second.done) == 5
    assert len(second.skips) == len(first.done)
    assert results(five.parent / "out") == results(five.parent / "plain")
    for name in "abcde":
        again, plain = (pixels_of(five.parent / f / f"{name}.png") for f in ("out", "plain"))
        assert np.abs(again.astype(int) - plain).max() <= 1


# ------------------------------------------------------------------------------------------------------- resources


@pytest.mark.parametrize("queue_bytes", [1, 5_000, 40_000, 1 << 30])
def test_no_more_bytes_are_held_than_allowed(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, queue_bytes: int
) -> None:
    peaks: dict[int, int] = {}

    class Watched(ByteBudget):
        def take(self, count: int) -> None:
            super().take(count)
            with self._changed:
                assert self._used <= self._limit or self._used == count, "one too large gets in only alone"
                peaks[self._limit] = max(peaks.get(self._limit, 0), self._used)

    monkeypatch.setattr(pipeline, "ByteBudget", Watched)
    report = session(five, model, queue_bytes=queue_bytes).run(Recorder())
    assert report.exit_code == 0
    assert set(peaks) == {queue_bytes // 2, queue_bytes}
    largest = 24 * 16 * 16 * 3
    assert peaks[queue_bytes] <= max(queue_bytes, largest)


def test_a_budget_gives_back_all_that_was_taken(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Watched(ByteBudget):
        def __init__(self, limit: int) -> None:
            super().__init__(limit)
            made.append(self)

    monkeypatch.setattr(pipeline, "ByteBudget", Watched)
    monkeypatch.setattr(writing, "encode", at_call(2, encode, disk_full))
    (five / "c.png").unlink()
    cut_short(five / "c.jpg")
    session(five, model, queue_bytes=1).run(Recorder())
    assert [budget._used for budget in made] == [0, 0]


def test_the_next_picture_is_read_while_one_is_upscaled(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = session(five, model)
    opened, real_open = threading.Semaphore(0), open_picture
    seen: list[list[bool]] = []

    def opening(*args: Any, **options: Any) -> Any:
        result = real_open(*args, **options)
        opened.release()
        return result

    real_run = Upscaler.upscale_rows

    def waiting(*args: Any, **options: Any) -> None:
        if not seen:
            seen.append([opened.acquire(timeout=10) for _ in range(2)])
        real_run(*args, **options)

    monkeypatch.setattr(intake, "open_picture", opening)
    monkeypatch.setattr(Upscaler, "upscale_rows", waiting)
    assert ready.run(Recorder()).exit_code == 0
    assert seen == [[True, True]]


def test_a_picture_is_written_while_the_next_is_upscaled(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, real_run, real_encode, calls, waited = threading.Event(), Upscaler.upscale_rows, encode, [], []

    def running(*args: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            second.set()
        real_run(*args, **options)

    def encoding(*args: Any, **options: Any) -> Any:
        waited.append(second.wait(10))
        return real_encode(*args, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", running)
    monkeypatch.setattr(writing, "encode", encoding)
    session(five, model).run(Recorder())
    assert all(waited)


def test_one_upscaler_serves_all_pictures(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = Upscaler.__init__

    def counted(self: Upscaler, *args: Any, **options: Any) -> None:
        made.append(1)
        real(self, *args, **options)

    monkeypatch.setattr(Upscaler, "__init__", counted)
    session(five, model).run(Recorder())
    assert len(made) == 1


def test_large_results_grow_in_scratch_files_that_vanish(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.results.CANVAS_BYTES", 0)
    seen: list[set[str]] = []
    real = Upscaler.upscale_rows

    def looking(*args: Any, **options: Any) -> None:
        seen.append({name for name in tree(five.parent / "out") if "scratch" in name})
        real(*args, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", looking)
    report = session(five, model).run(Recorder())
    assert report.exit_code == 0
    assert all(seen)
    assert len(results(five.parent / "out")) == 5


# ------------------------------------------------------------------------------------------------------ exit codes

_GOOD: Any = object()
_BAD = Failure(Path("x"), "why", UnreadablePictureError)
_UNWRITTEN = Failure(Path("y"), "why", PictureError)
_SKIP = Skip(Path("z"), Path("z2"), "done")


@pytest.mark.parametrize(
    ("tally", "code"),
    [
        (Tally(), 0),
        (Tally(done=[_GOOD]), 0),
        (Tally(skips=[_SKIP]), 0),
        (Tally(done=[_GOOD], skips=[_SKIP]), 0),
        (Tally(done=[_GOOD], failures=[_BAD]), 1),
        (Tally(skips=[_SKIP], failures=[_BAD]), 1),
        (Tally(failures=[_UNWRITTEN]), 1),
        (Tally(failures=[_BAD, _UNWRITTEN]), 1),
        (Tally(failures=[_BAD]), 3),
        (Tally(failures=[_BAD, _BAD]), 3),
        (Tally(interrupted=True), 130),
        (Tally(done=[_GOOD], failures=[_BAD], interrupted=True), 130),
    ],
)
def test_the_exit_code_follows_from_the_tally(tally: Tally, code: int) -> None:
    assert tally.exit_code == code


# ------------------------------------------------------------------------------------------------ signals, for real

_SLOWLY = """
import sys, time
from srgan_cli.upscaling.engine import Upscaler
real = Upscaler.upscale_rows
def slow(*args, **options):
    time.sleep(0.1)
    real(*args, **options)
Upscaler.upscale_rows = slow
from srgan_cli.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL],
    ids=["INT", "TERM", "HUP", "KILL"],
)
def test_a_run_that_is_killed_goes_on_with_resume(
    tmp_path: Path, model: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    many = {f"{i:02}.png" for i in range(20)}
    for i, name in enumerate(sorted(many)):
        picture(tmp_path / "in" / name, seed=i)
    out = tmp_path / "out"
    arguments = ["upscale", f"{tmp_path / 'in'}", "-o", f"{out}/", "-m", f"{model}", "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, "-c", _SLOWLY, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 150  # torch alone takes a while on a busy machine
    while not (out / "03.png").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    stdout, stderr = child.communicate(timeout=20)
    if number == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL
        for left in tree(out) - many - {FILE_NAME}:
            assert left.startswith("."), "nobody takes it for a picture"
    else:
        assert child.returncode == 130, stderr
        assert "interrupted" in stderr
        assert "Traceback" not in stderr
        assert tree(out) <= many | {FILE_NAME}
    assert stdout == ""

    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 4 <= len(done) < 20
    assert main([*arguments, "--resume", "--json"]) == 0
    assert {path.name for path in out.glob("*.png")} == many
    again = {name for name, when in done.items() if (out / name).stat().st_mtime_ns != when}
    # Between a result's last rename and the record's line a run may be killed; that one is made again.
    assert len(again) <= (1 if number == signal.SIGKILL else 0)
    assert capfd.readouterr().out.count('"event": "done"') == 20 - len(done) + len(again)
