"""Small picture files for plans and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow


def picture(path: Path, width: int = 12, height: int = 9, mode: str = "RGB", seed: int = 0) -> Path:
    """A file of noise, in the format of its name; its folders are made."""
    channels = len(Pillow.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng([seed, width, height]).integers(0, 256, (height, width, channels), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(path)
    return path


def cut_short(path: Path) -> Path:
    """A JPEG whose header is whole and whose rows end in the middle."""
    picture(path, 300, 300)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def tree(folder: Path) -> set[str]:
    """Every file below, hidden ones too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
