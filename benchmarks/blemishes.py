"""Visible artefacts of a model: grain on flat areas, and coloured px around text.

    python -m benchmarks.blemishes --data DIR [--sets Set14 BSD100] [--models fidelity srgan …] [--scale 4]
        [--no-color-lock]

DIR is that of `benchmarks.quality`. Prints one JSON line a model, and one for bicubic interpolation:

- `flat`: the mean standard deviation of Y in 9×9 px of the result, over that of the original, on places where the
  original's is below 2 levels. 1 is as quiet as the original; below 1, its weak texture has been removed; above 1,
  grain has been added.
- `coloured`: of the px within 6 px of text (lines of several sizes, black, grey and coloured, on light and dark paper,
  drawn here and downscaled by our bicubic), the percentage whose saturation (largest minus smallest of R, G, B) is more
  than 4 levels above anything that the original has within 4 px.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from benchmarks import scores as bundled_scores
from srgan_cli.config import EngineOptions
from srgan_cli.evaluation import pairs
from srgan_cli.evaluation.evaluate import Enlarge, bicubic_enlarger
from srgan_cli.evaluation.session import load_upscalers
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.rgb import RGB

_WINDOW_PX, _FLAT_LEVELS = 9, 2.0
_NEAR_PX, _REACH_PX, _ALLOWED_LEVELS = 6, 4, 4.0
_TEXT = "The quick brown fox jumps over the lazy dog, 0123456789 & (half of) {it} again!"
_INKS = (  # ink and paper
    ((0, 0, 0), (255, 255, 255)),
    ((90, 90, 90), (236, 236, 236)),
    ((245, 245, 245), (24, 24, 24)),
    ((160, 20, 30), (250, 246, 232)),
    ((20, 60, 150), (255, 255, 255)),
)

Plane: TypeAlias = npt.NDArray[np.float32]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.blemishes", description="Grain and coloured specks.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sets", nargs="+", default=["Set14", "BSD100"], metavar="SET")
    parser.add_argument("--models", nargs="+", default=["fidelity", "srgan", "photo", "fast"], metavar="NAME|RUN")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--no-color-lock", action="store_true", help="as the option of srgan upscale")
    arguments = parser.parse_args()
    engine = EngineOptions("cpu", "auto", color_lock=False if arguments.no_color_lock else None)
    made = load_upscalers(tuple(arguments.models), arguments.scale, engine)
    methods = {"bicubic": bicubic_enlarger(arguments.scale), **{name: one.upscale for name, one in made.items()}}
    flat = _of_flat_areas(methods, list(_pairs(arguments.data, arguments.sets, arguments.scale)))
    for name, enlarge in methods.items():
        coloured = 100.0 * coloured_fraction(enlarge, arguments.scale)
        print(json.dumps({"model": name, "flat": round(flat[name], 3), "coloured": round(coloured, 3)}), flush=True)
    return 0


# ---------------------------------------------------------------------------------------------------------- flat areas


def _pairs(data: Path, sets: list[str], scale: int) -> Iterator[tuple[RGB, RGB]]:
    for name in sets:
        for one in pairs.find_pairs(*bundled_scores.pair_folders(data, name, scale), scale).files:
            assert one.low is not None
            yield pairs.read_rgb(one.low), pairs.read_rgb(one.high)


def _of_flat_areas(methods: Mapping[str, Enlarge], taken: list[tuple[RGB, RGB]]) -> dict[str, float]:
    totals = dict.fromkeys(methods, 0.0)
    original = 0.0
    for low, high in taken:
        quiet = deviation(high)
        where = quiet < _FLAT_LEVELS
        original += float(quiet[where].sum())
        for name, enlarge in methods.items():
            result = enlarge(low)
            height, width = min(result.shape[0], high.shape[0]), min(result.shape[1], high.shape[1])
            totals[name] += float(deviation(result)[:height, :width][where[:height, :width]].sum())
    return {name: total / original for name, total in totals.items()}


def deviation(picture: RGB) -> Plane:
    """(H, W, 1 or 3) uint8 -> (H, W): the standard deviation of Y within 9×9 px around each, in levels."""
    import cv2

    weights = np.array([0.299, 0.587, 0.114], np.float32) if picture.shape[2] == 3 else np.ones(1, np.float32)
    y = np.ascontiguousarray(picture.astype(np.float32) @ weights)
    mean = cv2.boxFilter(y, -1, (_WINDOW_PX, _WINDOW_PX))
    square = cv2.sqrBoxFilter(y, -1, (_WINDOW_PX, _WINDOW_PX))
    variance: Plane = np.asarray(square - mean * mean, np.float32)
    return np.sqrt(np.maximum(variance, np.float32(0)))


# ---------------------------------------------------------------------------------------------------------------- text


def coloured_fraction(enlarge: Enlarge, scale: int) -> float:
    """The fraction of px near text with a colour that the original does not have nearby."""
    import cv2

    bad = near = 0
    for ink, paper in _INKS:
        high, mask = page(ink, paper)
        result = enlarge(bicubic(high, high.shape[1] // scale, high.shape[0] // scale))
        allowed = cv2.dilate(_saturation(high), np.ones((2 * _REACH_PX + 1,) * 2, np.uint8)) + _ALLOWED_LEVELS
        here = cv2.dilate(mask, np.ones((2 * _NEAR_PX + 1,) * 2, np.uint8)) > 0
        bad += int((_saturation(result) > allowed)[here].sum())
        near += int(here.sum())
    return bad / near


def page(ink: tuple[int, int, int], paper: tuple[int, int, int]) -> tuple[RGB, npt.NDArray[np.uint8]]:
    """A page of text, (480, 640, 3) uint8, and where its letters are, (480, 640) uint8, 255 there."""
    mask = Image.new("L", (640, 480))
    draw, y = ImageDraw.Draw(mask), 12
    for size in (12, 16, 20, 28, 40, 56, 80):
        draw.text((10, y), _TEXT, 255, font=ImageFont.load_default(size))
        y += int(size * 1.5)
    letters = np.asarray(mask)
    part = letters[..., None].astype(np.float32) / 255.0
    high = part * np.array(ink, np.float32) + (1.0 - part) * np.array(paper, np.float32)
    return (high + 0.5).astype(np.uint8), (letters > 32).astype(np.uint8)


def _saturation(picture: RGB) -> Plane:
    numbers = picture.astype(np.float32)
    saturation: Plane = numbers.max(2) - numbers.min(2)
    return saturation


if __name__ == "__main__":
    raise SystemExit(main())
