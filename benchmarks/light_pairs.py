"""Pairs of lightly degraded low pictures and their originals, in addition to a teacher's: they teach `photo` not to
smooth clean pictures.

    python -m benchmarks.light_pairs PHOTOS [DRAWINGS …] --pairs OUT --scale 4

`benchmarks.pairs` has made OUT/low and OUT/taught (for ×2 OUT/taught-x2). A teacher for restoration also smooths almost
clean pictures; for those the original is the better target. From each picture one crop of 384 px is downscaled
(bicubic), three in ten get noise of 0.5 to 3 levels, and four in five are saved as JPEG of quality 65 to 97, three
quarters of those with halved chroma. Writes OUT/mixed-xSCALE/low and /high with these (`m….png`) and copies of the
teacher's pairs (`w….png`): folders for `srgan train --hr-dir OUT/mixed-x4/high --lr-dir OUT/mixed-x4/low`.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.formats import PICTURE_SUFFIXES

_SIDE_PX = 384  # of the high crop
_SEED = 7


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.light_pairs", description="Make lightly worn pairs.")
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="sharp photographs, and drawings")
    parser.add_argument("--pairs", type=Path, required=True, metavar="OUT", help="where benchmarks.pairs wrote")
    parser.add_argument("--scale", type=int, choices=(2, 4), required=True)
    asked = parser.parse_args()
    pictures = [path for folder in asked.folders for path in sorted(folder.iterdir()) if _is_picture(path)]
    print(make(pictures, asked.pairs, asked.scale))
    return 0


def make(pictures: Sequence[Path], pairs: Path, scale: int) -> int:
    """Make all pairs for a scale; returns the total, including the teacher's."""
    out = pairs / f"mixed-x{scale}"
    for name in ("low", "high"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for low in sorted((pairs / "low").iterdir()):
        for source, folder in ((low.parent, "low"), (pairs / ("taught" if scale == 4 else "taught-x2"), "high")):
            shutil.copyfile(source / low.name, out / folder / f"w{low.name}")
    chosen = random.Random(_SEED + scale)
    for number, path in enumerate(pictures):
        with Image.open(path) as opened:
            high = _crop(opened.convert("RGB"), chosen)
        _worn(high, scale, chosen, number).save(out / "low" / f"m{number:04}.png")
        high.save(out / "high" / f"m{number:04}.png")
    (out / "finished").touch()  # what `train_bundled` looks for
    return len(list((out / "low").iterdir()))


def _crop(picture: Image.Image, chosen: random.Random) -> Image.Image:
    level = chosen.choice((1.0, 0.75)) if min(picture.size) * 0.75 >= _SIDE_PX else 1.0
    if level < 1:
        size = (round(picture.width * level), round(picture.height * level))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    x, y = chosen.randrange(picture.width - _SIDE_PX + 1), chosen.randrange(picture.height - _SIDE_PX + 1)
    return picture.crop((x, y, x + _SIDE_PX, y + _SIDE_PX))


def _worn(high: Image.Image, scale: int, chosen: random.Random, number: int) -> Image.Image:
    low = bicubic(np.asarray(high), _SIDE_PX // scale, _SIDE_PX // scale)
    if chosen.random() < 0.3:
        noise = np.random.default_rng(number).normal(0, chosen.uniform(0.5, 3), low.shape)
        low = np.clip(low.astype(np.float32) + noise, 0, 255)
    picture = Image.fromarray(np.clip(np.round(low), 0, 255).astype(np.uint8))
    if chosen.random() >= 0.8:
        return picture
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=round(chosen.uniform(65, 97)), subsampling=chosen.choice((2, 2, 2, 0)))
    with Image.open(data) as opened:
        return opened.convert("RGB")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURE_SUFFIXES


if __name__ == "__main__":
    raise SystemExit(main())
