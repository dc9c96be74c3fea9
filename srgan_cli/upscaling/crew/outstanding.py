"""What each worker of a crew has been given and has not made yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.upscaling.crew.messages import Advanced, Started
from srgan_cli.upscaling.plan import Job


@dataclass
class _Given:
    """A job at a worker. `left`: its network px that are not made yet."""

    job: Job
    left: int
    is_started: bool = False


class Outstanding:
    """Units by worker, in the order in which they are made; a unit's jobs by target, without those that have ended."""

    def __init__(self) -> None:
        self._units: dict[str, deque[dict[Path, _Given]]] = {}

    def __bool__(self) -> bool:
        return bool(self._units)

    def give(self, worker: str, jobs: Iterable[Job]) -> None:
        unit = {job.target: _Given(job, job.network_pixels) for job in jobs}
        self._units.setdefault(worker, deque()).append(unit)

    def left(self, worker: str) -> int:
        """How many network px a worker has still to make."""
        return sum(given.left for unit in self._units.get(worker, ()) for given in unit.values())

    def job(self, worker: str, target: Path) -> Job | None:
        """The job with which a worker makes a target; None where it has none, or none any more."""
        found = self._find(worker, target)
        return None if found is None else found.job

    def start(self, worker: str, event: Started) -> Job | None:
        """The job that was begun, with the model that was chosen for it."""
        found = self._find(worker, event.target)
        if found is None:
            return None
        found.is_started = True
        found.job = replace(found.job, model=event.model, why=event.why, made_by=event.made_by)
        return found.job

    def advance(self, worker: str, event: Advanced) -> Job | None:
        """The job of which more is made."""
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
        """A worker's first unit has ended. Returns the jobs that are left of it."""
        units = self._units.get(worker)
        if units is None:
            return []
        left = [given.job for given in units.popleft().values()]
        if not units:
            del self._units[worker]
        return left

    def end_all(self, worker: str) -> list[Job]:
        """A worker makes none of its units any more. Returns the jobs that are left of them."""
        return [given.job for unit in self._units.pop(worker, ()) for given in unit.values()]

    def end_dead(self, worker: str) -> tuple[list[Job], list[Job]]:
        """The same of one that has died: the jobs of the unit that it was at, one of which may have been the reason,
        and the others, which it had not begun."""
        tried: list[Job] = []
        left: list[Job] = []
        for unit in self._units.pop(worker, ()):
            # What it said last may have been lost, so that it may have been further than it seems; but one of these
            # jobs has to count, or a picture that kills whoever makes it is tried for ever.
            is_begun = not tried or any(given.is_started for given in unit.values())
            (tried if is_begun else left).extend(given.job for given in unit.values())
        return tried, left

    def _find(self, worker: str, target: Path) -> _Given | None:
        found: Iterator[_Given] = (unit[target] for unit in self._units.get(worker, ()) if target in unit)
        return next(found, None)
