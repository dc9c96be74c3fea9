"""Shared by the tests of pictures, scan, cache and crops: photos, and ways to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from srgan_cli.dataset.crops import Cache, Picture, build_cache, scan
from srgan_cli.dataset.pictures import Bytes
from srgan_cli.training_data_config import DataSettings

CROP_PX = 16


def pixels(seed: int, height: int = 40, width: int = 48) -> Bytes:
    """A smooth picture, another one for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def put(path: Path, array: Bytes, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def settings(folder: Path, **changes: Any) -> DataSettings:
    return DataSettings(**{"high_dirs": (str(folder),), "cache_dir": str(folder.parent / "cache"), **changes})


def names(pictures: tuple[Picture, ...]) -> list[str]:
    return [picture.path.name for picture in pictures]


def pair(root: Path, name: str, seed: int, *, scale: int = 2, low_name: str | None = None, extra_px: int = 0) -> None:
    high = pixels(seed, 40 + extra_px, 48 + extra_px)
    put(root / "high" / f"{name}.png", high)
    small = high[:40:scale, :48:scale]  # nearest: each small pixel is the first of its block
    put(root / "low" / f"{low_name or name}.png", np.ascontiguousarray(small))


def cached(folder: Path, *, scale: int = 2, crop_px: int = CROP_PX, **changes: Any) -> Cache:
    chosen = settings(folder, **{"val_fraction": 0, **changes})
    pictures = scan(chosen, scale=scale, crop_px=crop_px).train
    return build_cache(pictures, chosen, scale=scale, crop_px=crop_px)
