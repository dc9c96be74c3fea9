"""Weights files that are sent with a brief, for workers on machines that do not have them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from srgan_cli.files import publish_bytes
from srgan_cli.upscaling.crew.messages import Brief


def packed(brief: Brief) -> dict[Path, bytes]:
    """The files that the user named, with their contents. Bundled models are installed with srgan everywhere."""
    selections = brief.selections.values()
    paths = {path for one in selections for path in (*one.sources.values(), *one.earlier.values())}
    return {path: path.read_bytes() for path in paths if isinstance(path, Path) and path.is_file()}


def unpacked(brief: Brief, weights: dict[Path, bytes]) -> Brief:
    """The brief for a worker: files that it does not see, or that differ there, are stored in a temporary folder until
    it ends."""
    moved: dict[Path, Path] = {}
    for number, (path, data) in enumerate(weights.items()):
        if not _holds(path, data):
            folder = Path(tempfile.mkdtemp(prefix=f"srgan-weights-{number}-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            moved[path] = folder / path.name
            publish_bytes(moved[path], data)
    if not moved:
        return brief

    def here(sources: dict[int, str | Path]) -> dict[int, str | Path]:
        return {scale: moved.get(path, path) if isinstance(path, Path) else path for scale, path in sources.items()}

    selections = {
        name: replace(one, sources=here(one.sources), earlier=here(one.earlier))
        for name, one in brief.selections.items()
    }
    return replace(brief, selections=selections)


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
