"""Does unpaired adaptation learn a wear that the code does not know? Worn sets, two trainings, and their scores.

    python -m benchmarks.adaptation --photos DIR --test DIR --vgg-weights FILE [--out DIR] [--budget 30m] [--threads N]
        [--only sets adapt pairs scores]

`--photos` are sharp ones; by their names (`NAME_0.jpg` and `NAME_1.jpg` count as one photograph) two thirds become the
sharp pictures, and worn copies of some others are `mine`, without their originals. `--test` holds `Set14/x4/high` and
`BSD100/x4/high`, as the field has them. The wear is one fixed chain in px of the low picture: bicubic downscaling, a
Gaussian blur of 1.4 px across and 0.7 down, normal noise of 9 levels smoothed by a Gaussian of 0.5 px, a cast (red
times 1.03, blue times 0.95), JPEG of quality 60 with halved chroma. It is written here and nowhere in the program.

`adapt` runs `srgan train --preset adapt` on the two sets; `pairs` trains the same network with the same losses for as
long on the true pairs of the sharp pictures, which a person with worn pictures only does not have. `scores` prints a
JSON line for each model and test set, and a table.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.rgb import RGB, read_rgb
from srgan_cli.training_presets import PRESETS

_SCALE = 4
_MAX_PIXELS = 50_000_000
_MINE = 250  # worn pictures
_TESTS = ("Set14", "BSD100")
_STEPS = ("sets", "adapt", "pairs", "scores")


@dataclass(frozen=True)
class Setup:
    """Where everything is, and how long a training takes."""

    photos: Path
    test: Path
    vgg_weights: Path
    out: Path
    budget: str
    threads: int


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptation", description="Measure unpaired adaptation.")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="sharp photographs")
    parser.add_argument("--test", type=Path, required=True, metavar="DIR", help="with Set14/x4/high and BSD100/x4/high")
    parser.add_argument("--vgg-weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("runs/adaptation"), metavar="DIR")
    parser.add_argument("--budget", default="30m", metavar="TIME", help="of each training")
    parser.add_argument("--threads", type=int, default=0, metavar="N")
    parser.add_argument("--only", nargs="+", choices=_STEPS, default=_STEPS, metavar="STEP")
    arguments = vars(parser.parse_args())
    steps, places = arguments.pop("only"), Setup(**arguments)
    if "sets" in steps:
        make_sets(places)
    for name in ("adapt", "pairs"):
        if name in steps and (code := _train(places, name)):
            return code
    if "scores" in steps:
        _print_table(list(scores(places)))
    return 0


# The folders, and the length of a training run.


def make_sets(places: Setup) -> None:
    """`sharp`, their worn counterparts `sharp-low` (for `pairs` only), `mine`, and each test set, worn."""
    photos = sorted(path for path in places.photos.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    others = [path for path in photos if _number(path) % 3 == 0]
    for path in photos:
        if _number(path) % 3:
            _keep_pair(path, places.out / "sharp", places.out / "sharp-low")
    for path in others[:: max(1, len(others) // _MINE)][:_MINE]:
        _write(places.out / "mine" / f"{path.stem}.jpg", worn(_cut(path), _number(path)))
    for test in _TESTS:
        for path in sorted((places.test / test / "x4" / "high").iterdir()):
            _keep_pair(path, places.out / test / "high", places.out / test / "low")


def worn(high: RGB, seed: int) -> bytes:
    """A low version of `high`, as a JPEG file: the chain in the module's docstring."""
    low = bicubic(high, high.shape[1] // _SCALE, high.shape[0] // _SCALE).astype(np.float32)
    low = _blurred(low, 1.4, 0.7)
    noise = np.random.default_rng(seed).normal(0, 9, low.shape).astype(np.float32)
    low = (low + _blurred(noise, 0.5, 0.5)) * np.array([1.03, 1.0, 0.95], np.float32)
    file = io.BytesIO()
    pixels = np.clip(low + 0.5, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=60, subsampling="4:2:0")
    return file.getvalue()


def _blurred(picture: npt.NDArray[np.float32], across_px: float, down_px: float) -> npt.NDArray[np.float32]:
    blurred = cv2.GaussianBlur(picture, (0, 0), sigmaX=across_px, sigmaY=down_px, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, np.float32)


def _number(path: Path) -> int:
    """Equal for parts of the same photograph."""
    return zlib.crc32(path.stem.rpartition("_")[0].encode() or path.stem.encode())


def _cut(path: Path) -> RGB:
    pixels = read_rgb(path, max_pixels=_MAX_PIXELS)
    height, width = (side // _SCALE * _SCALE for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[:height, :width])


def _keep_pair(path: Path, high_folder: Path, low_folder: Path) -> None:
    """Save the original under its own name, as PNG if it had to be cropped, and its worn counterpart."""
    pixels = _cut(path)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    _write(high_folder / f"{path.stem}.png", file.getvalue())
    _write(low_folder / f"{path.stem}.jpg", worn(pixels, zlib.crc32(path.name.encode())))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ----------------------------------------------------------------------------------------------------------- trainings


def _train(places: Setup, name: str) -> int:
    if (places.out / f"run-{name}" / "report.html").exists() and _is_finished(places.out / f"run-{name}"):
        return 0
    command = [sys.executable, "-m", "srgan_cli", "train", *_options(places, name)]
    return subprocess.run(command, check=False).returncode


def _is_finished(run: Path) -> bool:
    return '"event": "finished"' in (run / "log.jsonl").read_text(encoding="utf-8")


def _options(places: Setup, name: str) -> list[str]:
    common = [
        *("--hr-dir", str(places.out / "sharp"), "--budget", places.budget, "--out", str(places.out / f"run-{name}")),
        *("--vgg-weights", str(places.vgg_weights)),
        *(("--threads", str(places.threads)) if places.threads else ()),
    ]
    if name == "adapt":
        return ["--unpaired-lr-dir", str(places.out / "mine"), "--preset", "adapt", *common]
    _, settings = PRESETS["adapt"]
    losses = [f"adversarial.{key}={value}" for key, value in settings["adversarial"].items()]
    data = [f"data.{key}={value}" for key, value in settings["data"].items()]
    low = ["--lr-dir", str(places.out / "sharp-low"), "--phase", "adversarial", "--init", str(settings["init"])]
    # Rotated pairs would show it wear in all directions; without rotation, it can learn the actual one.
    return [*low, *common, "--set", *losses, *data, "data.augment=false"]


# -------------------------------------------------------------------------------------------------------------- scores


def scores(places: Setup) -> Iterator[dict[str, object]]:
    """Means over each worn test set, for bicubic enlargement, the unadapted `photo`, and both trained models."""
    runs = [str(places.out / f"run-{name}") for name in ("adapt", "pairs")]
    models = ["photo", *(run for run in runs if Path(run).exists())]
    for test in _TESTS:
        folder = places.out / test
        command = [
            *(sys.executable, "-m", "srgan_cli", "evaluate", "--hr-dir", str(folder / "high")),
            *("--lr-dir", str(folder / "low"), "--metrics", "vgg19", "--vgg-weights", str(places.vgg_weights)),
            *("--scale", str(_SCALE), "--json", "--quiet"),
            *(part for model in models for part in ("--model", model)),
        ]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for name, mean in _means(json.loads(found)):
            line = {"test": test, "model": Path(name).name, **mean}
            print(json.dumps(line), flush=True)
            yield line


def _means(report: dict[str, object]) -> Iterator[tuple[str, dict[str, float]]]:
    methods = report["methods"]
    assert isinstance(methods, dict)
    for name, values in methods.items():
        yield name, {key: values["mean"][key] for key in ("psnr_y_db", "ssim_y", "vgg19_conv3_4")}


def _print_table(lines: Sequence[dict[str, object]]) -> None:
    print("| | PSNR Y, dB | SSIM Y | VGG19 |\n| --- | --- | --- | --- |")
    for line in lines:
        cells = (f"{line[key]:.{places}f}" for key, places in (("psnr_y_db", 2), ("ssim_y", 4), ("vgg19_conv3_4", 4)))
        print(f"| {line['test']}: {line['model']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    raise SystemExit(main())
