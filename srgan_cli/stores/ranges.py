"""Reading a picture's header in a store: usually a few hundred kilobytes of it."""

from __future__ import annotations

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.stores import store
from srgan_cli.stores.fetching import on_this_machine, reading
from srgan_cli.stores.paths import StorePath
from srgan_cli.stores.store import Stat

_BLOCK_BYTES = 256 << 10
_SMALL_BYTES = 1 << 20  # an object of up to this size is read whole


class Quietly:
    """Bytes for callers that cannot handle exceptions: an error looks like the end of the file, and is stored."""

    lost: UnreadablePictureError | None = None  # the exception that was not raised

    def read_at(self, offset: int, count: int) -> bytes:
        raise NotImplementedError

    def read_quietly(self, offset: int, count: int) -> bytes:
        """Like `read_at`; `lost` holds the exception it would have raised."""
        try:
            return self.read_at(offset, count)
        except UnreadablePictureError as err:
            self.lost = err
            return b""


class Ranges(Quietly):
    """Random access to an object's bytes. What has been read is kept, so that several readers in turn can use it.

    Raises `UnreadablePictureError`, as do all of its methods.
    """

    def __init__(self, path: StorePath, found: Stat | None = None) -> None:
        self.path = path
        self._blocks: dict[int, bytes] = {}
        self._whole: bytes | None = None
        with reading(path):
            stat = found or store.stat(path)
            if stat is None:
                raise FileNotFoundError(str(path))
        self.version = stat.version
        self.size = len(self._all()) if stat.size is None else stat.size

    def __str__(self) -> str:
        return str(self.path)

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer, or none, past the end."""
        end = min(offset + count, self.size)
        if offset < 0 or offset >= end:
            return b""
        first, last = offset // _BLOCK_BYTES, (end - 1) // _BLOCK_BYTES
        if self._whole is None:
            self._fill(first, last)
        if self._whole is not None:
            return self._whole[offset:end]
        data = b"".join(self._blocks[number] for number in range(first, last + 1))
        return data[offset - first * _BLOCK_BYTES : end - first * _BLOCK_BYTES]

    def _fill(self, first: int, last: int) -> None:
        if self.size <= _SMALL_BYTES:
            first, last = 0, (self.size - 1) // _BLOCK_BYTES
        missing = [number for number in range(first, last + 1) if number not in self._blocks]
        if not missing:
            return
        begin, end = missing[0] * _BLOCK_BYTES, min((missing[-1] + 1) * _BLOCK_BYTES, self.size)
        with reading(self.path):
            data = store.read(self.path, begin, end)
        if len(data) == self.size > end - begin:  # a server without range support
            self._whole = data
            return
        if len(data) != end - begin:
            raise UnreadablePictureError(f"{self.path} has changed while it was read")
        for number in range(missing[0], missing[-1] + 1):
            at = number * _BLOCK_BYTES - begin
            self._blocks[number] = data[at : at + _BLOCK_BYTES]

    def _all(self) -> bytes:
        """The whole object, if a server does not report its size; through a file, which limits it."""
        with on_this_machine(self.path) as file:
            self._whole = file.read_bytes()
        return self._whole
