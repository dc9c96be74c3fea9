"""The one place that publishes and syncs files, locks names and knows the cache folder.

A published file has its name when it is complete and on disk, or not at all: it is written beside its target as
`.NAME.….part`, synced, renamed, and then its folder is synced. What failed leaves nothing; what was killed leaves a
part, which `stale_parts` finds again. Everything here raises `OSError`, whose sentence `reason` gives.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PART = re.compile(r"\.(.+)\.[0-9a-f]{12}\.part")
_BUFFER_BYTES = 1 << 20

# ----------------------------------------------------------------------------------------------------------- publishing


@contextlib.contextmanager
def publishing(
    target: Path, *, overwrite: bool = True, modified_ns: int | None = None, own: bool = False
) -> Iterator[BinaryIO]:
    """A file, open for writing and reading, that becomes `target` when the block ends well and vanishes if it does not.

    Without `overwrite`, a target that exists by then is left alone: `FileExistsError`. `modified_ns` becomes the time
    of modification. A device or a named pipe cannot be replaced, so it is written to as the data come; but not where
    the name is one of our `own` choice: then whatever is not a plain file makes way.
    """
    if own:
        make_way(target)
    elif is_special(target):
        with target.open("wb") as device:
            yield device
        return
    with (
        _part(target, overwrite, modified_ns) as (_, descriptor),
        os.fdopen(descriptor, "w+b", buffering=_BUFFER_BYTES, closefd=False) as file,
    ):
        yield file


@contextlib.contextmanager
def publishing_path(target: Path, *, overwrite: bool = True, own: bool = False) -> Iterator[Path]:
    """As `publishing`, for code that needs a path: an empty file beside `target`, to be filled in place."""
    if own:
        make_way(target)
    elif is_special(target):
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    with _part(target, overwrite, None) as (part, _):
        yield part


def publish_file(part: Path, target: Path, *, overwrite: bool = True, modified_ns: int | None = None) -> None:
    """Give a complete and synced file of our own, beside `target`, that name; without `overwrite`, a target that exists
    by then is left alone: `FileExistsError`."""
    if modified_ns is not None:
        os.utime(part, ns=(modified_ns, modified_ns))
    _rename(part, target, overwrite)
    _sync_folder(target.parent)


def publish_bytes(target: Path, data: bytes, *, overwrite: bool = True, own: bool = False) -> None:
    with publishing(target, overwrite=overwrite, own=own) as file:
        file.write(data)


def publish_text(target: Path, text: str, *, errors: str = "strict", own: bool = False) -> None:
    """UTF-8, with line ends as they are in `text`."""
    publish_bytes(target, text.encode("utf-8", errors), own=own)


def check_publishable(target: Path) -> None:
    """Raises `OSError` where `target` could not be published now; it stays as it is."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not is_special(target):
        part, descriptor = _new_part(target)
        os.close(descriptor)
        part.unlink()


def is_folder(path: Path) -> bool:
    """Whether it is one, as far as can be seen: not under too long a name, nor in a folder that may not be entered."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_special(target: Path) -> bool:
    """Whether it exists and is not a regular file, which renaming would destroy. Folders are refused on opening, and
    what cannot be looked at on writing."""
    try:
        return not stat.S_ISREG(target.stat().st_mode)
    except OSError:  # it is missing, below a file, under too long a name, or in a folder that may not be read
        return False


def part_name(target: Path) -> str:
    """What a file that belongs to a target begins with, after a dot: a name may have 255 bytes, and these are longer.

    The whole name is in the hash, for series whose names differ only at the end.
    """
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    return f"{target.name[:40]}.{digest}"


def stale_parts(folder: Path) -> dict[Path, str]:
    """The parts in a folder, each with its target's `part_name`. Whether a process still writes to them, the caller
    must know."""
    try:
        matches = {path: _PART.fullmatch(path.name) for path in folder.iterdir()}
    except OSError:
        return {}
    return {path: match[1] for path, match in matches.items() if match is not None}


def remove_parts(folder: Path) -> None:
    """Remove what killed processes left half-written, in a folder that no other process writes to."""
    for part in stale_parts(folder):
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def _part(target: Path, overwrite: bool, modified_ns: int | None) -> Iterator[tuple[Path, int]]:
    """A new file and its descriptor, which stays open until the file is complete: what is synced is what was made."""
    part, descriptor = _new_part(target)
    try:
        try:
            yield part, descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # before the name changes: Windows renames no open file
        if modified_ns is not None:
            os.utime(part, ns=(modified_ns, modified_ns))
        _rename(part, target, overwrite)
    except BaseException:  # Ctrl-C, too, leaves nothing behind
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(target.parent)


def _new_part(target: Path) -> tuple[Path, int]:
    part = target.with_name(f".{part_name(target)}.{secrets.token_hex(6)}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return part, os.open(part, flags, 0o666)  # less the umask, as for any new file


def _rename(part: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        part.replace(target)
        return
    try:
        os.link(part, target)  # unlike a rename, it fails where the name is taken, with nothing in between
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links (FAT, some network drives)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        part.replace(target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """The new name itself must survive a power cut. Some systems do not let a folder be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reason(err: OSError) -> str:
    """Why a file cannot be written, and what to do about it: the end of a sentence."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or write to another disk"
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "you have no permission to write there"
    if err.errno == errno.ENOENT:
        return "its folder does not exist"
    if err.errno == errno.ENAMETOOLONG:
        return "its name is too long for the file system"
    if err.errno == errno.EPIPE:
        return "the program that was reading it has ended"
    return (err.strerror or str(err) or "unknown reason").lower()


# ------------------------------------------------------------------------------------------------------- our own files


def make_way(path: Path) -> None:
    """Remove what stands under a name of our own and is not a plain file: a link, a pipe, another name of some file."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            path.unlink()


def open_own(path: Path, flags: int, *, keep: bool = True) -> int:
    """A descriptor of a file of our own, made if need be; `flags` as for `os.open`.

    No link is followed, and no file written to that has a second name: such a name is replaced by a new file,
    with what that file held if `keep` says so.
    """
    flags |= os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for its other end; a file does not care
    if path.is_symlink() or is_special(path):
        path.unlink()
    descriptor = os.open(path, flags, 0o666)
    if os.fstat(descriptor).st_nlink <= 1:
        return descriptor
    os.close(descriptor)
    data = path.read_bytes() if keep else b""
    publish_bytes(path, data, own=True)
    return os.open(path, flags, 0o666)


def append_line(path: Path, line: str) -> int:
    """Add a line (or several) to a file of our own, which is on the disk when this returns. Returns the file's size.

    It has a line of its own also after one that a power cut has torn, so that an empty line may stand between two.
    """
    with os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8", newline="\n") as file:
        file.write(f"\n{line}\n")
        sync(file)
        return os.fstat(file.fileno()).st_size


def create(path: Path, data: bytes) -> None:
    """A new file of our own. Raises `FileExistsError` where that name is taken; of several processes one gets it.

    Where the system can do that, it has its name when it is whole: a process that is killed leaves nothing half-made.
    """
    try:
        _create_whole(path, data)
        return
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # not on this system, or not in this folder (network drives)
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        sync(file)


def _create_whole(path: Path, data: bytes) -> None:
    """A file without a name that is given one (Linux, open(2): O_TMPFILE). Raises `OSError` where that is not known."""
    if not hasattr(os, "O_TMPFILE"):
        raise NotImplementedError
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        sync(file)
        # With a folder's descriptor, Python asks for the link to be followed; it means nothing to an absolute name.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def add_name(path: Path, name: Path) -> None:
    """A second name (a hard link) for a file of our own; as `create`, of several processes one gets it."""
    os.link(path, name)


def sync(file: IO[Any]) -> None:
    """Wait until what was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


_in_use: set[Path] = set()


def discard(path: Path) -> None:
    """Remove a file of our own, now or, where something still holds it (Windows keeps what is mapped), at exit."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if not _in_use:
            atexit.register(_discard_late)
        _in_use.add(path)


def _discard_late() -> None:
    gc.collect()  # the last references to mapped pages may be in a cycle
    for path in _in_use:
        with contextlib.suppress(OSError):
            path.unlink()
    _in_use.clear()


# -------------------------------------------------------------------------------------------------------------- locking


class Lock:
    """A lock on a name against other processes (and others in this one), held until `release` or until the process
    ends, however that happens. Any thread may release it."""

    def __init__(self, path: Path, held: BaseFileLock | None) -> None:
        self.path = path
        self._held = held

    def release(self) -> None:
        if self._held is None:
            return
        # The file goes before the lock does. Whoever waits for it finds a file without a name and makes a new one;
        # on Windows, where an open file keeps its name, filelock removes it afterwards.
        with contextlib.suppress(OSError):
            self.path.unlink()
        with contextlib.suppress(OSError):
            self._held.release()
        self._held = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(path: Path) -> Lock | None:
    """Lock `path`, an empty file of its own that is made for this and removed again; None while another holds it.

    On a file system without locks nothing is held, and nobody is kept out. Raises `OSError` where no file can be made.
    """
    from filelock import FileLock, Timeout

    make_way(path)
    held = FileLock(path, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return None
    except NotImplementedError:  # filelock 3, for the last of these
        return Lock(path, None)
    except OSError as err:
        if err.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return Lock(path, None)
        raise
    return Lock(path, held)


# --------------------------------------------------------------------------------------------------------- cache folder


def cache_folder() -> Path:
    """Where this program keeps what it can make again: `XDG_CACHE_HOME` or the system's own place.

    Raises `RuntimeError` where there is no home directory.
    """
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("srgan", appauthor=False, opinion=False))
    if not folder.is_absolute():
        raise RuntimeError("there is no home directory for a cache")
    return folder


def data_folder() -> Path:
    """Where this program keeps what the user gave it: `XDG_DATA_HOME` or the system's own place.

    Raises `RuntimeError` where there is no home directory.
    """
    import platformdirs

    folder = Path(platformdirs.user_data_dir("srgan", appauthor=False))
    if not folder.is_absolute():
        raise RuntimeError("there is no home directory to keep models in")
    return folder


def config_folder() -> Path | None:
    """Where this program looks for the user's settings: `XDG_CONFIG_HOME` or the system's own place; None where there
    is no home directory."""
    import platformdirs

    try:
        return platformdirs.user_config_path("srgan")
    except RuntimeError:
        return None


def expanded(name: str | Path) -> Path:
    """With a home directory in the place of `~`, as in a shell; a name of nobody's (`~strange`) stays as it is."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises RuntimeError


def move(source: Path, target: Path) -> None:
    """Give a finished file or folder its name, in the same folder. Raises `OSError`; a folder replaces none."""
    source.replace(target)
    _sync_folder(target.parent)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_BUFFER_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
