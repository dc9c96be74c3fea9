"""Access to a picture's bytes: a file of any name, or bytes in memory. Files are opened once, by descriptor.

libvips parses options from brackets in a file name, and pyvips expects UTF-8 names; a descriptor has no name.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from srgan_cli.errors import SettingsError, UnreadablePictureError, shown
from srgan_cli.files import is_folder
from srgan_cli.stores.paths import StorePath
from srgan_cli.stores.ranges import Quietly, Ranges

_SETTING_UP = threading.Lock()


def vips_module() -> Any:
    """pyvips, configured for one pass over large pictures.

    Its operation cache would keep decoded pictures in memory, and return a sequential one twice. Raises `SettingsError`
    if pyvips is missing.
    """
    try:
        with _SETTING_UP:  # the first calls may come from several threads
            if not getattr(vips_module, "done", False):
                _set_up()
                vips_module.done = True  # type: ignore[attr-defined]
        import pyvips
    except (ImportError, OSError) as err:  # the package, or the library it binds
        raise SettingsError(
            f"pyvips cannot be used here ({err}): pip install 'pyvips[binary]'. Only `srgan train` can do without it"
        ) from err
    return pyvips


def _set_up() -> None:
    """Discard libvips' warnings; the relevant ones are also in its error buffer, see `decoding`.

    They must not go through pyvips' handler, which is written in Python: it may trigger garbage collection, which may
    free an image that warns in turn, and GLib aborts the process on a warning during a warning. If pyvips was imported
    before, GLib itself writes them to stderr.
    """
    import logging

    os.environ.setdefault("VIPS_WARNING", "1")  # a C handler that does nothing
    import pyvips

    pyvips.cache_set_max(0)
    logging.getLogger("pyvips").addHandler(logging.NullHandler())
    if pyvips._log_handler_id:
        pyvips._remove_handler(b"VIPS", pyvips._log_handler_id)
        pyvips._log_handler_id = None


@functools.cache
def has_vips() -> bool:
    """Whether pyvips can be used here; `srgan train` works without it (see `whole`)."""
    try:
        vips_module()
    except SettingsError:
        return False
    return True


# Prefixes of pyvips' and libvips' reports, before the decoder's message.
VIPS_OPENINGS = ("unable to call", "unable to fetch", "unable to write to memory")


def reason_given(err: BaseException) -> str:
    """`": the decoder's own words"`, or empty: libvips starts and fills its reports with its own operations."""
    lines = [line.strip() for line in str(err).splitlines()]
    return next((f": {line}" for line in lines if line and not line.startswith(VIPS_OPENINGS)), "")


Origin: TypeAlias = "Path | bytes | Ranges"


class Source(Quietly):
    """Random access to the bytes of `origin`, from any thread. Raises `UnreadablePictureError` on failure."""

    def __init__(self, origin: Origin) -> None:
        self._bytes: bytes | None = None
        self._descriptor = -1
        self._ranges: Ranges | None = None
        self._shown: list[Any] = []  # Python sources, which libvips does not keep alive
        if isinstance(origin, StorePath):
            origin = Ranges(origin)
        if isinstance(origin, bytes):
            self._bytes = origin
            self.name = "the input"
            self.suffix = ""
            self.size = len(origin)
        elif isinstance(origin, Ranges):
            self._ranges = origin
            self.name = shown(origin)
            self.suffix = origin.path.plain.suffix
            self.size = origin.size
        else:
            self.name = shown(origin)
            self.suffix = origin.suffix
            self._descriptor, self.size = _open(origin, self.name)
        if self.size == 0:
            self.close()
            raise UnreadablePictureError(f"{self.name} is empty (0 bytes)")

    def read_at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`; fewer or none past the end."""
        if offset < 0 or offset >= self.size or count <= 0:
            return b""
        count = min(count, self.size - offset)
        if self._bytes is not None:
            return self._bytes[offset : offset + count]
        if self._ranges is not None:
            return self._ranges.read_at(offset, count)
        try:
            parts = []
            while count and (part := _read_at(self._descriptor, offset, count)):
                parts.append(part)
                offset, count = offset + len(part), count - len(part)
        except OSError as err:
            raise UnreadablePictureError(f"{self.name} cannot be read: {_reason(err)}") from err
        return b"".join(parts)

    def read_all(self) -> bytes:
        return self._bytes if self._bytes is not None else self.read_at(0, self.size)

    def for_vips(self) -> Any:
        """A `pyvips.Source`. It reads through a descriptor of its own, which shares the file position."""
        pyvips = vips_module()
        if self._bytes is not None:
            return pyvips.Source.new_from_memory(self._bytes)
        if self._ranges is not None:
            # libvips mistakes a lost connection for the end of the file.
            self._shown.append(vips_source(self._ranges.read_quietly, self.size))
            return self._shown[-1]
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return pyvips.Source.new_from_descriptor(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Source:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


_SEEKING = threading.Lock()


def _read_at(descriptor: int, offset: int, count: int) -> bytes:
    """Reads without using the file position, which all threads and libvips share: a document is read for its next page
    and for its binding at the same time."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    with _SEEKING:  # on Windows, where libvips has its own position
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


def _open(path: Path, name: str) -> tuple[int, int]:
    """A descriptor and the size in bytes of a regular file."""
    try:
        # Without O_NONBLOCK, opening a named pipe would block for ever. It has no effect on regular files.
        descriptor = os.open(
            path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
        )
    except OSError as err:
        if is_folder(path):
            raise UnreadablePictureError(f"{name} is a folder, not a picture file") from err
        raise UnreadablePictureError(f"{name} cannot be opened: {_reason(err)}") from err
    except ValueError as err:  # a NUL character
        raise UnreadablePictureError(f"{name!r} cannot be the name of a file") from err
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or a pipe"
    raise UnreadablePictureError(f"{name} is {what}, not a picture file")


def _reason(err: OSError) -> str:
    if err.errno == errno.ENOENT:
        is_link = err.filename is not None and Path(err.filename).is_symlink()
        return "it is a link to something that does not exist" if is_link else "there is no such file"
    if err.errno in (errno.EACCES, errno.EPERM):
        return "you have no permission to read it"
    return (err.strerror or "unknown reason").lower()


def vips_source(read_at: Callable[[int, int], bytes], size: int) -> Any:
    """A `pyvips.Source` of `size` bytes that calls `read_at(offset, count)`, which must not raise.

    The caller must keep it: libvips does not keep Python callbacks alive.
    """
    place = 0
    source = vips_module().SourceCustom()

    def read(count: int) -> bytes:
        nonlocal place
        data = read_at(place, count)
        place += len(data)
        return data

    def seek(offset: int, whence: int) -> int:
        nonlocal place
        place = max(0, offset + (0, place, size)[whence])
        return place

    source.on_read(read)
    source.on_seek(seek)
    return source
