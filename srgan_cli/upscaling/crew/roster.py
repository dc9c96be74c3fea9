"""Which workers of a crew there are, which of them are busy, and what becomes of the work of those that fail."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Set
from typing import TypeVar

from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.upscaling.crew.messages import Crew, Event, Gone, Over, Said, Unit
from srgan_cli.upscaling.observer import Observer

_POLL_SECONDS = 0.5
TRIES = 3  # of a piece of work whose workers die
UNITS = 2  # that a worker may have: one that it makes, and one to go on with at once
_T = TypeVar("_T")


class Roster:
    """A crew, and who of it does what. Raises `DeviceError` or `WeightsError` when nobody is left.

    What passes between this process and its workers, pictures and rows that they do not see on a disk, is bounded:
    `freight_bytes` are under way (or wait at a worker) at a time, or one unit that is larger.
    """

    def __init__(self, crew: Crew, observer: Observer, freight_bytes: int = 1 << 62) -> None:
        self.crew = crew
        self._observer = observer
        self._freight_bytes = freight_bytes
        self._freight: dict[str, deque[int]] = {}  # of each unit that a worker has, in order
        self._deaths: Counter[str] = Counter()
        self._told: set[str] = set()

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
        """Those that have something to do."""
        return self._freight.keys()

    def idle(self) -> list[str]:
        return [worker for worker in self.crew.workers() if worker not in self._freight]

    def free(self) -> list[str]:
        """Those that may get one more unit, the idle ones first."""
        found = [one for one in self.crew.workers() if len(self._freight.get(one, ())) < UNITS]
        return sorted(found, key=lambda one: one in self._freight)

    def reserve(self, worker: str, freight: int) -> bool:
        """Keep a worker for a unit with which this many bytes travel, there and back; False while there is no room for
        them."""
        under_way = sum(map(sum, self._freight.values())) if freight else 0
        if under_way and under_way + freight > self._freight_bytes:
            return False
        self._freight.setdefault(worker, deque()).append(freight)
        return True

    def release(self, worker: str) -> None:
        """A worker was reserved for a unit that is not given to it."""
        self._freight[worker].pop()
        self._drop_idle(worker)

    def give(self, worker: str, unit: Unit) -> None:
        """A unit to an idle worker, to which nothing travels."""
        self.reserve(worker, 0)
        self.hand(worker, unit)

    def hand(self, worker: str, unit: Unit) -> None:
        """A unit to a worker that is reserved for it."""
        self.crew.give(worker, unit)

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        """What the caller has to deal with; `Over` and `Gone` have been dealt with but for their work, which the caller
        takes back."""
        events = self.crew.wait(seconds)
        for worker, event in events:
            if isinstance(event, Said):
                self._say(worker, event)
            else:
                self.note(worker, event)
                if isinstance(event, Over) and event.error is None:
                    self._deaths.pop(worker, None)
        return events

    def note(self, worker: str, event: Event) -> None:
        """What an event says of whether its worker has something to do: `Over` ends the first of its units, `Gone` and
        an error all of them."""
        if isinstance(event, Gone) or (isinstance(event, Over) and event.error is not None):
            self._freight.pop(worker, None)
        elif isinstance(event, Over) and worker in self._freight:
            self._freight[worker].popleft()
            self._drop_idle(worker)

    def _drop_idle(self, worker: str) -> None:
        if not self._freight[worker]:
            del self._freight[worker]

    def settle(self, worker: str, event: Over | Gone) -> None:
        """Leave a worker out that has failed, or put another in its place; to be called when its work is taken back.

        Raises the error of the last one, and a `WeightsError` at once: no other would fare better.
        """
        if isinstance(event, Gone):
            self._deaths[worker] += 1
            if self._deaths[worker] < TRIES and self.crew.renew(worker):
                self._observer.note(f"the worker on {worker} has ended with {event.how}; another takes its place")
                return
            error: DeviceError | WeightsError = DeviceError(f"the worker on {worker} has ended with {event.how}")
        elif event.error is None or worker not in self.crew.workers():  # of a unit behind that of the first error
            return
        else:
            error = event.error
        if isinstance(error, WeightsError):
            raise error
        self.crew.leave_out(worker)
        if not self.count:
            raise error
        left = f"{self.count} other{'s go' if self.count > 1 else ' goes'} on"
        self._observer.note(f"{worker} is left out, and {left}: {error}")

    def _say(self, worker: str, said: Said) -> None:
        """What every worker says once is said once."""
        if said.sentence in self._told:
            return
        self._told.add(said.sentence)
        text = f"{worker}: {said.sentence}" if self.count > 1 else said.sentence
        (self._observer.detail if said.detail else self._observer.note)(text)
