"""Progress inside a large picture, stored beside its scratch file, so that `--resume` continues there after a kill."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from srgan_cli import stored
from srgan_cli.files import publish_text

EVERY_SECONDS = 10.0
_MAX_BYTES = 1 << 16


class Journal:
    """The number of low-resolution rows that are final in the scratch file, for one input and settings `key`."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self._saved = time.monotonic()

    def rows(self) -> int:
        """What an earlier run had finished; 0 if there is nothing to resume."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            entry = stored.json_of(stored.read_bytes(self._path, _MAX_BYTES))
            if entry["key"] == self._key:
                return stored.whole(entry["rows"])
        return 0

    def is_due(self) -> bool:
        return time.monotonic() - self._saved >= EVERY_SECONDS

    def save(self, rows: int) -> None:
        """To be called when those rows are on disk."""
        publish_text(self._path, json.dumps({"key": self._key, "rows": rows}), own=True)
        self._saved = time.monotonic()

    def remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()
