"""Workers that are processes of this machine, one for each device, or for each part of its cores.

Processes and not threads: one that dies takes no other along; Python's lock is not shared; and glibc keeps large blocks
in the main arena of a process only.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, cast

from srgan_cli.config import WorkerOptions
from srgan_cli.errors import DeviceError
from srgan_cli.upscaling.crew.messages import Brief, Event, Gone, Over, Unit

if TYPE_CHECKING:
    from srgan_cli.upscaling.crew.worker import Worker

_START = (
    "import sys; sys.path[:] = sys.argv[1:]; from srgan_cli.upscaling.crew.processes import serve; serve()"  # as here
)
_LENGTH_BYTES = 8
_END_SECONDS = 5.0


@dataclass(frozen=True)
class _Stop:
    """To a worker's process: end what you do, and begin nothing of what you have been given before."""


class ProcessCrew:
    """A `Crew` of processes: `options` says of which devices."""

    sees_all = True

    def __init__(self, brief: Brief, workers: tuple[WorkerOptions, ...]) -> None:
        self._brief = brief
        self._options = {one.name: one for one in workers}
        self._said: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self._processes = {name: self._start(name) for name in self._options}

    def workers(self) -> tuple[str, ...]:
        return tuple(self._processes)

    def awaited(self) -> int:
        return 0  # units wait in their pipes

    def give(self, worker: str, unit: Unit) -> None:
        with contextlib.suppress(OSError):  # it is gone, which its thread reports
            _send(cast("IO[bytes]", self._processes[worker].stdin), unit)

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        said: list[tuple[str, Event]] = []
        with contextlib.suppress(queue.Empty):
            said.append(self._said.get(timeout=seconds))
            while True:
                said.append(self._said.get_nowait())
        return [(worker, event) for worker, event in said if worker in self._processes]

    def renew(self, worker: str) -> bool:
        _end(self._processes[worker], 0.0)
        self._processes[worker] = self._start(worker)
        return True

    def leave_out(self, worker: str) -> None:
        _end(self._processes.pop(worker), _END_SECONDS)

    def interrupt(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(OSError):
                _send(cast("IO[bytes]", process.stdin), _Stop())

    def close(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(OSError):
                cast("IO[bytes]", process.stdin).close()
        for process in self._processes.values():
            _end(process, _END_SECONDS)
        self._processes.clear()

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        one = self._options[name]
        environment = dict(os.environ)
        if one.threads:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(one.threads))
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *filter(None, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the process that leads
        )
        options = replace(self._brief.options, engine=replace(self._brief.options.engine, device=one.device))
        with contextlib.suppress(OSError):
            _send(cast("IO[bytes]", process.stdin), replace(self._brief, options=options))
        threading.Thread(target=self._listen, args=(name, process), name=f"srgan-{name}", daemon=True).start()
        return process

    def _listen(self, name: str, process: subprocess.Popen[bytes]) -> None:
        pipe = cast("IO[bytes]", process.stdout)
        with pipe, contextlib.suppress(OSError, EOFError, pickle.UnpicklingError, ValueError):
            while True:
                self._said.put((name, cast("Event", _receive(pipe))))
        code = process.wait()
        if self._processes.get(name) is process:
            self._said.put((name, Gone(f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}")))


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    with contextlib.suppress(OSError):
        cast("IO[bytes]", process.stdin).close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _send(pipe: IO[bytes], message: object) -> None:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    pipe.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> object:
    """Raises `EOFError` when the other side is gone."""
    data = _read(pipe, int.from_bytes(_read(pipe, _LENGTH_BYTES), "big"))
    return pickle.loads(data)


def _read(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


class _Desk:
    """What a worker's process has to do: units wait here, and an order to stop reaches the one that is being made."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[tuple[Unit, int] | None] = queue.SimpleQueue()
        self._stops = 0  # so far; what was given before the last one is not begun
        self._is_working = False
        signal.signal(signal.SIGINT, self._interrupted)

    def listen(self, pipe: IO[bytes]) -> None:
        """Take in what the leading process sends, until it is gone."""
        with contextlib.suppress(EOFError, OSError):
            while True:
                message = cast("Unit | _Stop", _receive(pipe))
                if isinstance(message, _Stop):
                    self._stop()
                else:
                    self._todo.put((message, self._stops))
        self._todo.put(None)
        self._stop()

    def work(self, worker: Worker, say: Callable[[Event], None]) -> None:
        """Make the units, in the main thread, until the leading process is gone."""
        while (given := self._todo.get()) is not None:
            unit, stops = given
            over = Over()
            try:
                self._is_working = True
                if stops == self._stops:
                    over = worker.do(unit)
                self._is_working = False
            except KeyboardInterrupt:  # just before it began, or just after it ended
                self._is_working = False
            say(over)

    def _stop(self) -> None:
        self._stops += 1
        if hasattr(signal, "pthread_kill"):  # wakes the main thread, whatever it waits for
            signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def _interrupted(self, *_: object) -> None:
        if self._is_working:
            raise KeyboardInterrupt


def _speak(pipe: IO[bytes], events: queue.SimpleQueue[Event | None]) -> None:
    """Send what is said. By one thread, so that no interrupt cuts a message in two."""
    try:
        while (event := events.get()) is not None:
            _send(pipe, event)
    except OSError:  # nobody leads any more
        os._exit(1)


def serve() -> None:
    """The main function of a worker's process: units come by stdin, events go by stdout."""
    units, pipe = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not get in between
    desk = _Desk()
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    from srgan_cli.upscaling.crew.worker import Worker

    try:
        worker = Worker(cast("Brief", _receive(units)), events.put)
    except (EOFError, DeviceError):
        return
    threading.Thread(target=desk.listen, args=(units,), name="srgan-units", daemon=True).start()
    speaker = threading.Thread(target=_speak, args=(pipe, events), name="srgan-events", daemon=True)
    speaker.start()
    desk.work(worker, events.put)
    events.put(None)
    speaker.join()
