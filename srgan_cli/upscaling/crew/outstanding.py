"""Each worker's units that are not finished yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.upscaling.crew.messages import Advanced, Started
from srgan_cli.upscaling.plan import Job


@dataclass
class _Given:
    """A job given to a worker. `left`: its network px that are not done yet."""

    job: Job
    left: int
    is_started: bool = False


class Outstanding:
    """Units by worker, in the order in which they are made, with the unfinished jobs of each by target."""

    def __init__(self) -> None:
        self._units: dict[str, deque[dict[Path, _Given]]] = {}

    def __bool__(self) -> bool:
        return bool(self._units)

    def give(self, worker: str, jobs: Iterable[Job]) -> None:
        unit = {job.target: _Given(job, job.network_pixels) for job in jobs}
        self._units.setdefault(worker, deque()).append(unit)

    def left(self, worker: str) -> int:
        """How many network px a worker still has to make."""
        return sum(given.left for unit in self._units.get(worker, ()) for given in unit.values())

    def job(self, worker: str, target: Path) -> Job | None:
        """A worker's job for a target; None if it has none, or it has ended."""
        found = self._find(worker, target)
        return None if found is None else found.job

    def start(self, worker: str, event: Started) -> Job | None:
        """The job that was started, with its model."""
        found = self._find(worker, event.target)
        if found is None:
            return None
        found.is_started = True
        found.job = replace(found.job, model=event.model, why=event.why, made_by=event.made_by)
        return found.job

    def advance(self, worker: str, event: Advanced) -> Job | None:
        """The job that has made progress."""
        found = self._find(worker, event.target)
        if found is None:
            return None
        found.left = max(0, found.left - event.network_pixels)
        return found.job

    def pop(self, worker: str, target: Path | None) -> Job | None:
        """The job that has ended."""
        for unit in self._units.get(worker, ()):
            if target in unit:
                return unit.pop(target).job
        return None

    def end_first(self, worker: str) -> list[Job]:
        """A worker's first unit has ended. Returns its remaining jobs."""
        units = self._units.get(worker)
        if units is None:
            return []
        left = [given.job for given in units.popleft().values()]
        if not units:
            del self._units[worker]
        return left

    def end_all(self, worker: str) -> list[Job]:
        """All units of a worker have ended. Returns their remaining jobs."""
        return [given.job for unit in self._units.pop(worker, ()) for given in unit.values()]

    def end_dead(self, worker: str) -> tuple[list[Job], list[Job]]:
        """The same for a worker that has died: the jobs of its current unit, one of which may be the cause, and the
        others, which it had not started."""
        tried: list[Job] = []
        left: list[Job] = []
        for unit in self._units.pop(worker, ()):
            # Its last events may have been lost, so it may have been further than it seems. But one of these jobs has
            # to be counted, or a picture that kills its workers would be tried for ever.
            is_begun = not tried or any(given.is_started for given in unit.values())
            (tried if is_begun else left).extend(given.job for given in unit.values())
        return tried, left

    def _find(self, worker: str, target: Path) -> _Given | None:
        found: Iterator[_Given] = (unit[target] for unit in self._units.get(worker, ()) if target in unit)
        return next(found, None)
