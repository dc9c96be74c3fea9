"""Workers as actors of a Ray cluster: one for each part of its cores or GPUs. Their number follows the cluster's
size."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srgan_cli.config import RayOptions
from srgan_cli.errors import DeviceError, SettingsError
from srgan_cli.extras import how_to_install
from srgan_cli.upscaling.crew.messages import Brief, Event, Said, StripComputed, Unit, UnitEnded, WorkerLost
from srgan_cli.upscaling.crew.roster import TRIES
from srgan_cli.upscaling.crew.weights_transfer import packed, unpacked

if TYPE_CHECKING:
    from types import ModuleType

_CONNECT_SECONDS = 20.0
_GROW_SECONDS = 10.0  # how often to check whether the cluster has room for more workers
_NOTE_SECONDS = 15.0  # without any worker, before the user is notified
_ROOM_SECONDS = 300.0  # without any worker, before the run ends: growing a cluster takes minutes
# Minimum interval between a worker's messages: each of Ray's messages costs the leading process up to 2 ms of its core.
_SAY_SECONDS = 1.0
# For glibc, which keeps large blocks only in the main arena, so that there should be one arena for all threads. It is
# read when a process starts. If Ray itself was started with it, workers use processes that Ray has started ahead;
# otherwise new ones, which takes a second.
_ARENAS = {"MALLOC_ARENA_MAX": "1"}


class _Actor:
    """A worker in one of Ray's processes: makes its units in order, and returns its events on request."""

    def __init__(self, brief: Brief, weights: dict[Path, bytes], threads: int) -> None:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))  # before torch is imported
        from srgan_cli.upscaling.crew.worker import Worker

        self._said: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._worker = Worker(unpacked(brief, weights), self._say)
        self._units: queue.SimpleQueue[tuple[Unit, int]] = queue.SimpleQueue()
        self._recalls = 0  # so far; units given before the last one are not made
        self._recalls_before = 0  # the current unit was given
        # In a thread, so that events can be sent while it works.
        threading.Thread(target=self._work, name="srgan-units", daemon=True).start()

    def ready(self) -> bool:
        """Returns when the worker has started; False if its process was not started with the required environment."""
        return all(os.environ.get(name) == value for name, value in _ARENAS.items())

    def do(self, unit: Unit) -> list[Event]:
        """Give a unit to an idle worker. Returns its first events."""
        self.do_next(unit)
        return self.more()

    def do_next(self, unit: Unit) -> None:
        """Give a unit to a worker that is busy."""
        self._units.put((unit, self._recalls))

    def recall(self) -> None:
        """End a band in progress, and make none of the units that have been given so far."""
        self._recalls += 1

    def more(self) -> list[Event]:
        """The next events, collected for a moment. (Ray's streams do not pass through `ray://`.)"""
        events = [self._said.get()]
        until = time.monotonic() + _SAY_SECONDS
        with contextlib.suppress(queue.Empty):
            while not isinstance(events[-1], UnitEnded):
                events.append(self._said.get(timeout=max(0.0, until - time.monotonic())))
        return events

    def _say(self, event: Event) -> None:
        self._said.put(event)
        if isinstance(event, StripComputed) and self._recalls_before != self._recalls:
            raise KeyboardInterrupt  # as if it had come from outside; in the thread that makes the band

    def _work(self) -> None:
        while True:
            unit, self._recalls_before = self._units.get()
            is_wanted = self._recalls_before == self._recalls
            self._said.put(self._worker.do(unit) if is_wanted else UnitEnded())


class Cluster:
    """A `Crew` on Ray. Raises `SettingsError` if Ray is missing, `DeviceError` if there is no such cluster."""

    sees_all = False

    def __init__(self, brief: Brief, options: RayOptions) -> None:
        self._ray = _ray()
        self._options = options
        self._began = False
        self._are_ready_made = options.address == "local" or _ARENAS.items() <= os.environ.items()
        if not self._ray.is_initialized():
            self._begin()
        device = "cuda" if options.gpus and brief.options.engine.device == "auto" else brief.options.engine.device
        engine = replace(brief.options.engine, device=device)
        # Once, for any number of workers.
        brief = replace(brief, options=replace(brief.options, engine=engine)).for_one_of(self._most_on_a_node())
        self._brief = self._ray.put(brief)
        self._luggage = self._ray.put(packed(brief))
        self._actors: dict[str, Any] = {}
        self._running: dict[str, Any] = {}  # the last request to each busy worker
        self._units: Counter[str] = Counter()  # number of units of each worker
        # Actors that have not answered yet, their answers, and whether they use processes that Ray had started ahead.
        self._starting: dict[str, tuple[Any, Any, bool]] = {}
        self._failed_starts = 0  # since the last successful one
        self._notes: list[tuple[str, Event]] = []  # for the user, with the next events
        self._count = 0
        self._checked = time.monotonic()
        self._alone_since: float | None = None  # while there is no worker yet
        self._is_noted = False
        for _ in range(max(1, self._room())):
            self._start()

    def workers(self) -> tuple[str, ...]:
        with _connected():
            if self._starting:
                self._admit()
            if time.monotonic() - self._checked > _GROW_SECONDS and self._failed_starts < TRIES:
                self._checked = time.monotonic()
                for _ in range(self._room() - len(self._actors) - len(self._starting)):
                    self._start()
        return tuple(self._actors)

    def awaited(self) -> int:
        return len(self._starting)

    def give(self, worker: str, unit: Unit) -> None:
        self._units[worker] += 1
        with _connected():
            if worker in self._running:  # whose answer arrives at the latest when its unit has ended
                self._actors[worker].do_next.remote(unit)
            else:
                self._running[worker] = self._actors[worker].do.remote(unit)

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        with _connected():
            return self._events(seconds)

    def _events(self, seconds: float) -> list[tuple[str, Event]]:
        notes, self._notes = self._notes, []
        if notes:
            return notes
        whose = {answer: worker for worker, answer in self._running.items()}
        if not whose:
            self._wait_for_starts(seconds)
            return [] if self._actors else self._wait_for_room()
        self._ray.wait(list(whose), num_returns=1, timeout=seconds)
        ready, _ = self._ray.wait(list(whose), num_returns=len(whose), timeout=0)
        return [(whose[answer], event) for answer in ready for event in self._heard(whose[answer], answer)]

    def renew(self, worker: str) -> bool:
        self._forget(worker)
        if len(self._actors) + len(self._starting) >= max(1, self._room()):
            return False
        self._start(worker)
        return True

    def leave_out(self, worker: str) -> None:
        self._forget(worker)

    def recall(self) -> None:
        for worker in self._running:
            self._actors[worker].recall.remote()

    def interrupt(self) -> None:
        """Ray cannot interrupt a thread, so the workers are ended; what they had begun is made again by the next
        run."""
        for worker in tuple(self._actors):
            if worker in self._running:
                self._ray.kill(self._actors[worker])

    def close(self) -> None:
        for worker in (*self._actors, *self._starting):
            self._forget(worker)
        if self._began:
            self._ray.shutdown()

    def _begin(self) -> None:
        address = self._options.address
        own: dict[str, Any] = {}
        if address == "local":  # also if another one exists
            own = {"include_dashboard": False, "num_cpus": _usable_cores()}
        _check_reachable(address)
        logging.getLogger("ray").setLevel(logging.ERROR)  # it warns that a thread cannot set signal handlers
        try:
            with _environment(address):
                self._ray.init(
                    address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False, **own
                )
        except Exception as err:  # a cluster that fails to start raises a plain RuntimeError
            what = "a Ray cluster cannot be started" if own else f"there is no Ray cluster at {address}"
            raise DeviceError(f"{what}: {' '.join(str(err).split()) or type(err).__name__}") from err
        self._began = True

    def _room(self) -> int:
        """How many workers the cluster has room for now."""
        return self._fitting(self._ray.cluster_resources())

    def _most_on_a_node(self) -> int:
        return max([1, *(self._fitting(node["Resources"]) for node in self._ray.nodes() if node["Alive"])])

    def _fitting(self, resources: dict[str, float]) -> int:
        """How many workers these resources are sufficient for."""
        room = int(resources.get("CPU", 0) // self._options.cpus)
        return min(room, int(resources.get("GPU", 0) // self._options.gpus)) if self._options.gpus else room

    def _start(self, name: str | None = None) -> None:
        if name is None:
            self._count += 1
            name = f"ray:{self._count}"
        actor = self._actor()
        self._starting[name] = actor, actor.ready.remote(), self._are_ready_made

    def _admit(self) -> None:
        """Actors that have answered become workers; an actor that the cluster has no room for now stays in the
        queue."""
        whose = {answer: name for name, (_, answer, _) in self._starting.items()}
        ready, _ = self._ray.wait(list(whose), num_returns=len(whose), timeout=0)
        for answer in ready:
            actor, _, was_ready_made = self._starting.pop(whose[answer])
            try:
                is_as_asked = self._ray.get(answer)
            except (self._ray.exceptions.RayError, ConnectionError) as err:
                self._failed_starts += 1
                if not (self._actors or self._starting):
                    raise DeviceError(f"no worker can be started on the Ray cluster: {_how(err)}") from err
                gives_up = "; no more are started" if self._failed_starts == TRIES else ""
                said = f"{whose[answer]} could not be started: {_how(err)}{gives_up}"
                self._notes.append(("ray", Said(said, detail=False)))
            else:
                self._failed_starts = 0
                if was_ready_made and not is_as_asked:
                    self._are_ready_made = False
                    self._ray.kill(actor)
                    self._start(whose[answer])
                else:
                    self._actors[whose[answer]] = actor
                    self._alone_since = None

    def _wait_for_starts(self, seconds: float) -> None:
        """Wait until a starting actor answers, or for a moment if there is none."""
        answers = [answer for _, answer, _ in self._starting.values()]
        if answers:
            self._ray.wait(answers, num_returns=1, timeout=seconds)
        else:
            time.sleep(min(seconds, 0.05))

    def _wait_for_room(self) -> list[tuple[str, Event]]:
        """While there is no worker: notify the user after a while, and give up after a long one."""
        self._alone_since = self._alone_since or time.monotonic()
        waited = time.monotonic() - self._alone_since
        needed = f"{self._options.cpus:g} CPU and {self._options.gpus:g} GPU"
        if waited > _ROOM_SECONDS:
            raise DeviceError(f"the Ray cluster had no room for a worker ({needed}) for {_ROOM_SECONDS:.0f} seconds")
        if waited < _NOTE_SECONDS or self._is_noted:
            return []
        self._is_noted = True
        return [("ray", Said(f"waiting for the Ray cluster to have room for a worker ({needed})", detail=False))]

    def _actor(self) -> Any:
        process = {} if self._are_ready_made else {"runtime_env": {"env_vars": _ARENAS}}
        remote = self._ray.remote(_Actor).options(
            num_cpus=self._options.cpus, num_gpus=self._options.gpus, max_restarts=0, **process
        )
        return remote.remote(self._brief, self._luggage, max(1, int(self._options.cpus)))

    def _heard(self, worker: str, answer: Any) -> list[Event]:
        """The events in a worker's answer; requests the next ones."""
        try:
            events: list[Event] = self._ray.get(answer)
        except (self._ray.exceptions.RayError, ConnectionError) as err:
            self._running.pop(worker, None)
            del self._units[worker]
            return [WorkerLost(_how(err))]
        self._units[worker] -= isinstance(events[-1], UnitEnded)
        if self._units[worker]:
            self._running[worker] = self._actors[worker].more.remote()
        else:
            self._running.pop(worker, None)
        return events

    def _forget(self, worker: str) -> None:
        self._running.pop(worker, None)
        del self._units[worker]
        starting, _, _ = self._starting.pop(worker, (None, None, False))
        actor = self._actors.pop(worker, starting)
        if actor is not None:
            with contextlib.suppress(Exception):  # it has already ended
                self._ray.kill(actor)


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Through `ray://`, every call fails once the connection is lost."""
    try:
        yield
    except ConnectionError as err:
        raise DeviceError(f"the connection to the Ray cluster is lost: {_how(err)}") from err


def _check_reachable(address: str) -> None:
    """Raise `DeviceError` if nothing answers at `host:port` or `ray://host:port`: Ray would try for minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or "/" in host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as err:
        why = (getattr(err, "strerror", None) or str(err)).lower()
        raise DeviceError(f"there is no Ray cluster at {address}: {why}") from err


def _usable_cores() -> int:
    """The cores this process may use; Ray itself counts all of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _environment(address: str) -> Iterator[None]:
    """The environment for the processes of this run's own cluster."""
    # Normal priority; Ray's own default is a lower one.
    more = {"RAY_worker_niceness": "0", **_ARENAS} if address == "local" else {}
    missing = {name: value for name, value in more.items() if name not in os.environ}
    os.environ |= missing
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


def _how(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return f"{type(err).__name__} ({lines[0][:200]})" if lines else type(err).__name__


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as err:
        raise SettingsError(f"--ray needs Ray: {how_to_install('ray')}") from err
    found: ModuleType = ray
    return found
