"""Local folders for files on their way from or to a store.

They are in the system's temporary folder (`TMPDIR`), accessible to this user only. Each is locked while its process
lives, so that the next process can remove what a killed one has left.
"""

from __future__ import annotations

import atexit
import contextlib
import getpass
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from pathlib import Path

from srgan_cli.files import Lock, lock

_KEPT_SECONDS = 86400.0  # for --resume: partial large results, after a process was killed
_RESULTS, _INPUTS = "results-", "inputs-"
_making = threading.Lock()


class ScratchFolder:
    """A folder that belongs to this process until `close`, which removes it, or with `keep` only its empty parts."""

    def __init__(self, path: Path, held: Lock | None) -> None:
        self.path, self._held = path, held
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def close(self, *, keep: bool = False) -> None:
        if keep:
            _remove_empty(self.path)
        else:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._held is not None:
            self._held.release()
            self._held = None


def for_inputs() -> Path:
    """The folder for fetched files of this process; removed when it ends."""
    with _making:
        made = getattr(for_inputs, "made", None)
        if made is None or not made.path.is_dir():
            made = _new(_INPUTS + secrets.token_hex(8))
            for_inputs.made = made  # type: ignore[attr-defined]
            atexit.register(made.close)
        path: Path = made.path
        return path


def free_bytes() -> int:
    """Free space on the disk for temporary files."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def for_results(folder: str) -> ScratchFolder:
    """The folder where results for a store's folder grow. Successive processes get the same one, so that --resume finds
    partial results; simultaneous ones do not."""
    name = _RESULTS + hashlib.sha256(folder.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    with _making:
        return _new(name)


def _new(name: str) -> ScratchFolder:
    root = _root()
    _sweep(root, name)
    held = _locked(root / name)
    if held is None:
        name = _RESULTS + secrets.token_hex(8)
        held = _locked(root / name)
    return ScratchFolder(root / name, held)


def _root() -> Path:
    """The parent folder; nobody else can have written to it."""
    with contextlib.suppress(Exception):  # no name, no such folder, or not owned by this user: use a new one
        path = Path(tempfile.gettempdir()) / f"srgan-{getpass.getuser()}"
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        is_ours = os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o077)
        if stat.S_ISDIR(found.st_mode) and is_ours:
            return path
    path = Path(tempfile.mkdtemp(prefix="srgan-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _sweep(root: Path, own: str) -> None:
    """Remove what ended processes have left."""
    for path in root.iterdir():
        with contextlib.suppress(OSError):  # another process may be removing it as well
            is_old = path.name.startswith(_INPUTS) or time.time() - path.stat().st_mtime > _KEPT_SECONDS
            if path.name == own or not path.is_dir() or not is_old:
                continue
            held = _locked(path)
            if held is not None:
                with held:
                    shutil.rmtree(path, ignore_errors=True)


def _locked(path: Path) -> Lock | None:
    return lock(path.with_name(f"{path.name}.lock"))


def _remove_empty(path: Path) -> None:
    for folder, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
