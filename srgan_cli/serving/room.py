"""Accounting of the memory for pictures in a server."""

from __future__ import annotations


class FullError(Exception):
    """No capacity left, in the queue or in bytes."""


class Room:
    """Shared by uploads, waiting pictures and results."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def reserve(self) -> Reservation:
        return Reservation(self)


class Reservation:
    """The part of it that one picture uses."""

    def __init__(self, room: Room) -> None:
        self._room, self.bytes = room, 0

    def fits(self, count: int) -> bool:
        """Whether that many more bytes fit."""
        return self._room.taken + count <= self._room.most

    def take(self, count: int) -> None:
        """Reserve bytes. Raises `FullError`."""
        if not self.fits(count):
            raise FullError
        self.add(count)

    def add(self, count: int) -> None:
        """Count bytes that are already in memory, even above the limit."""
        self._room.taken += count
        self.bytes += count

    def give(self) -> None:
        """Release all of it; may be called again."""
        self._room.taken -= self.bytes
        self.bytes = 0
