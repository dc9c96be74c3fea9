"""Whether `--grain auto` restores the input's grain. Pictures are enlarged four times by `srgan upscale`, with and
without it, and downscaled bicubically to the input's size; the three are compared where the input is flat.

    python -m benchmarks.grain PICTURE [PICTURE ...] [--model NAME] [--noise LEVELS] [--kernel PX]

One JSON line a picture (of its middle): for `input`, `clean` and `grain` the standard deviation (luma, in levels of
255) in the darker and in the lighter half of the flat places, and the correlation of px at distances of 1 and 2.
`--noise` first adds Gaussian noise of that standard deviation to each channel, white or (`--kernel`) through a
Gaussian. With `--noise`, flat places are determined before adding it; otherwise as by `srgan`.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from srgan_cli import UpscaleOptions, upscale_file
from srgan_cli.config import WriteOptions
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.grain import BLOCK, measure
from srgan_cli.imaging.reading import read_image
from srgan_cli.imaging.rgb import read_rgb
from srgan_cli.imaging.standards import luma
from srgan_cli.sizes import Size

_SIDE_PX, _SCALE, _PLACES, _FLAT_LEVELS = 480, 4, 120, 3.0

Array = np.ndarray[Any, Any]


def noisy(picture: Array, std: float, kernel_px: float) -> Array:
    """(H, W, C) uint8, with noise of that standard deviation."""
    import cv2

    noise: Any = np.random.default_rng(1).normal(0, 1, picture.shape)
    noise = cv2.GaussianBlur(noise, (0, 0), kernel_px) if kernel_px else noise
    result: Array = (picture + std * noise / noise.std()).round().clip(0, 255).astype(np.uint8)
    return result


def enlarged(picture: Array, model: str, grain: float | str | None) -> Array:
    """Enlarged by the program, and downscaled to the original size."""
    data = io.BytesIO()
    Pillow.fromarray(picture).save(data, "png")
    options = UpscaleOptions(
        model=model,
        size=Size(scale=_SCALE),
        write=WriteOptions("png"),
        grain=grain,  # type: ignore[arg-type]
    )
    result = read_image(upscale_file(data.getvalue(), None, options), max_pixels=1 << 30).pixels
    small: Array = bicubic(result, picture.shape[1], picture.shape[0])
    return small


def flat_places(picture: Array, without: Array | None) -> list[tuple[int, int]]:
    """For each block, whether it is flat without noise, or is classified as flat."""
    if without is None:
        found = measure([picture], _PLACES)
        return [] if found is None else [(top, left) for _, top, left in found.flat]
    levels = luma(without, np.float64)
    all_places = [
        (top, left)
        for top in range(0, levels.shape[0] - BLOCK + 1, BLOCK)
        for left in range(0, levels.shape[1] - BLOCK + 1, BLOCK)
    ]
    blocks = [levels[top : top + BLOCK, left : left + BLOCK] for top, left in all_places]
    return [
        place
        for place, block in zip(all_places, blocks, strict=True)
        if block.std() < _FLAT_LEVELS and 25 < block.mean() < 230
    ]


def grain_of(picture: Array, places: Sequence[tuple[int, int]], lighter: Array) -> dict[str, float]:
    """The grain in flat blocks, without their best-fit plane."""
    levels = luma(picture, np.float64)
    y, x = np.mgrid[0:BLOCK, 0:BLOCK].reshape(2, -1)
    basis, _ = np.linalg.qr(np.stack([np.ones(BLOCK**2), x, y], 1).astype(float))
    blocks = np.stack([levels[top : top + BLOCK, left : left + BLOCK].ravel() for top, left in places])
    rest = (blocks - blocks @ basis @ basis.T).reshape(-1, BLOCK, BLOCK)
    power = (rest**2).mean()
    near = [((rest[:, :, d:] * rest[:, :, :-d]).mean() + (rest[:, d:] * rest[:, :-d]).mean()) / 2 for d in (1, 2)]
    return {
        "dark": round(float(np.sqrt((rest[~lighter] ** 2).mean())), 2),
        "light": round(float(np.sqrt((rest[lighter] ** 2).mean())), 2),
        "at_1_px": round(float(near[0] / power), 2),
        "at_2_px": round(float(near[1] / power), 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grain", description=__doc__)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--model", default="photo")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--kernel", type=float, default=0.0)
    asked = parser.parse_args(arguments)
    for path in asked.pictures:
        whole = read_rgb(path, max_pixels=1 << 30)
        top, left = (max(0, (side - _SIDE_PX) // 2) for side in whole.shape[:2])
        picture = whole[top : top + _SIDE_PX, left : left + _SIDE_PX]
        without = picture if asked.noise else None
        picture = noisy(picture, asked.noise, asked.kernel) if asked.noise else picture
        about = {"picture": path.name, "model": asked.model, "noise": asked.noise, "kernel": asked.kernel}
        places = flat_places(picture, without)
        if not places:
            sys.stdout.write(json.dumps({**about, "input": None}) + "\n")
            continue
        means = np.array([picture[top : top + BLOCK, left : left + BLOCK].mean() for top, left in places])
        lighter = means >= np.median(means)
        row = {
            "input": grain_of(picture, places, lighter),
            "clean": grain_of(enlarged(picture, asked.model, None), places, lighter),
            "grain": grain_of(enlarged(picture, asked.model, "auto"), places, lighter),
        }
        sys.stdout.write(json.dumps({**about, "blocks": len(places), **row}) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
