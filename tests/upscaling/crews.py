"""Crews whose workers are threads, runs with them, and failing networks."""

from __future__ import annotations

import functools
import os
import queue
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from srgan_cli.config import EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError
from srgan_cli.sizes import Size
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.crew.messages import Brief, Event, Unit, WorkerLost
from srgan_cli.upscaling.crew.worker import Worker
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.session import Session, load_upscaler
from tests.upscaling.batch import runs
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.pictures import tree

SPLIT: dict[str, Any] = {"split_pixels": 1000}  # so that the pictures of `large` are divided among all workers

Deed = Callable[[str, int, Job], None]  # by whom, the how manieth piece of work of all, and what


class Killed(BaseException):
    """Simulates a killed worker process."""


class Threads:
    """A `Crew`. `deed` happens before each picture or band that a worker makes."""

    sees_all = True

    def __init__(self, brief: Brief, names: tuple[str, ...], deed: Deed = lambda *_: None) -> None:
        self._brief, self._deed = brief, deed
        self._said: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self._units: dict[str, queue.SimpleQueue[Unit | None]] = {}
        self._lock, self._works = threading.Lock(), 0
        self.units: list[tuple[str, Unit]] = []
        self.replaced: list[str] = []
        for name in names:
            self._start(name)

    def workers(self) -> tuple[str, ...]:
        return tuple(self._units)

    def awaited(self) -> int:
        return 0

    def give(self, worker: str, unit: Unit) -> None:
        self.units.append((worker, unit))
        self._units[worker].put(unit)

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        try:
            said = self._said.get(timeout=seconds)
            return [said] if said[0] in self._units else []
        except queue.Empty:
            return []

    def renew(self, worker: str) -> bool:
        self.replaced.append(worker)
        self._start(worker)
        return True

    def leave_out(self, worker: str) -> None:
        self._units.pop(worker).put(None)

    def recall(self) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None:
        for worker in self.workers():
            self.leave_out(worker)

    def _start(self, name: str) -> None:
        units: queue.SimpleQueue[Unit | None] = queue.SimpleQueue()
        self._units[name] = units
        threading.Thread(target=self._work, args=(name, units), name=f"srgan-{name}", daemon=True).start()

    def _work(self, name: str, units: queue.SimpleQueue[Unit | None]) -> None:
        def make(session: Session, job: Job, note: Callable[[str], None]) -> Upscaler:
            return before_each(load_upscaler(session, job, note), lambda: self._count(name, job))

        worker = Worker(
            Brief(self._brief.options, self._brief.selections, self._brief.settings_key, make),
            lambda event: self._said.put((name, event)),
        )
        try:
            while (unit := units.get()) is not None:
                self._said.put((name, worker.do(unit)))
        except Killed:
            self._said.put((name, WorkerLost("signal SIGKILL")))

    def _count(self, name: str, job: Job) -> None:
        with self._lock:
            self._works += 1
            number = self._works
        self._deed(name, number, job)


def session(folder: Path, model: Path, **options: Any) -> Session:
    """A run from the folder's `in` to its `out`."""
    return runs.session(
        folder / "in",
        model,
        **{"engine": EngineOptions("cpu", "fp32", 8), "resume": True, "size": Size(scale=2), **options},
    )


def by_threads(made: Session, deed: Deed = lambda *_: None, *, count: int = 2) -> tuple[Tally, Recorder, Threads]:
    crew = Threads(brief_of(made), tuple(f"cpu:{number}" for number in range(1, count + 1)), deed)
    watch = Recorder()
    return lead(made, crew, watch), watch, crew


_ALONE: dict[tuple[object, ...], tuple[set[str], dict[str, bytes]]] = {}


def is_as_without_a_crew(folder: Path, model: Path, **options: Any) -> bool:
    """The results of a single process for the same pictures, computed once for all tests."""
    pictures = tuple((path.name, path.read_bytes()) for path in sorted((folder / "in").rglob("*.*")))
    key = (model, repr(sorted(options.items())), pictures)
    if key not in _ALONE:
        alone = folder / "alone"
        assert not session(folder, model, output=alone, **options).run(Recorder()).failures
        _ALONE[key] = tree(alone), {path.name: path.read_bytes() for path in alone.glob("*.png")}
    names, results = _ALONE[key]
    assert tree(folder / "out") == names
    return all((folder / "out" / name).read_bytes() == data for name, data in results.items())


def before_each(upscaler: Upscaler, deed: Callable[[], None]) -> Upscaler:
    rows, strip = upscaler.upscale_rows, upscaler.upscale_strip

    def upscale_rows(*args: Any, **options: Any) -> None:
        deed()
        rows(*args, **options)

    def upscale_strip(*args: Any) -> None:
        deed()
        strip(*args)

    upscaler.upscale_rows = upscale_rows  # type: ignore[method-assign]
    upscaler.upscale_strip = upscale_strip  # type: ignore[method-assign, assignment]
    return upscaler


# ---------------------------------------------------------------- for processes: found by name, counted in a folder


def _number(what: str) -> int:
    """How often this has happened, in all processes."""
    for number in range(1, 1000):
        try:
            path = os.path.join(os.environ["SRGAN_TEST_COUNT"], f"{what}-{number}")  # noqa: PTH118
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            return number
        except FileExistsError:
            continue
    raise AssertionError("too often")


def third_dies_and_fifth_fails(session: Session, job: Job, note: Callable[[str], None]) -> Upscaler:
    """The worker that starts the third piece of work overall is killed; the device of the fifth piece fails."""

    def deed() -> None:
        number = _number("work")
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 5:
            raise DeviceError("a fault was injected")

    return before_each(load_upscaler(session, job, note), deed)


def dies_of_width(width: int) -> Callable[[Session, Job, Callable[[str], None]], Upscaler]:
    """A maker of networks whose process is killed by a result of that width."""
    return functools.partial(_mortal, width)


def _mortal(width: int, session: Session, job: Job, note: Callable[[str], None]) -> Upscaler:
    upscaler = load_upscaler(session, job, note)
    rows = upscaler.upscale_rows

    def upscale_rows(source: Any, out: Any, **options: Any) -> None:
        if out.shape[1] == width:
            os.kill(os.getpid(), signal.SIGKILL)
        rows(source, out, **options)

    upscaler.upscale_rows = upscale_rows  # type: ignore[method-assign]
    return upscaler
