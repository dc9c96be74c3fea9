"""Each worker has its next unit before its last one is over; what waits at a worker that dies has not been tried."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.upscaling.crew import dispatch
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.crew.messages import Advanced, Event, Pictures, Started, Strip, Unit, UnitEnded, WorkerLost
from srgan_cli.upscaling.crew.outstanding import Outstanding
from srgan_cli.upscaling.crew.roster import UNITS
from srgan_cli.upscaling.plan import Job
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import SPLIT, Deed, Killed, Threads, is_as_without_a_crew, session

pytestmark = pytest.mark.timeout(120)


class Watched(Threads):
    """Knows what each worker has, and how many units it had when it was given another."""

    def __init__(self, folder: Path, model: Path, count: int, deed: Deed, **options: Any) -> None:
        self.made = session(folder, model, **options)
        self.has: dict[str, deque[Unit]] = defaultdict(deque)
        self.given: list[tuple[str, int]] = []
        self.at_death: list[Unit] = []
        super().__init__(brief_of(self.made), tuple(f"cpu:{number}" for number in range(1, count + 1)), deed)

    def give(self, worker: str, unit: Unit) -> None:
        if isinstance(unit, (Pictures, Strip)):
            self.given.append((worker, len(self.has[worker])))
        self.has[worker].append(unit)
        super().give(worker, unit)

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        events = super().wait(seconds)
        for worker, event in events:
            if isinstance(event, WorkerLost):
                self.at_death += self.has.pop(worker)
            elif isinstance(event, UnitEnded):
                self.has[worker].popleft()
        return events


def slowly(name: str, number: int, job: Job) -> None:
    time.sleep(0.02)


def test_the_next_pictures_are_there_before_the_last_are_done(twelve: Path, model: Path) -> None:
    crew = Watched(twelve, model, 2, slowly)
    assert lead(crew.made, crew, Recorder()).exit_code == 0
    for worker in crew.workers():
        counts = [count for name, count in crew.given if name == worker]
        assert set(counts) <= set(range(UNITS))
        assert UNITS - 1 in counts
    assert is_as_without_a_crew(twelve, model)


def test_so_are_the_next_bands_except_the_last_ones(large: Path, model: Path) -> None:
    crew = Watched(large, model, 2, slowly, **SPLIT)
    assert lead(crew.made, crew, Recorder()).exit_code == 0
    counts = [count for _, count in crew.given]
    assert set(counts) == set(range(UNITS))
    assert counts[8] == counts[17] == 0, "an idle worker makes the last band"
    assert is_as_without_a_crew(large, model)


def test_what_waits_at_a_worker_that_dies_is_not_tried(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TRIES", 1)
    monkeypatch.setattr(dispatch, "_EARLY_SECONDS", 1e9)

    def deed(name: str, number: int, job: Job) -> None:
        time.sleep(0.05)
        if number == 3:
            raise Killed

    crew = Watched(twelve, model, 1, deed)
    tally = lead(crew.made, crew, Recorder())
    tried, waiting = crew.at_death
    assert isinstance(tried, Pictures)
    assert isinstance(waiting, Pictures)
    assert {failure.target for failure in tally.failures} <= {job.target for job in tried.jobs}
    assert 1 <= len(tally.failures) == 12 - len(tally.done)
    assert {job.target for job in waiting.jobs} <= {job.target for job in tally.done}


def test_one_that_waits_is_given_to_another_when_its_device_fails(twelve: Path, model: Path) -> None:
    outstanding = Outstanding()
    jobs = session(twelve, model).plan.jobs
    outstanding.give("one", jobs[:3])
    outstanding.give("one", jobs[3:5])
    assert outstanding.end_all("one") == [*jobs[:5]]
    assert not outstanding


def test_a_death_counts_against_what_was_begun(twelve: Path, model: Path) -> None:
    jobs = session(twelve, model).plan.jobs
    begun = Started(jobs[3].target, "", "", ("", ""))

    def dead(*ended: Job, began: bool = False) -> tuple[list[Job], list[Job]]:
        outstanding = Outstanding()
        outstanding.give("one", jobs[:2])
        outstanding.give("one", jobs[2:4])
        for job in ended:
            assert outstanding.pop("one", job.target) == job
        if began:
            outstanding.start("one", begun)
        return outstanding.end_dead("one")

    assert dead() == ([*jobs[:2]], [*jobs[2:4]])
    assert dead(jobs[0]) == ([jobs[1]], [*jobs[2:4]])
    tried, left = dead(jobs[0], jobs[1])
    assert (tried, left) == ([*jobs[2:4]], []), "that its first unit was over was never heard"
    tried, left = dead(jobs[0], began=True)
    assert ([job.target for job in tried], left) == ([job.target for job in jobs[1:4]], [])


def test_what_is_left_to_a_worker_becomes_less_as_it_advances(twelve: Path, model: Path) -> None:
    outstanding = Outstanding()
    first, second = session(twelve, model).plan.jobs[:2]
    outstanding.give("one", [first])
    outstanding.give("one", [second])
    assert outstanding.left("one") == first.network_pixels + second.network_pixels
    outstanding.advance("one", Advanced(first.target, first.network_pixels - 5))
    assert outstanding.left("one") == second.network_pixels + 5
    assert outstanding.end_first("one") == [first]
    assert outstanding.left("one") == second.network_pixels
    assert outstanding.pop("one", second.target) == second
    assert outstanding.end_first("one") == []
    assert not outstanding
