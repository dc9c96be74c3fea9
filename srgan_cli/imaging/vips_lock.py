"""A lock on libvips, whose error messages belong to the whole process.

Its error buffer is shared by all threads, and even looking up a method of a `pyvips.Image` empties it. So users of
libvips share this lock (`shared`), and one that reads the messages about its own file holds it exclusively (`alone`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _SharedLock:
    """Held by many threads together, or by one exclusively. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._waiting = 0
        self._is_alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone and not self._waiting)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_alone and self._sharing == 0)
                self._is_alone = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._is_alone = False
                self._changed.notify_all()


_LOCK = _SharedLock()
shared, alone = _LOCK.shared, _LOCK.alone
