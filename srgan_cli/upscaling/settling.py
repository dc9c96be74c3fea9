"""Which files of a folder are complete (no longer changing), and events that say when to check."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from srgan_cli.errors import SettingsError
from srgan_cli.extras import how_to_install

# File systems that report only changes made by this machine, if any: other changes are found by polling.
_NETWORK = frozenset((
    "9p", "afs", "ceph", "cifs", "drvfs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
    "fuse.vmhgfs-fuse", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs",
))  # fmt: skip


class FileStamp(NamedTuple):
    """What is observed of a file. It differs if anything was written, or another file now has the name."""

    size: int
    mtime_ns: int
    inode: int


@dataclass
class _Unrest:
    stamp: FileStamp
    since: float


class Settling:
    """Files that have been seen and not yet processed. A file has settled when it has not changed for `settle_s`.

    With `trusts_times`, a file last written longer ago than that has settled immediately: it was renamed or moved here
    complete. The clocks of other machines cannot be trusted for this.
    """

    def __init__(self, settle_s: float, *, trusts_times: bool) -> None:
        self._settle_s, self._trusts_times = settle_s, trusts_times
        self._unrest: dict[Path, _Unrest] = {}
        self.dealt_with: dict[Path, FileStamp] = {}

    def update(self, seen: dict[Path, FileStamp], now: float | None = None) -> list[Path]:
        """The settled files among all existing ones. Files that no longer exist are forgotten."""
        now = time.time() if now is None else now
        for gone in [path for path in (*self._unrest, *self.dealt_with) if path not in seen]:
            self._unrest.pop(gone, None)
            self.dealt_with.pop(gone, None)
        return [path for path, stamp in seen.items() if self._is_ready(path, stamp, now)]

    def _is_ready(self, path: Path, stamp: FileStamp, now: float) -> bool:
        if self.dealt_with.get(path) == stamp:
            return False
        before = self._unrest.get(path)
        if before is None or before.stamp != stamp:
            self._unrest[path] = _Unrest(stamp, now)
            age_s = now - stamp.mtime_ns / 1e9
            return before is None and self._trusts_times and stamp.size > 0 and age_s >= self._settle_s
        return now - before.since >= self._settle_s

    def done_with(self, path: Path, stamp: FileStamp) -> None:
        """Ignore the file as long as it does not change."""
        self._unrest.pop(path, None)
        self.dealt_with[path] = stamp

    def again(self, path: Path) -> None:
        """Process the file once more."""
        self.dealt_with.pop(path, None)

    def seconds_left(self) -> float | None:
        """Time until the next file may have settled; None if none is pending."""
        if not self._unrest:
            return None
        return max(0.0, min(one.since for one in self._unrest.values()) + self._settle_s - time.time())


def see(paths: Iterable[Path]) -> dict[Path, FileStamp]:
    """What is observed of each file; files that have disappeared are left out."""
    seen = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        seen[path] = FileStamp(status.st_size, status.st_mtime_ns, status.st_ino)
    return seen


def network_drive(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The kind of network drive that a folder is on, as Linux names it; None if it is local or unknown."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        resolved = folder.resolve()
    except OSError:
        return None
    deepest, found = -1, None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].replace("\\040", " "))
        if resolved.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, found = len(point.parts), after.split()[0]
    return found if found in _NETWORK else None


class Events:
    """Reports that something has changed below a folder. `broken` is the reason why it no longer can."""

    def __init__(self, root: Path, ignored: Path, *, recursive: bool) -> None:
        """Raises `SettingsError` if the package for it is missing."""
        try:
            import watchfiles
        except ImportError as err:
            raise SettingsError(
                f"srgan watch needs watchfiles to detect changes: {how_to_install('watch')}; or give --poll 5, to "
                "check every 5 seconds"
            ) from err
        self._watch = watchfiles.watch
        self._root, self._ignored, self._recursive = root, ignored, recursive
        self._changed, self._stop = threading.Event(), threading.Event()
        self.broken: str | None = None
        threading.Thread(target=self._listen, name="srgan-events", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait until something has changed, but at most that many seconds. Returns whether it has."""
        has_changed = self._changed.wait(seconds)
        self._changed.clear()
        return has_changed

    def close(self) -> None:
        self._stop.set()

    def _listen(self) -> None:
        try:
            for _ in self._watch(
                self._root, watch_filter=self._is_news, stop_event=self._stop, recursive=self._recursive,
                rust_timeout=500, debounce=200, step=50, raise_interrupt=False,
            ):  # fmt: skip
                self._changed.set()
            reason = "the folder is gone"
        except Exception as err:  # noqa: BLE001 - too many folders for the system, say: then we look ourselves
            reason = str(err)
        if not self._stop.is_set():
            self.broken = reason
            self._changed.set()

    def _is_news(self, _change: object, path: str) -> bool:
        """Whether an event is not about a file that srgan itself writes."""
        return not Path(path).is_relative_to(self._ignored) and not Path(path).name.startswith(".")
