"""The workers of a crew: which ones are busy, and how failures are handled."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Set
from typing import TypeVar

from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.upscaling.crew.messages import Crew, Event, Said, Unit, UnitEnded, WorkerLost
from srgan_cli.upscaling.observer import Observer

_POLL_SECONDS = 0.5
TRIES = 3  # workers that may die on a piece of work before it counts as failed
UNITS = 2  # units that a worker may have: one in progress, and the next
_T = TypeVar("_T")


class Roster:
    """A crew, and the state of its workers. Raises `DeviceError` or `WeightsError` if none is left.

    The data exchanged with workers that do not see the files (pictures and rows) is limited: `freight_bytes` at a time,
    in transit or waiting at a worker, or one larger unit.
    """

    def __init__(self, crew: Crew, observer: Observer, freight_bytes: int = 1 << 62) -> None:
        self.crew = crew
        self._observer = observer
        self._freight_bytes = freight_bytes
        self._freight: dict[str, deque[int]] = {}  # of each unit of a worker, in order
        self._deaths: Counter[str] = Counter()
        self._reported: set[str] = set()

    @property
    def count(self) -> int:
        """How many workers exist, or will soon."""
        return len(self.crew.workers()) + self.crew.awaited()

    def await_one(self) -> None:
        """Return as soon as there is a worker."""
        while not self.crew.workers():
            self.wait(_POLL_SECONDS)

    @property
    def busy(self) -> Set[str]:
        """Workers that have a unit."""
        return self._freight.keys()

    def idle(self) -> list[str]:
        return [worker for worker in self.crew.workers() if worker not in self._freight]

    def free(self) -> list[str]:
        """Workers that may get another unit, idle ones first."""
        found = [one for one in self.crew.workers() if len(self._freight.get(one, ())) < UNITS]
        return sorted(found, key=lambda one: one in self._freight)

    def reserve(self, worker: str, freight: int) -> bool:
        """Reserve a worker for a unit with this many bytes to transfer, there and back; False if that exceeds the
        limit."""
        under_way = sum(map(sum, self._freight.values())) if freight else 0
        if under_way and under_way + freight > self._freight_bytes:
            return False
        self._freight.setdefault(worker, deque()).append(freight)
        return True

    def release(self, worker: str) -> None:
        """Cancel the reservation of a worker."""
        self._freight[worker].pop()
        self._drop_idle(worker)

    def give(self, worker: str, unit: Unit) -> None:
        """Give a unit without data to an idle worker."""
        self.reserve(worker, 0)
        self.hand(worker, unit)

    def hand(self, worker: str, unit: Unit) -> None:
        """Give a unit to the worker reserved for it."""
        self.crew.give(worker, unit)

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        """Events for the caller. `UnitEnded` and `WorkerLost` have been handled here, except for their
        unfinished work, which the caller takes back."""
        events = self.crew.wait(seconds)
        for worker, event in events:
            if isinstance(event, Said):
                self._say(worker, event)
            else:
                self.note(worker, event)
                if isinstance(event, UnitEnded) and event.error is None:
                    self._deaths.pop(worker, None)
        return events

    def note(self, worker: str, event: Event) -> None:
        """Update a worker's units after an event: `UnitEnded` ends the first, `WorkerLost` and errors all of them."""
        if isinstance(event, WorkerLost) or (isinstance(event, UnitEnded) and event.error is not None):
            self._freight.pop(worker, None)
        elif isinstance(event, UnitEnded) and worker in self._freight:
            self._freight[worker].popleft()
            self._drop_idle(worker)

    def _drop_idle(self, worker: str) -> None:
        if not self._freight[worker]:
            del self._freight[worker]

    def settle(self, worker: str, event: UnitEnded | WorkerLost) -> None:
        """Dismiss a worker that has failed, or start another; call it once its work has been taken back.

        Raises the error of the last worker, and a `WeightsError` immediately: all workers would fail the same way.
        """
        if isinstance(event, WorkerLost):
            self._deaths[worker] += 1
            if self._deaths[worker] < TRIES and self.crew.renew(worker):
                self._observer.note(f"the worker on {worker} has ended with {event.how}; another takes its place")
                return
            error: DeviceError | WeightsError = DeviceError(f"the worker on {worker} has ended with {event.how}")
        elif event.error is None or worker not in self.crew.workers():  # of a unit after the one with the first error
            return
        else:
            error = event.error
        if isinstance(error, WeightsError):
            raise error
        self.crew.leave_out(worker)
        if not self.count:
            raise error
        left = f"{self.count} other{'s continue' if self.count > 1 else ' continues'}"
        self._observer.note(f"{worker} is left out, and {left}: {error}")

    def _say(self, worker: str, said: Said) -> None:
        """Report what several workers say only once."""
        if said.sentence in self._reported:
            return
        self._reported.add(said.sentence)
        text = f"{worker}: {said.sentence}" if self.count > 1 else said.sentence
        (self._observer.detail if said.detail else self._observer.note)(text)
