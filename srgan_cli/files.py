"""The only module that publishes and syncs files, locks names and locates the cache folder.

A published file appears under its name complete and on disk, or not at all: it is written beside its target as
`.NAME.….part`, synced and renamed, and then its folder is synced. A failure leaves nothing behind. A killed process
leaves a part, which `stale_parts` finds. Everything here raises `OSError`, for which `reason` gives a sentence.
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
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from srgan_cli.errors import shown

if TYPE_CHECKING:
    from filelock import BaseFileLock

_PART = re.compile(r"\.(.+)\.[0-9a-f]{12}\.part")
_BUFFER_BYTES = 1 << 20

# ----------------------------------------------------------------------------------------------------------- publishing


@contextlib.contextmanager
def publishing(
    target: Path, *, overwrite: bool = True, modified_ns: int | None = None, own: bool = False
) -> Iterator[BinaryIO]:
    """A file, open for writing and reading, that becomes `target` if the block succeeds and is removed otherwise.

    Without `overwrite`, a target that exists at that time is left unchanged: `FileExistsError`. `modified_ns` becomes
    the modification time. A device or a named pipe cannot be replaced, so it is written to directly, unless srgan
    itself chose the name (`own`): then anything that is not a regular file is replaced.
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
    """Like `publishing`, for code that needs a path: an empty file beside `target`, to be filled in place."""
    if own:
        make_way(target)
    elif is_special(target):
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    with _part(target, overwrite, None) as (part, _):
        yield part


def publish_file(part: Path, target: Path, *, overwrite: bool = True, modified_ns: int | None = None) -> None:
    """Rename a complete and synced file of srgan's, beside `target`, to `target`. Without `overwrite`, an existing
    target is left unchanged: `FileExistsError`."""
    if modified_ns is not None:
        os.utime(part, ns=(modified_ns, modified_ns))
    _rename(part, target, overwrite)
    _sync_folder(target.parent)


def publish_bytes(target: Path, data: bytes, *, overwrite: bool = True, own: bool = False) -> None:
    with publishing(target, overwrite=overwrite, own=own) as file:
        file.write(data)


def publish_text(target: Path, text: str, *, errors: str = "strict", own: bool = False) -> None:
    """Publish text as UTF-8, with its line ends unchanged."""
    publish_bytes(target, text.encode("utf-8", errors), own=own)


def check_publishable(target: Path) -> None:
    """Raises `OSError` if `target` cannot be published now. `target` is not changed."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not is_special(target):
        part, descriptor = _new_part(target)
        os.close(descriptor)
        part.unlink()


def is_folder(path: Path) -> bool:
    """Whether it is a folder, as far as can be determined: False if its name is too long or it is inside a folder
    without access."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def why_not_writable(folder: Path) -> str | None:
    """Why nothing can be written into an existing folder, as part of a sentence; None if something can."""
    if os.access(folder, os.W_OK | os.X_OK):
        return None
    if sys.platform != "win32" and os.statvfs(folder).f_flag & os.ST_RDONLY:
        return f"{shown(folder)} is on a disk that is read-only"
    return f"you have no permission to write into {shown(folder)}"


def is_special(target: Path) -> bool:
    """Whether it exists and is not a regular file, so that renaming would destroy it. Folders are refused when opened,
    and what cannot be examined is refused when written."""
    try:
        return not stat.S_ISREG(target.stat().st_mode)
    except OSError:  # missing, below a file, its name too long, or in a folder that may not be read
        return False


def part_name(target: Path) -> str:
    """What the names of a target's part files begin with, after a dot. Names are limited to 255 bytes, and part names
    are longer than their targets', so the name is shortened and a hash added.

    The hash is of the whole name, for series whose names differ only at the end.
    """
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    return f"{target.name[:40]}.{digest}"


def stale_parts(folder: Path) -> dict[Path, str]:
    """The part files in a folder, each with its target's `part_name`. The caller must know whether a process still
    writes to them."""
    try:
        matches = {path: _PART.fullmatch(path.name) for path in folder.iterdir()}
    except OSError:
        return {}
    return {path: match[1] for path, match in matches.items() if match is not None}


def remove_parts(folder: Path) -> None:
    """Remove the part files of killed processes from a folder that no other process writes to."""
    for part in stale_parts(folder):
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def _part(target: Path, overwrite: bool, modified_ns: int | None) -> Iterator[tuple[Path, int]]:
    """A new file and its descriptor, which stays open until the file is complete, so that the same file is synced."""
    part, descriptor = _new_part(target)
    try:
        try:
            yield part, descriptor
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # close before renaming: Windows cannot rename an open file
        if modified_ns is not None:
            os.utime(part, ns=(modified_ns, modified_ns))
        _rename(part, target, overwrite)
    except BaseException:  # also on Ctrl-C
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(target.parent)


def _new_part(target: Path) -> tuple[Path, int]:
    part = target.with_name(f".{part_name(target)}.{secrets.token_hex(6)}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return part, os.open(part, flags, 0o666)  # permissions minus the umask, as for any new file


def _rename(part: Path, target: Path, overwrite: bool) -> None:
    if overwrite:
        part.replace(target)
        return
    try:
        os.link(part, target)  # unlike a rename, linking fails atomically if the name exists
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # a file system without hard links (FAT, some network drives)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        part.replace(target)
    else:
        part.unlink()


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that the new name survives a power failure. Some systems cannot open a folder for this."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def reason(err: OSError) -> str:
    """Why a file cannot be written, and what to do about it, as the end of a sentence."""
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space, or write to another disk"
    if err.errno == errno.EROFS:
        return "the disk is read-only"
    if err.errno in (errno.EACCES, errno.EPERM):
        return "you have no permission to write there"
    if err.errno == errno.ENOENT:
        return "its folder does not exist"
    if err.errno == errno.ENAMETOOLONG:
        return "its name is too long for the file system"
    if err.errno == errno.EPIPE:
        return "the program that was reading it has ended"
    return (err.strerror or str(err) or "unknown reason").lower()


# ------------------------------------------------------------------------------------------------------ srgan's files


def make_way(path: Path) -> None:
    """Remove anything but a regular file (a link, a pipe, another hard link of a file) that occupies the name of one of
    srgan's own files."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            path.unlink()


def open_own(path: Path, flags: int, *, keep: bool = True) -> int:
    """A descriptor of one of srgan's own files, which is created if missing; `flags` as for `os.open`.

    Links are not followed, and a file with a second name (hard link) is not written to: it is replaced by a new file,
    with its content if `keep` is set.
    """
    flags |= os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    # opening a pipe would block until its other end opens; a regular file ignores this flag
    flags |= getattr(os, "O_NONBLOCK", 0)
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
    """Append one or more lines to one of srgan's own files and sync it. Returns the file's size.

    If a power failure has cut the last line short, the new line still starts on its own line. So there may be an empty
    line between two.
    """
    with os.fdopen(open_own(path, os.O_WRONLY | os.O_APPEND), "a", encoding="utf-8", newline="\n") as file:
        file.write(f"\n{line}\n")
        sync(file)
        return os.fstat(file.fileno()).st_size


def create(path: Path, data: bytes) -> None:
    """A new file of srgan's. Raises `FileExistsError` if the name exists; of several processes only one succeeds.

    If the system supports it, the file appears under its name complete, so a killed process leaves no partial file.
    """
    try:
        _create_whole(path, data)
        return
    except FileExistsError:
        raise
    except (OSError, NotImplementedError):  # not supported by this system, or in this folder (network drives)
        pass
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)
        sync(file)


def _create_whole(path: Path, data: bytes) -> None:
    """An unnamed file that is given a name when complete (Linux, open(2): O_TMPFILE). Raises `OSError` if
    unsupported."""
    if not hasattr(os, "O_TMPFILE"):
        raise NotImplementedError
    descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        sync(file)
        # With a folder's descriptor, Python sets the flag to follow links; for an absolute path the descriptor has no
        # effect.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def add_name(path: Path, name: Path) -> None:
    """Add a second name (a hard link) for one of srgan's own files. As with `create`, only one of several processes
    succeeds."""
    os.link(path, name)


def sync(file: IO[Any]) -> None:
    """Wait until everything written to an open file is on disk."""
    file.flush()
    os.fsync(file.fileno())


_in_use: set[Path] = set()


def discard(path: Path) -> None:
    """Remove one of srgan's own files now, or at exit if it is still in use (Windows cannot remove mapped files)."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if not _in_use:
            atexit.register(_discard_late)
        _in_use.add(path)


def _discard_late() -> None:
    gc.collect()  # the last references to mapped pages may be in a reference cycle
    for path in _in_use:
        with contextlib.suppress(OSError):
            path.unlink()
    _in_use.clear()


# -------------------------------------------------------------------------------------------------------------- locking


class Lock:
    """A lock on a name against other processes (and other users in this process), held until `release` or until the
    process ends for any reason. Any thread may release it."""

    def __init__(self, path: Path, held: BaseFileLock | None) -> None:
        self.path = path
        self.excludes = held is not None  # False on a file system without locks
        self._held = held

    def release(self) -> None:
        if self._held is None:
            return
        # The file is removed before the lock is released. A process waiting for it then finds a file without a name and
        # creates a new one. On Windows, where an open file keeps its name, filelock removes it afterwards.
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
    """Lock `path`, an empty file that is created for this purpose and removed again; None if another process holds it.

    On a file system without locks nothing is locked. Raises `OSError` if the file cannot be created.
    """
    from filelock import FileLock, Timeout

    make_way(path)
    held = FileLock(path, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return None
    except NotImplementedError:  # filelock 3, in this last case
        return Lock(path, None)
    except OSError as err:
        if err.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            return Lock(path, None)
        raise
    return Lock(path, held)


# --------------------------------------------------------------------------------------------------------- cache folder


def cache_folder() -> Path:
    """The folder for data that can be recomputed: `XDG_CACHE_HOME` or the system's default.

    Raises `RuntimeError` if there is no home directory.
    """
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("srgan", appauthor=False, opinion=False))
    if not folder.is_absolute():
        raise RuntimeError("there is no home directory for a cache")
    return folder


def data_folder() -> Path:
    """The folder for the user's own data (models): `XDG_DATA_HOME` or the system's default.

    Raises `RuntimeError` if there is no home directory.
    """
    import platformdirs

    folder = Path(platformdirs.user_data_dir("srgan", appauthor=False))
    if not folder.is_absolute():
        raise RuntimeError("there is no home directory to keep models in")
    return folder


def config_folder() -> Path | None:
    """The folder for the user's settings: `XDG_CONFIG_HOME` or the system's default; None if there is no home
    directory."""
    import platformdirs

    try:
        return platformdirs.user_config_path("srgan", appauthor=False)
    except RuntimeError:
        return None


def expanded(name: str | Path) -> Path:
    """The path with `~` expanded as in a shell; `~name` of an unknown user stays as it is."""
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises RuntimeError


def move(source: Path, target: Path) -> None:
    """Rename a finished file or folder within its folder. Raises `OSError`; a folder never replaces another."""
    source.replace(target)
    _sync_folder(target.parent)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_BUFFER_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
