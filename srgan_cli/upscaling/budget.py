"""A limit in bytes for what waits between the stages of a run."""

from __future__ import annotations

import threading


class ByteBudget:
    """Makes callers wait until their bytes fit. A picture larger than the whole budget is admitted when nothing else is
    held."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used = limit, 0
        self._changed = threading.Condition()
        self._opened = False

    def take(self, count: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._opened or self._used == 0 or self._used + count <= self._limit)
            self._used += count

    def give(self, count: int) -> None:
        with self._changed:
            self._used -= count
            self._changed.notify_all()

    def open(self) -> None:
        """Release all waiting callers."""
        with self._changed:
            self._opened = True
            self._changed.notify_all()
