"""Crews of real processes, which die, fail and are interrupted."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.config import EngineOptions, WorkerOptions
from srgan_cli.upscaling.crew import processes
from srgan_cli.upscaling.crew.lead import brief_of, crew_of, lead
from srgan_cli.upscaling.crew.messages import CheckAccess, Event, Unit, UnitEnded, WorkerLost
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import by_threads, is_as_without_a_crew, session, third_dies_and_fifth_fails
from tests.upscaling.pictures import picture, tree

pytestmark = pytest.mark.timeout(120)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_processes_that_die_and_fail_leave_nothing_undone(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (twelve / "count").mkdir()
    monkeypatch.setenv("SRGAN_TEST_COUNT", str(twelve / "count"))
    picture(twelve / "in" / "large.png", 60, 60)
    made = session(twelve, model, engine=EngineOptions("cpu:3x1", "fp32", 8), split_pixels=1000)
    made = replace(made, make=third_dies_and_fifth_fails)
    watch = Recorder()
    tally = lead(made, crew_of(brief_of(made)), watch)
    assert (tally.exit_code, len(tally.done), tally.failures) == (0, 13, [])
    assert any("has ended with signal SIGKILL" in note for note in watch.of("note"))
    assert any("is left out, and 2 others continue: a fault was injected" in note for note in watch.of("note"))
    assert is_as_without_a_crew(twelve, model)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 100
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_run_that_is_ended_goes_on_and_leaves_no_worker(twelve: Path, model: Path, number: signal.Signals) -> None:
    for more in range(60):
        picture(twelve / "in" / f"more{more}.png", 90, 90, seed=more)
    command = [sys.executable, "-m", "srgan_cli", "upscale", str(twelve / "in"), "-o", str(twelve / "out"), "--resume",
               "--model", str(model), "--scale", "2", "--device", "cpu:2x1", "--precision", "fp32", "--tile", "8",
               "-q"]  # fmt: skip
    process = subprocess.Popen(command)
    wait_for(lambda: len(list((twelve / "out").glob("*.png"))) >= 3)
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    workers = listed.stdout.split()
    process.send_signal(number)
    code = process.wait(60)
    assert code in (130, -9) or len(list((twelve / "out").glob("*.png"))) == 72
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    if number == signal.SIGINT:
        assert all(name.endswith(".png") or name == FILE_NAME for name in tree(twelve / "out"))
        assert not [name for name in tree(twelve / "out") if name.endswith(".part")]
    tally, _, _ = by_threads(session(twelve, model))
    assert (tally.exit_code, tally.failures) == (0, [])
    assert is_as_without_a_crew(twelve, model)


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_what_somebody_puts_under_a_name_that_a_killed_run_had_begun_is_left_alone(twelve: Path, model: Path) -> None:
    command = [sys.executable, "-m", "srgan_cli", "upscale", str(twelve / "in"), "-o", str(twelve / "out"), "--resume",
               "--model", str(model), "--scale", "2", "--device", "cpu:1x1", "--tile", "8", "-q"]  # fmt: skip
    process = subprocess.Popen(command)
    record = twelve / "out" / FILE_NAME
    wait_for(lambda: record.exists() and len(list((twelve / "out").glob("*.png"))) >= 1)
    process.kill()
    process.wait()
    wait_for(lambda: not list((twelve / "out").glob("*.part")))
    begun = {json.loads(row)["target"] for row in record.read_text().splitlines() if row}
    missing = sorted(name for name in begun if not (twelve / "out" / name).exists())
    if not missing:
        pytest.skip("it was killed between two pictures")
    mine = picture(twelve / "out" / missing[0], 30, 30)
    before = mine.read_bytes()
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert f"{missing[0]} exists, but no earlier run made it" in " ".join(refused.stderr.split())
    assert mine.read_bytes() == before
    mine.unlink()
    assert subprocess.run(command, check=False).returncode == 0
    assert len(list((twelve / "out").glob("*.png"))) == 12


@pytest.mark.parametrize(
    ("script", "how"), [("raise SystemExit(3)", "code 3"), ("import os; os.kill(os.getpid(), 40)", "signal 40")]
)
def test_workers_that_end_at_once_are_noticed(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch, script: str, how: str
) -> None:
    """The first one before the last one has been started."""
    real, started = subprocess.Popen, list[object]()

    def popen(*args: Any, **options: Any) -> Any:
        time.sleep(0.5 if started else 0)
        started.append(args)
        return real(*args, **options)

    monkeypatch.setattr(processes, "_START", script)
    monkeypatch.setattr(subprocess, "Popen", popen)
    workers = (WorkerOptions("cpu:1", "cpu"), WorkerOptions("cpu:2", "cpu"))
    crew = processes.ProcessCrew(brief_of(session(twelve, model)), workers)
    said: list[tuple[str, Event]] = []
    until = time.monotonic() + 60
    while len(said) < 2 and time.monotonic() < until:
        said += crew.wait(0.2)
    crew.close()
    assert sorted(said, key=str) == [("cpu:1", WorkerLost(how)), ("cpu:2", WorkerLost(how))]


class Unreadable:
    """A message whose receiver has too little memory for it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _too_large, ()


def _too_large() -> None:
    raise MemoryError


_UNREADABLE = """
import sys, time
from srgan_cli.upscaling.crew import processes
from tests.upscaling.crew.test_processes import Unreadable
processes._send(sys.stdout.buffer, Unreadable())
time.sleep(100)
"""


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (_UNREADABLE, "MemoryError"),
        ("import os, time; os.write(1, bytes(7) + b'\\2no'); time.sleep(100)", "UnpicklingError"),
        ("import os, time; os.write(1, bytes(7) + b'\\1\\x80'); time.sleep(100)", "UnpicklingError"),
        ("import os, time; os.write(1, b'Ray: ok. '); time.sleep(100)", ""),
    ],
    ids=["memory", "garbage", "cut short", "length"],
)
def test_a_worker_whose_message_cannot_be_read_is_lost_and_ended(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str
) -> None:
    monkeypatch.setattr(processes, "_START", f"import sys; sys.path[:] = sys.argv[1:]\n{script}")
    crew = processes.ProcessCrew(brief_of(session(twelve, model)), (WorkerOptions("cpu:1", "cpu"),))
    process = crew._processes["cpu:1"]
    ((worker, lost),) = crew.wait(60)
    assert isinstance(lost, WorkerLost)
    assert (worker, lost.how.startswith("a message that cannot be read (")) == ("cpu:1", True)
    assert error in lost.how
    assert process.poll() == -signal.SIGKILL
    crew.close()


def test_a_worker_that_cannot_read_a_unit_ends_after_the_others(twelve: Path, model: Path) -> None:
    crew = crew_of(brief_of(session(twelve, model, engine=EngineOptions("cpu:1x1", "fp32", 8))))
    (worker,) = crew.workers()
    crew.give(worker, CheckAccess(None, None))
    crew.give(worker, Unreadable())  # type: ignore[arg-type]
    said: list[Event] = []
    while len(said) < 3:
        said += [event for _, event in crew.wait(60)]
    crew.close()
    assert said[1:] == [UnitEnded(), WorkerLost("code 1")]


def test_a_worker_that_cannot_send_an_event_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsendable:
        def __reduce__(self) -> tuple[Any, ...]:
            raise MemoryError

    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    events.put(Unsendable())
    processes._speak(io.BytesIO(), events)
    assert codes == [1]


class Patient:
    """In the place of a worker: makes units until it is interrupted."""

    def __init__(self) -> None:
        self.begun: list[Unit] = []
        self.may_end = threading.Event()

    def do(self, unit: Unit) -> UnitEnded:
        self.begun.append(unit)
        try:
            assert self.may_end.wait(60)
        except KeyboardInterrupt:
            return UnitEnded(network_pixels=-1)
        return UnitEnded(network_pixels=1)


def test_an_order_to_stop_ends_what_is_made_and_what_waits_and_nothing_later() -> None:
    before = signal.getsignal(signal.SIGINT)
    reader, writer = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    first, second, third = (CheckAccess(Path(name), None) for name in "abc")
    worker, said = Patient(), list[Event]()

    def lead() -> None:
        for message in (first, second):
            processes._send(writer, message)
        wait_for(lambda: worker.begun == [first])
        processes._send(writer, processes._Stop())
        wait_for(lambda: len(said) == 2)
        worker.may_end.set()
        processes._send(writer, third)
        wait_for(lambda: len(said) == 3)
        writer.close()

    try:
        todo = processes._UnitQueue()
        threading.Thread(target=todo.listen, args=(reader,), daemon=True).start()
        leading = threading.Thread(target=lead)
        leading.start()
        todo.work(worker, said.append)  # type: ignore[arg-type]
        leading.join()
    finally:
        signal.signal(signal.SIGINT, before)
        reader.close()
    assert worker.begun == [first, third]
    assert said == [UnitEnded(network_pixels=-1), UnitEnded(), UnitEnded(network_pixels=1)]


def test_a_stopped_worker_blocks_no_other(twelve: Path, model: Path) -> None:
    """It reads nothing, and a pipe holds 64 KiB."""
    made = session(twelve, model, engine=EngineOptions("cpu:1x1", "fp32", 8))
    crew = crew_of(brief_of(made))
    assert isinstance(crew, processes.ProcessCrew)
    (worker,) = crew.workers()
    process = crew._processes[worker]
    try:
        process.send_signal(signal.SIGSTOP)
        for _ in range(2):
            crew.give(worker, CheckAccess(None, (twelve / "none", "x" * 200_000)))
        assert crew.wait(0.1) == []
        process.send_signal(signal.SIGCONT)
        said: list[Event] = []
        while len(said) < 4:  # two answers, and that each is over
            said += [event for _, event in crew.wait(1.0)]
    finally:
        process.kill()
        crew.close()
