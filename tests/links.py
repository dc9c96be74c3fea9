"""Links that somebody may have created where srgan's own files are written."""

from __future__ import annotations

import os
from pathlib import Path


def symbolic(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def hard(path: Path, outside: Path) -> None:
    os.link(outside, path)


def pipe(path: Path, _outside: Path) -> None:
    os.mkfifo(path)
