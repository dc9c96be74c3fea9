"""How many bytes of pictures a server has in memory, and may have."""

from __future__ import annotations


class FullError(Exception):
    """There is no room: in the queue, or for the bytes."""


class Room:
    """Shared by uploads, waiting pictures and results."""

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    def reserve(self) -> Reservation:
        return Reservation(self)


class Reservation:
    """What one picture takes of it."""

    def __init__(self, room: Room) -> None:
        self._room, self.bytes = room, 0

    def fits(self, count: int) -> bool:
        """Whether there is room for that many more."""
        return self._room.taken + count <= self._room.most

    def take(self, count: int) -> None:
        """Raises `FullError`."""
        if not self.fits(count):
            raise FullError
        self.add(count)

    def add(self, count: int) -> None:
        """Of what is in memory already, whether there is room or not."""
        self._room.taken += count
        self.bytes += count

    def give(self) -> None:
        """Give all of it back; may be called again."""
        self._room.taken -= self.bytes
        self.bytes = 0
