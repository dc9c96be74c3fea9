"""How similar a model's results are to a teacher's, on crops of real pictures without an original.

    python -m benchmarks.likeness PICTURE_OR_DIR … --teacher FILE --vgg-weights FILE [--models photo …] [--keep DIR]
        [--crop-px 160] [--max N]

Uses the crop with the most structure of eight random ones in each picture (all of a smaller one), the same ones each
time. Prints one JSON line for bicubic interpolation and for each model: the mean absolute difference to the teacher's
results in levels of 0 … 255, and VGG19's distance (conv3_4 before its ReLU, relative to the teacher's features), means
over the crops; 0 means identical results. `--keep` saves the crops and all results as PNG; the teacher's results are
then reused.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.quality import vgg_metric
from srgan_cli.config import DEFAULT_MAX_PIXELS, EngineOptions
from srgan_cli.errors import PictureError
from srgan_cli.evaluation.evaluate import bicubic_enlarger
from srgan_cli.evaluation.session import load_upscalers
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.rgb import RGB, read_rgb

_LAYER = "conv3_4"
_TRIES = 8


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.likeness", description="How like a teacher models are.")
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE_OR_DIR")
    parser.add_argument("--teacher", required=True, metavar="FILE", help="as --model of srgan upscale")
    parser.add_argument("--vgg-weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--models", nargs="+", default=["photo"], metavar="NAME|RUN")
    parser.add_argument("--keep", type=Path, metavar="DIR")
    parser.add_argument("--crop-px", type=int, default=160)
    parser.add_argument("--max", type=int, default=10**6, metavar="N", help="at most N pictures")
    parser.add_argument("--scale", type=int, default=4)
    arguments = parser.parse_args()
    crops = dict(_crops(arguments.pictures, arguments.crop_px, arguments.max))
    made = {"teacher": _results(crops, arguments.teacher, arguments.scale, arguments.keep)}
    bicubic = bicubic_enlarger(arguments.scale)
    made["bicubic"] = {name: bicubic(low) for name, low in crops.items()}
    for model in arguments.models:
        made[model] = _results(crops, model, arguments.scale, None)
    if arguments.keep is not None:
        _keep(arguments.keep, {"low": crops, **made})
    _print(made, arguments.vgg_weights)
    return 0


def _crops(sources: Sequence[Path], side_px: int, max_pictures: int) -> Iterator[tuple[str, RGB]]:
    taken = 0
    for path in _files(sources):
        try:
            picture = read_rgb(path, max_pixels=DEFAULT_MAX_PIXELS)
        except PictureError as err:
            print(f"{path.name}: {err}", file=sys.stderr)
            continue
        if taken >= max_pictures:
            return
        taken += 1
        yield f"{path.parent.name}-{path.stem}", busiest(picture, side_px, seed=zlib.crc32(path.name.encode()))


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        inside = (
            sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES)
            if source.is_dir()
            else [source]
        )
        yield from inside


def busiest(picture: RGB, side_px: int, *, seed: int) -> RGB:
    """Of some random crops, (side_px, side_px, 3) or less, the one with the most structure, to avoid empty sky."""
    height, width = (min(side, side_px) for side in picture.shape[:2])
    rng = np.random.default_rng(seed)

    def crop() -> RGB:
        top = int(rng.integers(picture.shape[0] - height + 1))
        left = int(rng.integers(picture.shape[1] - width + 1))
        return picture[top : top + height, left : left + width]

    def business(crop: RGB) -> float:
        return float(np.abs(np.diff(crop.astype(np.float32).mean(2), axis=0)).mean())

    return max((crop() for _ in range(_TRIES)), key=business)


def _results(crops: dict[str, RGB], model: str, scale: int, kept: Path | None) -> dict[str, RGB]:
    """A model's results for each crop; results saved in the folder `teacher` are reused."""
    upscale: Callable[[RGB], RGB] | None = None
    results = {}
    for name, low in crops.items():
        path = kept and kept / "teacher" / f"{name}.png"
        if path and path.exists():
            results[name] = read_rgb(path, max_pixels=DEFAULT_MAX_PIXELS)
            continue
        if upscale is None:
            upscale = next(iter(load_upscalers((model,), scale, EngineOptions("cpu", "auto")).values())).upscale
        results[name] = upscale(low)
    return results


def _keep(folder: Path, made: dict[str, dict[str, RGB]]) -> None:
    for method, results in made.items():
        into = folder / Path(method).name
        into.mkdir(parents=True, exist_ok=True)
        for name, pixels in results.items():
            Image.fromarray(pixels).save(into / f"{name}.png")


def _print(made: dict[str, dict[str, RGB]], vgg_weights: Path) -> None:
    from srgan_cli.networks.features import load_features

    distance = vgg_metric(load_features("vgg19", (_LAYER,), "before", vgg_weights), half=True).measure
    rows: dict[str, list[tuple[float, float]]] = {method: [] for method in made if method != "teacher"}
    for name, teacher in made["teacher"].items():
        for method, row in rows.items():
            result = made[method][name]
            looks = distance(result, teacher)
            levels = float(np.abs(result.astype(np.float32) - teacher).mean())
            row.append((levels, float("nan") if looks is None else looks))
    for method, row in rows.items():
        levels, looks = np.nanmean(row, axis=0)
        facts = {"model": method, "levels": round(float(levels), 3), f"vgg19_{_LAYER}": round(float(looks), 4)}
        print(json.dumps({**facts, "pictures": len(row)}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
