"""Names that lead elsewhere, as somebody may leave them where our own files go."""

from __future__ import annotations

import os
from pathlib import Path


def symbolic(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def hard(path: Path, outside: Path) -> None:
    os.link(outside, path)


def pipe(path: Path, _outside: Path) -> None:
    os.mkfifo(path)
