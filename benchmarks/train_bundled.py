"""Trains the bundled models again, or continues with what is unfinished: the recipes, as data.

    python -m benchmarks.train_bundled --photos DIR --teacher FILE --vgg-weights FILE [--out runs] [--only NAME …]
        [--list]

Each recipe is a list of stages; a stage is one `srgan train` (or a command that makes its pictures). Finished stages
are skipped and interrupted ones resume, so the same command continues the work, on another day or another machine.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TAUGHT = (
    "--set data.levels=[1.0] --set data.min_std=0 --set adversarial.learning_rate=3e-4 "
    "--set adversarial.pixel_weight=2 --set adversarial.perceptual_weight=1 --set adversarial.adversarial_weight=0.05 "
    "--set adversarial.spectrum_weight=0"  # not yet known
)
_FIRST = (
    "--set fidelity.optimizer=adamw --set fidelity.learning_rate=5e-4 --set fidelity.frequency_weight=5 "
    "--set fidelity.warmup_steps=50"
)


@dataclass(frozen=True)
class Stage:
    """One command. `made`: the file that exists when it is finished, below the folder of runs; `{…}` are the
    arguments."""

    command: str
    made: str


@dataclass(frozen=True)
class Recipe:
    """How a model was made. The last run is the bundled model, or is averaged with the model before it."""

    name: str
    stages: tuple[Stage, ...]


def _train(run: str, options: str) -> Stage:
    return Stage(f"-m srgan_cli train {options} --vgg-weights {{vgg}} --out {{out}}/{run}", f"{run}/report.html")


def _weights(perceptual: float, adversarial: float) -> str:
    return f"--set adversarial.perceptual_weight={perceptual} --set adversarial.adversarial_weight={adversarial}"


_PAIRS = Stage("-m benchmarks.pairs {photos} {teacher} {out}/pairs --seconds 1200 --seed 1", "pairs/finished")
_X4 = "--hr-dir {out}/pairs/taught --lr-dir {out}/pairs/low"
_X2 = "--hr-dir {out}/pairs/taught-x2 --lr-dir {out}/pairs/low --scale 2"


def _light(scale: int) -> Stage:
    command = f"-m benchmarks.light_pairs {{photos}} {{out}}/drawings --pairs {{out}}/pairs --scale {scale}"
    return Stage(command, f"pairs/mixed-x{scale}/finished")


_MIXED_X4 = "--hr-dir {out}/pairs/mixed-x4/high --lr-dir {out}/pairs/mixed-x4/low"
_MIXED_X2 = "--hr-dir {out}/pairs/mixed-x2/high --lr-dir {out}/pairs/mixed-x2/low --scale 2"

_SHARP_LOSSES = (
    "--hr-dir {photos} --hr-dir {out}/drawings --phase adversarial "
    "--set adversarial.pixel_weight=0.3 --set adversarial.perceptual_weight=3 "
    "--set adversarial.adversarial_weight=0.08 --set adversarial.chroma_weight=5 --set adversarial.flat_weight=3 "
    "--set adversarial.discriminator_learning_rate=3e-4"
)
_SHARP = f"{_SHARP_LOSSES} --batch 8 --set adversarial.perceptual_crops=4 --set adversarial.learning_rate=2e-4"
# On an H100, three of them and another run at the same time.
_SHARP_GPU = (
    f"{_SHARP_LOSSES} --batch 32 --set adversarial.learning_rate=4e-4 --set adversarial.spectrum_weight=2 --budget 425s"
)
_SHARPER = (
    f"{_SHARP} --init {{out}}/srgan-x4-hi/srgan-x4.safetensors --set adversarial.pixel_weight=0.2 "
    "--set adversarial.perceptual_crops=6 --set adversarial.spectrum_weight=2 --set adversarial.consistency_weight=3"
)
_DRAWINGS = Stage("-m benchmarks.drawings {out}/drawings --count 100 --seed 1", "drawings/drawing-099.png")

_WITH_NOISE = _train(
    "srgan-noise-x4",
    f"{_SHARP} --init srgan-x4 --seed 12 --set generator.noise=true --set adversarial.spectrum_weight=2 "
    "--set adversarial.diversity_weight=4e-4 --budget 42m",
)

RECIPES = (
    Recipe(
        "photo-x4",
        (
            _PAIRS,
            _train(
                "photo-x4-a",
                f"{_X4} --init photo-x4 --phase fidelity --batch 16 --crop 192 {_FIRST} {_TAUGHT} --budget 14m",
            ),
            _train(
                "photo-x4-b",
                f"{_X4} --init {{out}}/photo-x4-a --phase adversarial --batch 12 --crop 192 {_TAUGHT} "
                "--set adversarial.perceptual_crops=4 --budget 38m",
            ),
            _train(
                "photo-x4-c",
                f"{_X4} --init {{out}}/photo-x4-b --phase adversarial --batch 12 --crop 192 --seed 5 {_TAUGHT} "
                "--set adversarial.learning_rate=4e-4 --set adversarial.perceptual_crops=4 --budget 20m",
            ),
            # On an H100, with 8,464 pairs that thirteen processes of `pairs` had made there in 50 s.
            _train(
                "photo-x4-d",
                f"{_X4} --init {{out}}/photo-x4-c --phase adversarial --batch 32 --crop 192 --seed 7 {_TAUGHT} "
                "--set adversarial.learning_rate=6e-4 --set adversarial.pixel_weight=1 --budget 470s",
            ),
            _DRAWINGS,
            # As photo-x2 below. Without `spectrum_weight` this drew faint dots.
            _light(4),
            _train(
                "photo-x4-e",
                f"{_MIXED_X4} --init {{out}}/photo-x4-d --phase adversarial --batch 12 --crop 192 --seed 9 {_TAUGHT} "
                "--set adversarial.learning_rate=2e-4 --set adversarial.pixel_weight=1 "
                "--set adversarial.perceptual_crops=4 --set adversarial.spectrum_weight=2 --budget 60m",
            ),
        ),
    ),
    Recipe(
        "srgan-x4",
        (
            _DRAWINGS,
            _train(
                "srgan-x4-fifth",
                f"{_SHARP} --init srgan-x4 --seed 11 --set adversarial.spectrum_weight=0 --budget 36m",
            ),
            _WITH_NOISE,  # the mean of both runs, without noise, is better than either
            _train("srgan-x4-g", f"{_SHARP_GPU} --init srgan-x4 --crop 192 --seed 21"),
            _train(
                "srgan-x4-h",
                f"{_SHARP_GPU} --init srgan-x4 --crop 192 --seed 22 --set adversarial.perceptual_weight=8 "
                "--set adversarial.adversarial_weight=0.1",
            ),
            Stage(
                "-m benchmarks.bundle {out}/srgan-x4-g --mean-with {out}/srgan-x4-h --weights {out}/srgan-x4-gh "
                "--name srgan-x4 --family srgan --description 'the next run begins with it'",
                "srgan-x4-gh/srgan-x4.safetensors",
            ),
            _train(
                "srgan-x4-i",
                f"{_SHARP} --init {{out}}/srgan-x4-gh/srgan-x4.safetensors --seed 31 "
                "--set adversarial.pixel_weight=0.2 --set adversarial.perceptual_weight=10 "
                "--set adversarial.perceptual_crops=6 --set adversarial.spectrum_weight=2 --budget 45m",
            ),
            Stage(
                "-m benchmarks.bundle {out}/srgan-x4-i --mean-with {out}/srgan-x4-h --weights {out}/srgan-x4-hi "
                "--name srgan-x4 --family srgan --description 'the next two runs begin with it'",
                "srgan-x4-hi/srgan-x4.safetensors",
            ),
            # Each on a core with AVX2; .7 of the second and .3 of the first are bundled.
            _train("srgan-x4-j", f"{_SHARPER} --seed 41 {_weights(16, 0.1)} --budget 98m"),
            _train("srgan-x4-k", f"{_SHARPER} --seed 42 {_weights(24, 0.12)} --budget 94m"),
        ),
    ),
    Recipe("srgan-noise-x4", (_DRAWINGS, _WITH_NOISE)),
    Recipe(
        "srgan-x2",
        (
            _DRAWINGS,
            _train(
                "srgan-x2-b",
                f"{_SHARP} --init srgan-x2 --scale 2 --crop 96 --seed 12 --set adversarial.spectrum_weight=2 "
                "--budget 40m",
            ),
            _train("srgan-x2-c", f"{_SHARP_GPU} --init srgan-x2 --scale 2 --crop 96 --seed 23"),
        ),
    ),
    Recipe(
        "photo-x2",
        (
            _PAIRS,
            _train(
                "photo-x2",
                f"{_X2} --init {{out}}/photo-x4-d --set generator.grow=true --phase adversarial --batch 12 --crop 96 "
                f"--seed 4 {_TAUGHT} --set adversarial.learning_rate=4e-4 --set adversarial.pixel_weight=1 "
                "--set adversarial.perceptual_crops=8 --budget 24m",
            ),
            _DRAWINGS,
            # With weak effect on almost clean pictures: a third of the pairs have the original as their target.
            _light(2),
            _train(
                "photo-x2-b",
                f"{_MIXED_X2} --init {{out}}/photo-x2 --phase adversarial --batch 12 --crop 96 --seed 8 {_TAUGHT} "
                "--set adversarial.learning_rate=5e-4 --set adversarial.pixel_weight=1 "
                "--set adversarial.perceptual_crops=6 --budget 28m",
            ),
            _train(
                "photo-x2-c",
                f"{_MIXED_X2} --init {{out}}/photo-x2-b --phase adversarial --batch 12 --crop 96 --seed 9 {_TAUGHT} "
                "--set adversarial.learning_rate=2e-4 --set adversarial.pixel_weight=1 "
                "--set adversarial.perceptual_crops=6 --set adversarial.spectrum_weight=2 --budget 50m",
            ),
        ),
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train_bundled", description="Train the bundled models.")
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="sharp photographs")
    parser.add_argument("--teacher", type=Path, required=True, metavar="FILE", help="Real-ESRGAN's x4plus")
    parser.add_argument("--vgg-weights", type=Path, required=True, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("runs"), metavar="DIR")
    parser.add_argument("--only", nargs="+", choices=[recipe.name for recipe in RECIPES], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="print the commands that are left, and run nothing")
    arguments = parser.parse_args()
    places = {
        "photos": arguments.photos, "teacher": arguments.teacher, "vgg": arguments.vgg_weights, "out": arguments.out,
    }  # fmt: skip
    chosen = [recipe for recipe in RECIPES if not arguments.only or recipe.name in arguments.only]
    for command in left(chosen, places):
        print(shlex.join(["python", *command]), flush=True)
        if not arguments.list and (code := subprocess.run([sys.executable, *command], check=False).returncode):
            return code
    return 0


def left(recipes: Sequence[Recipe], places: Mapping[str, Path]) -> Iterator[list[str]]:
    """The commands of all stages that are not finished yet, each as arguments of Python."""
    for recipe in recipes:
        for stage in recipe.stages:
            if not (places["out"] / stage.made).exists():
                yield shlex.split(stage.command.format(**{name: shlex.quote(str(at)) for name, at in places.items()}))


if __name__ == "__main__":
    raise SystemExit(main())
