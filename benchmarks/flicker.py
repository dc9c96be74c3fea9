"""Flicker of still areas. An animation of a still scene, with something that moves across it, is enlarged by
`srgan upscale`, and the mean difference between frames outside the moving part is compared with bicubic's.

    python -m benchmarks.flicker [PICTURE] [--model NAME] [--frames N] [--alone]

One JSON line a case: `result` and `bicubic` in levels of 255, and their `ratio`. Noise is Gaussian, different in each
frame, with the standard deviation `noise`. `--alone` enlarges each frame as a picture of its own. Exit code 1 if a
ratio is above 1.2.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from srgan_cli import UpscaleOptions, upscale_file
from srgan_cli.config import PageRange, WriteOptions
from srgan_cli.sizes import Size

_SIDE_PX, _DISC_PX, _SCALE, _AROUND_PX = 160, 28, 4, 8
_NOISES = (0.0, 1.0, 2.0)
_LIMIT = 1.2

Frames = list[np.ndarray[Any, Any]]


def scene(picture: Path, frames: int, noise: float) -> tuple[Frames, Frames]:
    """Low frames (H, W, 3) uint8, and where something moves in any of them, (H, W) bool."""
    with Pillow.open(picture) as opened:
        base = np.asarray(opened.convert("RGB").resize((_SIDE_PX, _SIDE_PX), Pillow.Resampling.LANCZOS)).astype(float)
    rows, columns = np.mgrid[0:_SIDE_PX, 0:_SIDE_PX]
    random = np.random.default_rng(1)
    made, places = [], []
    for number in range(frames):
        at = 30 + number * (_SIDE_PX - 60) // max(1, frames - 1)
        disc = (rows - 40) ** 2 + (columns - at) ** 2 < (_DISC_PX / 2) ** 2
        frame = base.copy()
        frame[disc] = (220, 60, 40)
        made.append((frame + random.normal(0, noise, frame.shape)).round().clip(0, 255).astype(np.uint8))
        places.append(disc)
    return made, places


def still(places: Frames, first: int) -> np.ndarray[Any, Any]:
    """Where nothing moves between frame `first` and the next, with a margin of a few px: (4H, 4W) bool."""
    moving = places[first] | places[first + 1]
    for axis in (0, 1):
        moving = np.any([np.roll(moving, shift, axis) for shift in range(-_AROUND_PX, _AROUND_PX + 1)], axis=0)
    at_rest: np.ndarray[Any, Any] = ~moving.repeat(_SCALE, 0).repeat(_SCALE, 1)
    return at_rest


def flicker(frames: Frames, places: Frames) -> float:
    """The mean absolute difference from frame to frame where nothing moves, in levels of 255."""
    pairs = itertools.pairwise(frames)
    return float(
        np.mean([np.abs(b.astype(int) - a)[still(places, index)].mean() for index, (a, b) in enumerate(pairs)])
    )


def enlarged(frames: Frames, model: str, *, alone: bool) -> Frames:
    """Enlarged by the program as an animated PNG, and decoded again."""
    if alone:
        return [frame for one in frames for frame in enlarged([one], model, alone=False)]
    pictures = [Pillow.fromarray(frame) for frame in frames]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / "out.png"
        pictures[0].save(source, save_all=True, append_images=pictures[1:], duration=40)
        options = UpscaleOptions(model=model, size=Size(scale=_SCALE), write=WriteOptions(), pages=PageRange())
        upscale_file(source, target, options)
        data = io.BytesIO(target.read_bytes())
    result = []
    with Pillow.open(data) as opened:
        for number in range(len(frames)):
            opened.seek(number)
            result.append(np.asarray(opened.convert("RGB")).copy())
    return result


def bicubic(frames: Frames) -> Frames:
    size = _SIDE_PX * _SCALE, _SIDE_PX * _SCALE
    return [np.asarray(Pillow.fromarray(frame).resize(size, Pillow.Resampling.BICUBIC)) for frame in frames]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flicker", description=__doc__)
    examples = sorted((Path(__file__).parents[1] / "examples").glob("*.[jp][pn]g"))
    parser.add_argument("picture", nargs="?", type=Path, default=examples[0])
    parser.add_argument("--model", default="srgan")
    parser.add_argument("--frames", type=int, default=6)
    parser.add_argument("--alone", action="store_true")
    asked = parser.parse_args(arguments)
    worst = 0.0
    for noise in _NOISES:
        frames, places = scene(asked.picture, asked.frames, noise)
        of_result = flicker(enlarged(frames, asked.model, alone=asked.alone), places)
        of_bicubic = flicker(bicubic(frames), places)
        ratio = of_result / of_bicubic if of_bicubic else float(of_result > 0) * float("inf") if of_result else 0.0
        worst = max(worst, ratio)
        row = {"model": asked.model, "noise": noise, "frames": asked.frames, "result": round(of_result, 3)}
        sys.stdout.write(json.dumps({**row, "bicubic": round(of_bicubic, 3), "ratio": round(ratio, 3)}) + "\n")
        sys.stdout.flush()
    return int(worst > _LIMIT)


if __name__ == "__main__":
    sys.exit(main())
