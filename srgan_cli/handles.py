"""Folders that are held open, so that results go into them even if their paths change meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path


class Folder:
    """An opened folder. Files created through `handle` go into it, even if its path now leads elsewhere.

    On Linux `handle` is a path through the open descriptor. Elsewhere it is the folder's path, and raises `OSError` if
    that now leads to another folder.
    """

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self.path = path
        self._descriptor = descriptor
        self._identity = _identity(path if descriptor is None else descriptor)

    @property
    def handle(self) -> Path:
        if self._descriptor is not None:
            return _DESCRIPTORS / str(self._descriptor)
        if self.has_moved:
            raise OSError(errno.ESTALE, "its folder was moved or replaced during the run")
        return self.path

    @property
    def has_moved(self) -> bool:
        """Whether its path now leads to another folder, or to none."""
        with contextlib.suppress(OSError):
            return _identity(self.path) != self._identity
        return True

    def below(self, relative: Path) -> Folder:
        """A subfolder, created if missing. Raises `NotADirectoryError` if a link would lead out of this folder."""
        path, descriptor = self.path, None if self._descriptor is None else os.dup(self._descriptor)
        for name in relative.parts:
            path /= name
            if descriptor is None:
                _enter_by_name(path)
            else:
                descriptor = _enter(descriptor, name, path)
        return Folder(path, descriptor)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_folder(path: Path) -> Folder:
    """A folder given by the user, created if missing. Links in its path are followed."""
    path.mkdir(parents=True, exist_ok=True)
    descriptor = None
    if hasattr(os, "O_PATH") and _DESCRIPTORS.is_dir():
        descriptor = os.open(path, _OPEN_FOLDER)
    return Folder(path, descriptor)


def link_below(base: Path, folder: Path) -> Path | None:
    """The first link on the way from a folder to one inside it, among the parts that exist."""
    for path in reversed((folder, *folder.parents)):
        if path != base and path.is_relative_to(base) and path.is_symlink():
            return path
    return None


def without_handles(text: str, folder: Path) -> str:
    """A message with the folder's path in place of its `handle`."""
    return re.sub(rf"{_DESCRIPTORS}/\d+", lambda _: str(folder), text)


_DESCRIPTORS = Path("/proc/self/fd")
_OPEN_FOLDER = getattr(os, "O_PATH", 0) | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)


def _identity(folder: Path | int) -> tuple[int, int]:
    found = os.stat(folder)  # noqa: PTH116 - a descriptor as well
    return found.st_dev, found.st_ino


def _enter(descriptor: int, name: str, path: Path) -> int:
    """Open a subfolder given its parent's descriptor, and close the parent's."""
    try:
        if name == "..":
            raise _leads_out(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=descriptor)
        return os.open(name, _OPEN_FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
    except NotADirectoryError:
        raise _leads_out(path) from None
    finally:
        os.close(descriptor)


def _enter_by_name(path: Path) -> None:
    path.mkdir(exist_ok=True)
    if path.name == ".." or path.is_symlink() or not path.is_dir():
        raise _leads_out(path)


def _leads_out(path: Path) -> NotADirectoryError:
    return NotADirectoryError(
        errno.ENOTDIR, f"{path} is a link or not a folder, and results are not written through it"
    )
