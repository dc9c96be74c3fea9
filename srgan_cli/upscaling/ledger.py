"""The record that `--resume` reads: one line of JSON per result, beside the results.

A line is appended and synced before a picture is started, and again after its result has its final name. A file is
srgan's if a line mentions it: as the result of a run, or as what a run was about to replace. If there is only the first
line, the file may be the result of a run that was killed before its second line, or another program's file created
since; then the file's own metadata decides. If a picture fails, its first line is revoked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from srgan_cli import stored
from srgan_cli.stores import store
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling.record_storage import FILE_NAME, storage_of

# `stale`: it is srgan's and may be replaced; `changed`: there was a result of srgan's, but now there is another file.
ResultState: TypeAlias = Literal["done", "stale", "changed", "unknown"]
TO_BE_MADE_AGAIN = "damaged"  # in place of settings: equal to those of no run


def identity(source: Path) -> str:
    """Size and modification time, or a store's version: enough to detect that a photo was replaced, without reading
    it."""
    if isinstance(source, StorePath):
        with suppress(OSError):
            found = store.stat(source)
            return "" if found is None else found.version
        return ""
    try:
        stat = source.stat()
    except OSError:
        return ""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


@dataclass(frozen=True)
class _Line:
    source: str  # the input's identity
    settings: str
    result: str | None  # the result's identity; None while it is being made
    was: str | None = None  # while it is being made: the identity of the file that it will replace


class Ledger:
    """The lines of one folder. Names are stored relative to it, so that the folder may be moved.

    The record is one file, plus one for each additional process working in the folder (`.srgan-manifest.TOKEN.jsonl`),
    until its lines are merged into the first: some network drives do not support several machines appending to one
    file.
    """

    def __init__(self, folder: Path, handle: Path | None = None) -> None:
        self.path = folder / FILE_NAME
        self._folder, self._base = folder, f"{folder}{'/' if isinstance(folder, StorePath) else os.sep}"
        self._storage = storage_of(folder, handle)
        self._lines: dict[str, dict[str, _Line]] = {}  # by file and target
        self._read: dict[str, int] = {}  # bytes read of each file
        self._own = FILE_NAME
        self._is_loaded = False
        self._fresh: set[str] = set()

    @classmethod
    def load(cls, folder: Path, handle: Path | None = None) -> Ledger:
        """`handle` leads to the same folder, even if its path no longer does."""
        ledger = cls(folder, handle)
        ledger.refresh()
        return ledger

    def refresh(self) -> None:
        """Read what this process and others have written since."""
        for name in self._storage.names():
            self._read_on(name)
        self._is_loaded = True

    def refresh_known(self) -> None:
        """The same for files that are already known: the folder is not listed, which takes long if it contains many
        files."""
        for name in {FILE_NAME, *self._lines}:
            self._read_on(name)

    def _read_on(self, name: str) -> None:
        found = self._storage.read_on(name, self._read.get(name, 0))
        if found is None:
            return
        data, begin = found
        if begin < self._read.get(name, 0):  # a different file than before
            self._lines.pop(name, None)
        for row in data.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # the last line of a killed run, or not srgan's
                entry = stored.json_of(row)
                result = None if entry["result"] is None else stored.text(entry["result"])
                source = None if entry["source"] is None else stored.text(entry["source"])
                was = None if entry.get("was") is None else stored.text(entry["was"])
                line = None if source is None else _Line(source, stored.text(entry["settings"]), result, was)
                target = stored.text(entry["target"])
                self._note(name, target, line)
                if self._is_loaded and result is not None:
                    self._fresh.add(target)
        self._read[name] = begin + data.rfind(b"\n") + 1  # an incomplete line is read again later

    def _note(self, file: str, target: str, line: _Line | None) -> None:
        """Apply a line. A recorded result stays valid after a later first line, which may come from a stalled process;
        None revokes a first line."""
        lines = self._lines.setdefault(file, {})
        before = lines.get(target)
        if line is None:
            if before is not None and before.result is None:
                del lines[target]
        elif line.result is not None or before is None or before.result is None:
            lines[target] = line

    def _of(self, target: Path) -> list[_Line]:
        """The latest line about a target in each file; if one of them matches the existing file, it is right."""
        name = self._name(target)
        return [lines[name] for lines in self._lines.values() if name in lines]

    def state(self, target: Path, source: str, settings: str, found: str | None = None) -> ResultState:
        """The state of `target`: the finished result of that input with those settings, or something else; `found` is
        its identity, if known."""
        lines = self._of(target)
        if not lines:
            return "unknown"
        found = identity(target) if found is None else found
        if _Line(source, settings, found) in lines:
            return "done"
        if self.lists(target, found) or any(line.was == found for line in lines):
            return "stale"
        return "changed" if any(line.result is not None for line in lines) else "unknown"

    def is_fresh(self, target: Path) -> bool:
        """Whether another process has made it since this record was loaded."""
        return self._name(target) in self._fresh

    def holds(self, path: Path) -> bool:
        """Whether a file is a result in this record, unchanged."""
        found = identity(path)
        return any(line.result is not None and line.result == found for line in self._of(path))

    def lists(self, path: Path, found: str | None = None) -> bool:
        """The same for a file of the same size: copying or checking out changes times. `found` as in `state`."""
        lines = self._of(path)
        size = (identity(path) if found is None else found).partition("-")[0] if lines else ""
        return bool(size) and any((line.result or "-").partition("-")[0] == size for line in lines)

    def is_to_be_made_again(self, target: Path, found: str) -> bool:
        """Whether the file with that identity is a result that a resumed run should make again."""
        return any(line.settings == TO_BE_MADE_AGAIN and line.result == found for line in self._of(target))

    def source_of(self, path: Path) -> str | None:
        """The identity of the input of a recorded file."""
        lines = self._of(path)
        return lines[-1].source if lines else None

    def write_to(self, name: str) -> None:
        """From now on, write to the file of that name."""
        self._own = name

    def gather(self, name: str) -> None:
        """Merge the lines of another process's file, which has ended, into the record, and remove it."""
        self._storage.gather(name)

    def close(self) -> None:
        """This process records nothing more."""
        self._storage.close()

    def begin(self, target: Path, source: str, settings: str, was: str | None = None) -> None:
        """`was`: the identity of the file to be replaced."""
        self._append([(target, _Line(source, settings, None, was))])

    def finish(self, target: Path, source: str, settings: str, result: str | None = None) -> None:
        """`result` is the identity of the published file, if its name may lead elsewhere by now."""
        self.finish_all([(target, source, identity(target) if result is None else result)], settings)

    def begin_all(self, several: Sequence[tuple[Path, str, str | None]], settings: str) -> None:
        """Several targets, their inputs and the files to be replaced, synced once."""
        self._append([(target, _Line(source, settings, None, was)) for target, source, was in several])

    def finish_all(self, several: Sequence[tuple[Path, str, str]], settings: str) -> None:
        """Several targets, their inputs and the published files, synced once."""
        self._append([(target, _Line(source, settings, result)) for target, source, result in several])

    def withdraw(self, target: Path) -> None:
        """The picture failed: a file that has or gets its name is not srgan's."""
        name = self._name(target)
        line = self._lines.get(self._own, {}).get(name)
        if line is not None and line.result is None:
            self._note(self._own, name, None)
            row = {"target": name, "source": None, "settings": line.settings, "result": None}
            self._write(self._own, json.dumps(row))

    def _append(self, lines: Sequence[tuple[Path, _Line]]) -> None:
        rows = []
        for target, line in lines:
            name = self._name(target)
            self._note(self._own, name, line)
            row = {"target": name, "source": line.source, "settings": line.settings, "result": line.result}
            if line.was is not None:
                row["was"] = line.was
            rows.append(json.dumps(row))
        self._write(self._own, "\n".join(rows))

    def _write(self, name: str, text: str) -> None:
        begin = self._read.get(name, 0)
        size = self._storage.append(name, text)
        if size is not None and size == begin + len(text.encode()) + 2:  # no other process has written
            self._read[name] = size

    def _name(self, target: Path) -> str:
        name = os.fspath(target)
        if name.startswith(self._base) and ".." not in name:  # the usual case, at a tenth of the cost
            return name[len(self._base) :]
        return os.path.relpath(target, self._folder)
