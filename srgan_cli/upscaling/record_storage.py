"""Storage of a folder's record: in files that are appended to, or in a store, whose objects can only be replaced."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from srgan_cli import stored
from srgan_cli.files import append_line
from srgan_cli.stores import store
from srgan_cli.stores.paths import StorePath

FILE_NAME = ".srgan-manifest.jsonl"
_PART = re.compile(r"\.srgan-manifest\.[0-9a-f]{16}\.jsonl")
# An object is written again for each new line, so a new object is started before that becomes expensive.
_SEGMENT_BYTES = 128 << 10


def parts_of(folder: Path) -> list[str]:
    """The names of the files that additional processes write or have left."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _PART.fullmatch(entry.name))
    except OSError:
        return []


def part_for(token: str) -> str:
    """The file name for an additional process."""
    return f".srgan-manifest.{token}.jsonl"


class Storage(Protocol):
    """A folder's record, in one file or several."""

    def names(self) -> list[str]:
        """The names of its files; new ones may be missing for a moment."""

    def read_on(self, name: str, begin: int) -> tuple[bytes, int] | None:
        """A file's content from `begin` on, and where it begins: at 0 if the file has been replaced. None: nothing
        new."""

    def append(self, name: str, text: str) -> int | None:
        """Append lines, which are synced when this returns. Returns the file's size; None if no other process writes to
        it."""

    def gather(self, name: str) -> None:
        """Merge the lines of another process's file, which has ended, into the record, and remove it."""

    def close(self) -> None:
        """Nothing more will be written."""


class Files:
    """Files in a folder of this machine. `folder` may be a handle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return [FILE_NAME, *parts_of(self._folder)]

    def read_on(self, name: str, begin: int) -> tuple[bytes, int] | None:
        try:
            size = (self._folder / name).lstat().st_size
            if size == begin:
                return None
            begin = 0 if size < begin else begin
            return stored.read_bytes(self._folder / name, begin=begin), begin
        except OSError:
            return None

    def append(self, name: str, text: str) -> int | None:
        self._folder.mkdir(parents=True, exist_ok=True)
        return append_line(self._folder / name, text)

    def gather(self, name: str) -> None:
        with suppress(OSError):
            data = stored.read_bytes(self._folder / name)
            if data.strip():
                append_line(self._folder / FILE_NAME, data.decode("utf-8", "replace").strip())
            (self._folder / name).unlink()

    def close(self) -> None: ...


class Objects:
    """Objects in a folder of a store. Each process writes its own objects, so that none replaces another's."""

    def __init__(self, folder: StorePath) -> None:
        self._folder = folder
        self._sizes: dict[str, int] = {}
        self._listed: set[str] = set()  # whose sizes have not been checked since
        self._own: dict[str, bytes] = {}
        self._segment = ""

    def names(self) -> list[str]:
        try:
            found = store.listing(self._folder, recursive=False).objects
        except OSError:
            return []
        self._sizes = {path.name: stat.size or 0 for path, stat in found}
        self._listed = set(self._sizes)
        return [name for name in self._sizes if (name == FILE_NAME or _PART.fullmatch(name)) and name not in self._own]

    def read_on(self, name: str, begin: int) -> tuple[bytes, int] | None:
        if name in self._own or self._size(name, begin) == begin:
            return None
        with suppress(OSError):
            data = store.read(self._folder / name)
            begin = 0 if len(data) < begin else begin
            return data[begin:], begin
        return None

    def _size(self, name: str, begin: int) -> int:
        """From the latest listing, or requested now: another process may have written since."""
        if name in self._listed or name not in self._sizes:
            self._listed.discard(name)
            return self._sizes.get(name, begin)
        with suppress(OSError):
            found = store.stat(self._folder / name)
            return begin if found is None else found.size or 0
        return begin

    def append(self, name: str, text: str) -> int | None:
        if len(self._own.get(self._segment, b"")) >= _SEGMENT_BYTES or not self._segment:
            self._segment = name if name not in self._own else part_for(secrets.token_hex(8))
        data = self._own.get(self._segment, b"") + f"{text}\n".encode()
        store.write(self._folder / self._segment, data)
        self._own[self._segment] = data
        return None

    def gather(self, name: str) -> None: ...

    def close(self) -> None:
        """Combine the run's objects into one."""
        first, *others = self._own or [""]
        if not others:
            return
        with suppress(OSError):
            store.write(self._folder / first, b"".join(self._own.values()))
            for name in others:
                store.remove(self._folder / name)
            self._own = {first: b""}


def storage_of(folder: Path, handle: Path | None) -> Storage:
    return Objects(folder) if isinstance(folder, StorePath) else Files(handle or folder)
