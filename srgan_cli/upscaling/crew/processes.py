"""Workers as processes of this machine, one for each device, or for each part of its cores.

Processes instead of threads, because one that dies does not affect the others, Python's lock is not shared, and glibc
keeps large blocks only in a process's main arena.
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
from srgan_cli.upscaling.crew.messages import Brief, Event, Unit, UnitEnded, WorkerLost

if TYPE_CHECKING:
    from srgan_cli.upscaling.crew.worker import Worker

_START = (
    # as in this process
    "import sys; sys.path[:] = sys.argv[1:]; from srgan_cli.upscaling.crew.processes import serve; sys.exit(serve())"
)
_LENGTH_BYTES = 8
_END_SECONDS = 5.0


@dataclass(frozen=True)
class _Stop:
    """Message to a worker's process: stop the current unit, and start none of those given before."""


class ProcessCrew:
    """A `Crew` of processes: `options` lists their devices."""

    sees_all = True

    def __init__(self, brief: Brief, workers: tuple[WorkerOptions, ...]) -> None:
        self._brief = brief
        self._options = {one.name: one for one in workers}
        self._said: queue.SimpleQueue[tuple[str, Event]] = queue.SimpleQueue()
        self._units: dict[str, queue.SimpleQueue[bytes | None]] = {}  # on their way to each
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in self._options:
            self._start(name)

    def workers(self) -> tuple[str, ...]:
        return tuple(self._processes)

    def awaited(self) -> int:
        return 0  # units waiting in their pipes

    def give(self, worker: str, unit: Unit) -> None:
        self._units[worker].put(_packed(unit))

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        said: list[tuple[str, Event]] = []
        with contextlib.suppress(queue.Empty):
            said.append(self._said.get(timeout=seconds))
            while True:
                said.append(self._said.get_nowait())
        return [(worker, event) for worker, event in said if worker in self._processes]

    def renew(self, worker: str) -> bool:
        self._units.pop(worker).put(None)
        _end(self._processes[worker], 0.0)
        self._start(worker)
        return True

    def leave_out(self, worker: str) -> None:
        self._units.pop(worker).put(None)
        _end(self._processes.pop(worker), _END_SECONDS)

    def recall(self) -> None:
        self.interrupt()  # which ends no process

    def interrupt(self) -> None:
        for units in self._units.values():
            units.put(_packed(_Stop()))

    def close(self) -> None:
        for units in self._units.values():
            units.put(None)
        for process in self._processes.values():
            _end(process, _END_SECONDS)
        self._processes.clear()
        self._units.clear()

    def _start(self, name: str) -> None:
        one = self._options[name]
        environment = dict(os.environ)
        if one.threads:
            environment |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(one.threads))
        process = subprocess.Popen(
            [sys.executable, "-c", _START, *filter(None, sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is handled by the leading process
        )
        options = replace(self._brief.options, engine=replace(self._brief.options.engine, device=one.device))
        units: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        units.put(_packed(replace(self._brief, options=options)))
        self._units[name] = units
        self._processes[name] = process  # before its threads, which may find that it has ended already
        threading.Thread(target=_post, args=(process, units), name=f"srgan-{name}-units", daemon=True).start()
        threading.Thread(target=self._listen, args=(name, process), name=f"srgan-{name}", daemon=True).start()

    def _listen(self, name: str, process: subprocess.Popen[bytes]) -> None:
        pipe, how = cast("IO[bytes]", process.stdout), ""
        with pipe:
            try:
                while True:
                    self._said.put((name, cast("Event", _receive(pipe))))
            except (OSError, EOFError):
                pass
            except Exception as err:  # noqa: BLE001 - whatever it is, nobody would hear the worker any more
                how = f"a message that cannot be read ({type(err).__name__})"
                process.kill()
        code = process.wait()
        if self._processes.get(name) is process:
            self._said.put((name, WorkerLost(how or _ending(code))))


def _ending(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:  # most real-time signals have no name
        return f"signal {-code}"


def _post(process: subprocess.Popen[bytes], units: queue.SimpleQueue[bytes | None]) -> None:
    """Send units to a worker's process. By a thread of its own: one that was stopped reads nothing, and must not keep
    the others waiting."""
    pipe = cast("IO[bytes]", process.stdin)
    with contextlib.suppress(OSError):  # it is gone, which its other thread reports
        while (data := units.get()) is not None:
            _write(pipe, data)
    with contextlib.suppress(OSError):
        pipe.close()


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _packed(message: object) -> bytes:
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def _send(pipe: IO[bytes], message: object) -> None:
    _write(pipe, _packed(message))


def _write(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(len(data).to_bytes(_LENGTH_BYTES, "big"))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> object:
    """Raises `EOFError` if the other side has ended, and any other error for a message that cannot be read, such as
    `MemoryError`."""
    data = _read(pipe, int.from_bytes(_read(pipe, _LENGTH_BYTES), "big"))
    try:
        return pickle.loads(data)
    except (EOFError, OSError) as err:  # its own, not the pipe's
        raise pickle.UnpicklingError(str(err)) from err


def _read(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


class _UnitQueue:
    """A worker process's queue of units; an order to stop interrupts the current one."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[tuple[Unit, int] | None] = queue.SimpleQueue()
        self._stops = 0  # so far; units given before the last one are not started
        self._is_working = False
        self.is_deaf = False  # ended by a message that cannot be read
        signal.signal(signal.SIGINT, self._interrupted)

    def listen(self, pipe: IO[bytes]) -> None:
        """Receive the leading process's messages, until it ends."""
        try:
            while True:
                message = cast("Unit | _Stop", _receive(pipe))
                if isinstance(message, _Stop):
                    self._stop()
                else:
                    self._todo.put((message, self._stops))
        except (EOFError, OSError):
            pass
        except Exception:  # noqa: BLE001 - a unit that cannot be read: another worker tries it
            self.is_deaf = True
        self._todo.put(None)
        if not self.is_deaf:
            self._stop()

    def work(self, worker: Worker, say: Callable[[Event], None]) -> None:
        """Make the units, in the main thread, until the leading process ends."""
        while (given := self._todo.get()) is not None:
            unit, stops = given
            ended = UnitEnded()
            try:
                self._is_working = True
                if stops == self._stops:
                    ended = worker.do(unit)
                self._is_working = False
            except KeyboardInterrupt:  # just before it began, or just after it ended
                self._is_working = False
            say(ended)

    def _stop(self) -> None:
        self._stops += 1
        if hasattr(signal, "pthread_kill"):  # wakes the main thread from any wait
            signal.pthread_kill(cast("int", threading.main_thread().ident), signal.SIGINT)
        else:
            signal.raise_signal(signal.SIGINT)

    def _interrupted(self, *_: object) -> None:
        if self._is_working:
            raise KeyboardInterrupt


def _speak(pipe: IO[bytes], events: queue.SimpleQueue[Event | None]) -> None:
    """Send events, from one thread, so that no interrupt splits a message."""
    try:
        while (event := events.get()) is not None:
            _send(pipe, event)
    except Exception:  # noqa: BLE001 - the leading process has ended, or waits for an event that cannot be sent
        os._exit(1)


def serve() -> int:
    """The main function of a worker's process: units arrive on stdin, events are written to stdout. Returns the
    process's exit status: 1 if a message could not be read."""
    units, pipe = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # other output must not be mixed in
    todo = _UnitQueue()
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    from srgan_cli.upscaling.crew.worker import Worker

    try:
        worker = Worker(cast("Brief", _receive(units)), events.put)
    except (EOFError, DeviceError):
        return 0
    threading.Thread(target=todo.listen, args=(units,), name="srgan-units", daemon=True).start()
    speaker = threading.Thread(target=_speak, args=(pipe, events), name="srgan-events", daemon=True)
    speaker.start()
    todo.work(worker, events.put)
    events.put(None)
    speaker.join()
    return int(todo.is_deaf)
