"""Workers on Ray, with a stand-in for Ray whose actors are threads of this process; real ones are in `test_cluster`."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from srgan_cli.config import RayOptions
from srgan_cli.errors import DeviceError, PictureError
from srgan_cli.upscaling.crew import cluster, large
from srgan_cli.upscaling.crew.cluster import Cluster
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.crew.messages import CheckAccess, Event, Said, StripComputed, UnitEnded, WorkerLost
from srgan_cli.upscaling.crew.roster import Roster
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import SPLIT, session
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.timeout(120)


class RayError(Exception):
    """As Ray's."""


class Actor:
    """A process with one actor: calls run in order; killed, they fail."""

    def __init__(self, made: Callable[[], Any]) -> None:
        self.calls: list[str] = []
        self.is_killed = False
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._made = self._pool.submit(made)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *args: self._pool.submit(self._call, name, args))

    def _call(self, name: str, args: Sequence[Any]) -> Any:
        if self.is_killed:
            raise RayError("the actor died")
        self.calls.append(name)
        try:
            return getattr(self._made.result(), name)(*args)
        except Exception as err:
            raise RayError(str(err)) from err


class FakeRay:
    """The part of Ray that `Cluster` uses. `starts`: what happens when the actor of that number starts."""

    exceptions = SimpleNamespace(RayError=RayError)

    def __init__(self, cpus: int = 2) -> None:
        self.actors: list[Actor] = []
        self.cpus = cpus
        self.starts: dict[int, Callable[[], None]] = {}

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cpus)}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Resources": self.cluster_resources(), "Alive": True}]

    def put(self, value: Any) -> Any:
        return value

    def get(self, answer: concurrent.futures.Future[Any]) -> Any:
        return answer.result()

    def wait(self, answers: Sequence[concurrent.futures.Future[Any]], num_returns: int, timeout: float) -> Any:
        when = concurrent.futures.FIRST_COMPLETED if num_returns == 1 else concurrent.futures.ALL_COMPLETED
        done, left = concurrent.futures.wait(answers, timeout, when)
        return list(done), list(left)

    def kill(self, actor: Actor) -> None:
        actor.is_killed = True

    def remote(self, kind: Callable[..., Any]) -> Any:
        def options(**_options: Any) -> Any:
            return SimpleNamespace(remote=lambda *args: self._started(lambda: kind(*args)))

        return SimpleNamespace(options=options)

    def _started(self, made: Callable[[], Any]) -> Actor:
        start = self.starts.get(len(self.actors) + 1, lambda: None)

        def begin() -> Any:
            start()
            return made()

        self.actors.append(Actor(begin))
        return self.actors[-1]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    fake = FakeRay()
    monkeypatch.setattr(cluster, "_ray", lambda: fake)
    return fake


def fails() -> None:
    raise OSError("no such library")


def sentences(crew: Cluster, count: int) -> list[str]:
    """What the user is told while `count` notes are waited for."""
    said: list[tuple[str, Event]] = []
    until = time.monotonic() + 30
    while len(said) < count and time.monotonic() < until:
        crew.workers()
        said += crew.wait(0.05)
    return [event.sentence for _, event in said if isinstance(event, Said) and not event.detail]


def inject_fault(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None] = lambda: None) -> None:
    """Once a band of a.png has been made."""
    real = large._Making._take_in

    def take_in(making: Any, worker: str, event: Event, out: Any) -> None:
        real(making, worker, event, out)
        if making._job.source.name == "a.png" and making._ready:
            before()
            raise PictureError("a fault was injected")

    monkeypatch.setattr(large._Making, "_take_in", take_in)


def test_an_error_in_a_large_picture_costs_only_that_picture(
    large_pictures: Path, model: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_fault(monkeypatch)
    made = session(large_pictures, model, **SPLIT)
    watch = Recorder()
    tally = lead(made, Cluster(brief_of(made), RayOptions()), watch)
    assert [failure.source.name for failure in tally.failures] == ["a.png"]
    assert [job.source.name for job in tally.done] == ["b.png", "c.png"]
    assert len(ray.actors) == 2, "none was replaced"
    assert not watch.of("note")


def test_a_recalled_worker_ends_its_band_and_drops_the_next_one(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    begun = threading.Event()

    class Endless:
        """A worker whose band would never end."""

        def __init__(self, _brief: object, say: Callable[[Event], None]) -> None:
            self._say = say

        def do(self, unit: object) -> UnitEnded:
            if isinstance(unit, CheckAccess):
                return UnitEnded(network_pixels=1)
            begun.set()
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(0.01)
                    self._say(StripComputed(0, 1))
            return UnitEnded(network_pixels=-1)

    monkeypatch.setattr("srgan_cli.upscaling.crew.worker.Worker", Endless)
    actor = cluster._Actor(brief_of(session(twelve, model)), {}, 1)
    strip: Any = object()
    actor.do_next(strip)
    actor.do_next(strip)
    assert begun.wait(10)
    actor.recall()
    actor.do_next(CheckAccess(None, None))
    ended: list[Event] = []
    while len(ended) < 3:
        ended += [event for event in actor.more() if isinstance(event, UnitEnded)]
    assert ended == [UnitEnded(network_pixels=-1), UnitEnded(), UnitEnded(network_pixels=1)]


def test_a_worker_that_ends_while_a_picture_is_given_up_is_replaced(
    large_pictures: Path, model: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next picture would wait for it."""

    def kill_all() -> None:
        for actor in ray.actors:
            ray.kill(actor)

    inject_fault(monkeypatch, before=kill_all)
    made = session(large_pictures, model, **SPLIT)
    watch = Recorder()
    tally = lead(made, Cluster(brief_of(made), RayOptions()), watch)
    assert ([failure.source.name for failure in tally.failures], len(tally.done)) == (["a.png"], 2)
    assert all("another takes its place" in note for note in watch.of("note"))


@pytest.fixture
def large_pictures(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        picture(tmp_path / "in" / f"{name}.png", 40, 70, seed=number)
    return tmp_path


def test_a_start_that_failed_is_told(twelve: Path, model: Path, ray: FakeRay) -> None:
    ray.starts = {2: fails}
    crew = Cluster(brief_of(session(twelve, model)), RayOptions())
    assert sentences(crew, 1) == ["ray:2 could not be started: RayError (no such library)"]
    Roster(crew, Recorder()).await_one()
    assert crew.workers() == ("ray:1",)
    crew.close()


def test_when_no_more_starts_are_tried_is_told_too(
    twelve: Path, model: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray.cpus = 4
    ray.starts = dict.fromkeys((2, 3, 4), fails)
    crew = Cluster(brief_of(session(twelve, model)), RayOptions())
    until = time.monotonic() + 30
    while not crew.workers() and time.monotonic() < until:
        time.sleep(0.01)
    told = sentences(crew, 3)
    assert len(told) == 3
    assert sum(sentence.endswith("; no more are started") for sentence in told) <= 1
    monkeypatch.setattr(cluster, "_GROW_SECONDS", 0.0)
    crew._failed_starts = 3
    crew.workers()
    assert len(ray.actors) == 4
    crew.close()


def test_a_start_that_fails_alone_ends_the_run(twelve: Path, model: Path, ray: FakeRay) -> None:
    ray.cpus = 1
    ray.starts = {1: fails}
    crew = Cluster(brief_of(session(twelve, model)), RayOptions())
    with pytest.raises(DeviceError, match="no worker can be started on the Ray cluster: RayError"):
        sentences(crew, 1)
    crew.close()


def test_a_connection_that_is_lost_ends_the_run(
    twelve: Path, model: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = session(twelve, model)
    crew = Cluster(brief_of(made), RayOptions())

    def lost(*_args: Any, **_options: Any) -> Any:
        raise ConnectionError("Client is shutting down.")

    Roster(crew, Recorder()).await_one()
    crew.give(crew.workers()[0], CheckAccess(None, None))
    monkeypatch.setattr(ray, "wait", lost)
    with pytest.raises(DeviceError, match=r"the connection to the Ray cluster is lost: ConnectionError \(Client is"):
        crew.wait(1.0)
    crew.close()


def test_a_worker_whose_answer_fails_is_lost(twelve: Path, model: Path, ray: FakeRay) -> None:
    crew = Cluster(brief_of(session(twelve, model)), RayOptions())
    Roster(crew, Recorder()).await_one()
    worker = crew.workers()[0]
    for actor in ray.actors:
        ray.kill(actor)
    crew.give(worker, CheckAccess(None, None))
    events: list[tuple[str, Event]] = []
    while not events:
        events = crew.wait(1.0)
    assert events == [(worker, WorkerLost("RayError (the actor died)"))]
    crew.close()
