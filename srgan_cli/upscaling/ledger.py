"""The record that `--resume` reads: one line of JSON per result, beside the results.

A line is appended, and synced, before a picture is begun and again after its result has its final name. So a result
without a line was never ours, and one with only a first line may be an older one that was about to be replaced.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from srgan_cli import stored
from srgan_cli.files import append_line

FILE_NAME = ".srgan-manifest.jsonl"

ResultState: TypeAlias = Literal["done", "stale", "unknown"]


def identity(source: Path) -> str:
    """Size and modification time: enough to tell that a photo was replaced, without reading it."""
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


class Ledger:
    """The lines of one folder. Names are kept relative to it, so that the folder may be moved."""

    def __init__(self, folder: Path, lines: dict[str, _Line], handle: Path | None = None) -> None:
        self.path = folder / FILE_NAME
        self._folder = folder
        self._handle = handle or folder
        self._lines = lines

    @classmethod
    def load(cls, folder: Path, handle: Path | None = None) -> Ledger:
        """`handle` leads to the same folder, if need be after its name does not any more."""
        lines: dict[str, _Line] = {}
        try:
            data = stored.read_bytes((handle or folder) / FILE_NAME)
        except OSError:
            data = b""
        for row in data.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # the last line of a run that was killed, or not ours
                entry = stored.json_of(row)
                result = None if entry["result"] is None else stored.text(entry["result"])
                line = _Line(stored.text(entry["source"]), stored.text(entry["settings"]), result)
                lines[stored.text(entry["target"])] = line
        return cls(folder, lines, handle)

    def state(self, target: Path, source: str, settings: str) -> ResultState:
        """Whether `target` is the finished result of that input with those settings."""
        line = self._lines.get(self._name(target))
        if line is None:
            return "unknown"
        same = line.source == source and line.settings == settings and line.result == identity(target)
        return "done" if same else "stale"

    def holds(self, path: Path) -> bool:
        """Whether a file is a result that this record knows, unchanged."""
        line = self._lines.get(self._name(path))
        return line is not None and line.result is not None and line.result == identity(path)

    def lists(self, path: Path) -> bool:
        """The same of a file of the same size: a copy or a checkout changes times."""
        line = self._lines.get(self._name(path))
        return line is not None and (line.result or "-").partition("-")[0] == identity(path).partition("-")[0]

    def source_of(self, path: Path) -> str | None:
        """The identity of the input that a listed file was made from."""
        line = self._lines.get(self._name(path))
        return None if line is None else line.source

    def begin(self, target: Path, source: str, settings: str) -> None:
        self._append(target, _Line(source, settings, None))

    def finish(self, target: Path, source: str, settings: str, result: str | None = None) -> None:
        """`result` is the identity of what has got its name, where another name leads to it by now."""
        self._append(target, _Line(source, settings, identity(target) if result is None else result))

    def _append(self, target: Path, line: _Line) -> None:
        name = self._name(target)
        self._lines[name] = line
        row = {"target": name, "source": line.source, "settings": line.settings, "result": line.result}
        self._handle.mkdir(parents=True, exist_ok=True)
        append_line(self._handle / FILE_NAME, json.dumps(row))

    def _name(self, target: Path) -> str:
        return os.path.relpath(target, self._folder)
