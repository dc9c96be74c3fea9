"""Makes the pairs that the bundled `photo` models learned from: degraded crops, and a teacher's results for them.

    python -m benchmarks.pairs HR_DIR TEACHER OUT --seconds 1200 [--seed 1] [--device cpu]

Writes OUT/low/NAME.png (96 px), OUT/taught/NAME.png (384 px) and OUT/taught-x2/NAME.png (the same, downscaled to 192
px): folders for `srgan train --hr-dir OUT/taught --lr-dir OUT/low`. Three quarters of the low crops are photographs
with two rounds of strong degradation; the others are photographs at their own size with mild degradation, since most
pictures that people enlarge are like that. A quarter has ringing (a sinc filter), and most of those are compressed once
more. The ranges are those of Real-ESRGAN (X. Wang et al. 2021, arXiv:2107.10833, and its published options).

`srgan train --teacher` does the same inside a run; these pairs were made before that option existed.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from srgan_cli.dataset.degradation import apply, rng_for, sample
from srgan_cli.training.teaching import Teacher, load_teacher
from srgan_cli.training_data_config import DegradationSettings
from srgan_cli.training_presets import preset

PIECE_PX = 96
TOGETHER = 4
_SCALE = 4
_STRONG_FRACTION, _RINGING_FRACTION = 0.75, 0.25

STRONG = DegradationSettings(
    kind="photo",
    noise=(1.0, 30.0),
    noise_fraction=0.6,
    poisson=(0.05, 3.0),
    blur_fraction=0.75,
    blur_px=(0.2, 3.0),
    resize=(0.15, 1.5),
    jpeg_quality=(30.0, 95.0),
    compression_fraction=0.85,
    clean_fraction=0.08,
    final_ringing_fraction=_RINGING_FRACTION,
)
MILD = DegradationSettings(
    kind="photo",
    rounds=1,
    noise=(1.0, 20.0),
    noise_fraction=0.5,
    blur_fraction=0.5,
    blur_px=(0.2, 1.2),
    jpeg_quality=(30.0, 95.0),
    compression_fraction=0.7,
    final_ringing_fraction=_RINGING_FRACTION,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pairs", description="Make taught pairs.")
    parser.add_argument("photos", type=Path, metavar="HR_DIR")
    parser.add_argument("teacher", metavar="TEACHER", help="a ×4 model: a name or a file")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    teacher = load_teacher(preset("photo", {"teacher": {"model": arguments.teacher}}), torch.device(arguments.device))
    assert teacher is not None
    print(make(sorted(arguments.photos.glob("*.jpg")), teacher, arguments.out, arguments.seconds, arguments.seed))
    return 0


def make(photos: Sequence[Path], teacher: Teacher, out: Path, seconds: float, seed: int) -> int:
    """Make pairs until `seconds` are over; returns their number."""
    for name in ("low", "taught", "taught-x2"):
        (out / name).mkdir(parents=True, exist_ok=True)
    chosen, began_s, made = random.Random(seed), time.monotonic(), 0
    while time.monotonic() - began_s < seconds:
        low = torch.stack([_low(photos, chosen, seed, made + i) for i in range(TOGETHER)])
        for small, large in zip(low, teacher(low), strict=True):
            _save(small, large, out, f"{seed}-{made:05d}.png")
            made += 1
    (out / "finished").write_text(f"{made}\n")  # what `train_bundled` looks for
    return made


def _low(photos: Sequence[Path], chosen: random.Random, seed: int, number: int) -> Tensor:
    """A degraded crop, (3, 96, 96) in [0, 1]."""
    strong = chosen.random() < _STRONG_FRACTION
    settings, scale = (STRONG, _SCALE) if strong else (MILD, 1)
    levels = (1.0, 0.75) if strong else (1.0, 0.75, 0.5)  # a piece of 384 px does not fit into smaller ones
    high = _crop(chosen.choice(photos), PIECE_PX * scale, chosen, levels)
    return apply(high[None], [sample(settings, rng_for(seed, number, 0))], scale)[0]


def _crop(photo: Path, side_px: int, chosen: random.Random, levels: Sequence[float]) -> Tensor:
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    level = chosen.choice(levels)
    size = (round(picture.width * level), round(picture.height * level))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    x, y = chosen.randrange(size[0] - side_px + 1), chosen.randrange(size[1] - side_px + 1)
    pixels = np.array(picture.crop((x, y, x + side_px, y + side_px)))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255  # (H, W, 3) -> (3, H, W)


def _save(low: Tensor, taught: Tensor, out: Path, name: str) -> None:
    large = _picture(taught)
    _picture(low).save(out / "low" / name)
    large.save(out / "taught" / name)
    large.resize((large.width // 2, large.height // 2), Image.Resampling.BICUBIC).save(out / "taught-x2" / name)


def _picture(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy())


if __name__ == "__main__":
    raise SystemExit(main())
