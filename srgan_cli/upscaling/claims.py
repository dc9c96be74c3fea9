"""Which process makes which picture, among processes and machines that share a folder: leases, as files in that folder.

A claim is a hard link to a file of its process (or, without hard links, a file that is created exclusively): either
fails if the name exists, on NFS as well. The process touches its file every `RENEW_SECONDS`. A claim is taken over if
it has not changed for `LEASE_SECONDS`, by the clock of the waiting process, or if its process is known to have ended:
by creating the file of the next generation, which again only one process can do. Clocks need not agree, and no locks
are used.

A process that claims a picture next must find it done: so record first, then release.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from srgan_cli import stored
from srgan_cli.files import add_name, create

RENEW_SECONDS = 15.0
LEASE_SECONDS = 60.0
# By the file system's clock: a living process never leaves a claim untouched for so long. But some file systems use the
# clock of the machine that touches the file, which may be wrong: so the claim must also be seen unchanged for a while.
ABANDONED_SECONDS = 600.0
UNCHANGED_SECONDS = 1.5 * RENEW_SECONDS
PREFIX = ".srgan-claim."
_OWN = re.compile(re.escape(PREFIX) + r"[0-9a-f]{16}(\.\d{1,6})?")
_MAX_BYTES = 4096
_GENERATIONS = 1000


@dataclass(frozen=True)
class _Holder:
    """The contents and state of a claim's file."""

    identity: tuple[int, int]  # inode and modification time
    machine: str
    process: int
    started: str


class Claims:
    """This run's claims in one folder, usable from any thread. Raises `OSError` if no file can be created."""

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(8)
        self._folder = folder
        self._own = folder / f"{PREFIX}{self.token}"
        self._held: dict[str, Path | None] = {}  # None: the claim's file could not be created
        # other processes' claims: as seen, and since when
        self._watched: dict[Path, tuple[tuple[int, int], float]] = {}
        self._lock = threading.Lock()
        self._has_links = True
        _create(self._own)

    def take(self, name: str) -> bool:
        """Claim a name; False if another process holds it. On a disk that accepts no more files, the name is not
        protected."""
        with self._lock:
            if name in self._held:
                return False
            try:
                return self._take(name)
            except OSError:
                self._held[name] = None
                return True

    def _take(self, name: str) -> bool:
        for generation in range(1, _GENERATIONS):
            path = self._path(name, generation)
            if self._make(path):
                # Another process may have continued from a claim that was removed meanwhile.
                base = os.fspath(path).rpartition(".")[0]
                if any(os.path.lexists(f"{base}.{generation + more}") for more in (1, 2)):
                    _remove(path)
                    return False
                self._held[name] = path
                return True
            if not self._is_over(path):
                return False
        return False

    def holds(self, name: str) -> bool:
        """Whether this process still holds a claim: it may have lost it if it stalled for a minute."""
        with self._lock:
            if name not in self._held:
                return False
            path = self._held[name]
        if path is None:
            return True
        return os.path.lexists(path) and not os.path.lexists(_following(path))

    def is_taken_over(self, name: str) -> bool:
        """Whether a claim of this process has been taken over."""
        with self._lock:
            path = self._held.get(name)
        return path is not None and os.path.lexists(_following(path))

    def release(self, name: str) -> None:
        """Release a claim after its work has been recorded, or has not been done."""
        with self._lock:
            path = self._held.pop(name, None)
            if path is not None:
                for generation in range(int(path.suffix[1:]), 0, -1):
                    _remove(self._path(name, generation))

    def sweep(self) -> None:
        """Remove the claims of processes that have ended; those of other machines if an earlier call has seen them."""
        now = self._now_ns()
        for path in _claims_in(self._folder):
            holder = _read(path)
            if holder is not None and path != self._own and self._is_gone(path, holder, now):
                _remove(path)

    def renew(self) -> None:
        """Must be called every `RENEW_SECONDS`."""
        with self._lock:
            paths = [] if self._has_links else [path for path in self._held.values() if path is not None]
        for path in (self._own, *paths):
            with contextlib.suppress(OSError):
                os.utime(path)

    def close(self) -> None:
        """Release all claims."""
        for name in tuple(self._held):
            self.release(name)
        if self._watched:
            self.sweep()
        _remove(self._own)

    def __enter__(self) -> Claims:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _path(self, name: str, generation: int) -> Path:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        return self._folder / f"{PREFIX}{digest}.{generation}"

    def _make(self, path: Path) -> bool:
        """Create a claim's file; False if it exists."""
        if self._has_links:
            try:
                add_name(self._own, path)
                return True
            except FileExistsError:
                return False
            except (OSError, NotImplementedError):  # no hard links (FAT, some network drives)
                self._has_links = False
        try:
            _create(path)
        except FileExistsError:
            return False
        return True

    def _is_over(self, path: Path) -> bool:
        """Whether another process's claim has been released or abandoned."""
        holder = _read(path)
        if holder is None:  # removed by now: try again soon, from the first generation on
            return not _makes_way(path)
        return self._is_gone(path, holder, self._now_ns()) or self._unchanged_seconds(path, holder) > LEASE_SECONDS

    def _is_gone(self, path: Path, holder: _Holder, now_ns: int) -> bool:
        """Whether a claim's process is known to have ended, here or long ago."""
        if is_dead_here(holder.machine, holder.process, holder.started):
            return True
        is_old = now_ns - holder.identity[1] > ABANDONED_SECONDS * 1e9
        return is_old and self._unchanged_seconds(path, holder) > UNCHANGED_SECONDS

    def _unchanged_seconds(self, path: Path, holder: _Holder) -> float:
        """For how long a claim has been seen as it is, by this process's watch."""
        seen, since = self._watched.get(path, (None, 0.0))
        if seen != holder.identity:
            self._watched[path] = holder.identity, time.monotonic()
            return 0.0
        return time.monotonic() - since

    def _now_ns(self) -> int:
        """The time by the clock that dates the claims."""
        with contextlib.suppress(OSError):
            os.utime(self._own)
            return self._own.stat().st_mtime_ns
        return 0


def _following(path: Path) -> Path:
    """The file of a claim's next generation."""
    return path.with_name(f"{path.stem}.{int(path.suffix[1:]) + 1}")


def sweep(folders: Iterable[Path]) -> None:
    """Remove the files of ended processes from folders in which nothing more will be claimed."""
    for folder in dict.fromkeys(folders):
        if _claims_in(folder):
            with contextlib.suppress(OSError), Claims(folder) as claims:
                claims.sweep()


def _claims_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if _OWN.fullmatch(entry.name)]
    except OSError:
        return []


def _create(path: Path) -> None:
    """Create a claim's file. Raises `FileExistsError`."""
    machine, process, started = this_process()
    create(path, json.dumps({"machine": machine, "process": process, "started": started}).encode())


def this_process() -> tuple[str, int, str]:
    """Identifies this process: its machine, its process ID, and its start time."""
    return _machine(), os.getpid(), _started(os.getpid()) or ""


def is_dead_here(machine: str, process: int, started: str) -> bool:
    """Whether it is a process of this machine that has ended; False for other machines' processes."""
    return machine == _machine() and _started(process) != started


def is_own(path: Path) -> bool:
    """Whether a file has the name of a claim, or of a process's own file."""
    return _OWN.fullmatch(path.name) is not None


def _read(path: Path) -> _Holder | None:
    """A claim's current contents; None if it has been removed. It is opened, so that NFS asks the server."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        with os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_MAX_BYTES) if stat.S_ISREG(found.st_mode) else b""
    except OSError:
        return None
    identity = found.st_ino, found.st_mtime_ns
    try:
        says = stored.json_of(data)
        return _Holder(
            identity, stored.text(says["machine"]), stored.whole(says["process"]), stored.text(says["started"])
        )
    except (ValueError, KeyError, TypeError):  # being written, or not srgan's
        return _Holder(identity, "", 0, "")


@cache
def _machine() -> str:
    """The scope in which process IDs are unique: one boot of one machine, and one container in it."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    if len(parts) == 1:
        import psutil

        parts.append(str(round(psutil.boot_time(), -1)))
    return " ".join(parts)


def _started(process: int) -> str | None:
    """The start time of a process of this machine, since process IDs are reused; None: it has ended."""
    try:
        state, *fields = (
            Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return None if state in "ZX" else fields[18]
    except (OSError, IndexError, ValueError):
        if Path("/proc/self/stat").exists():
            return None
    import psutil

    try:
        return str(psutil.Process(process).create_time())
    except psutil.Error:
        return None


def _makes_way(path: Path) -> bool:
    """Remove something other than a file that occupies a claim's name. False if it cannot be removed, such as a folder
    with contents: that is not a claim."""
    try:
        kind = path.lstat().st_mode
    except OSError:
        return True
    try:
        if stat.S_ISDIR(kind):
            path.rmdir()
        elif not stat.S_ISREG(kind):
            path.unlink()
    except OSError:
        return False
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
