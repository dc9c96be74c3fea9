"""Makes the contact sheets of docs/MODELS.md and of the models' pages.

    python -m benchmarks.sheets --data DIR [NAME …]

DIR is that of `benchmarks.quality`. Every sheet is made by `srgan compare`, whose command is printed, and saved as JPEG
in docs/images.
"""

from __future__ import annotations

import argparse
import io
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from benchmarks import auto
from benchmarks import scores as bundled_scores
from benchmarks.detail import IMAGES

MAX_BYTES = 290_000
ALL = ("fidelity", "srgan", "photo")
_WEAR = {"": auto.png, "jpeg": auto.jpeg(50), "noise": auto.noisy(15.0)}


class SheetPlan(NamedTuple):
    pictures: dict[str, tuple[int, ...]]  # of each set, by number
    models: tuple[str, ...] = ALL
    scale: int = 4
    crop_px: int = 128
    zoom: int = 100
    at: str = ""  # fractions of width and height; by default where the results differ most
    worn: str = ""  # a key of _WEAR: how the low pictures were degraded before


SHEETS = {
    "models-1": SheetPlan({"Set14": (2, 13), "BSD100": (24, 49, 41)}),
    "models-faces": SheetPlan({"Set14": (6, 8, 9), "BSD100": (35, 63, 88)}, at="0.52,0.42"),
    "models-2": SheetPlan({"BSD100": (86, 57, 25, 28, 88, 48)}),
    "models-3": SheetPlan({"BSD100": (22, 68, 3, 45, 52, 95)}),
    "models-4": SheetPlan({"BSD100": (62, 51, 97, 17, 81, 46, 67)}),
    "models-200": SheetPlan({"Set14": (13,), "BSD100": (35, 86, 25, 22, 62, 46)}, crop_px=64, zoom=200),
    "models-x2": SheetPlan({"Set14": (2, 13), "BSD100": (35, 86, 25, 22, 62, 46)}, scale=2),
    "models-jpeg": SheetPlan({"Set14": (13,), "BSD100": (35, 86, 25, 22, 62, 46)}, worn="jpeg"),
    "fails-fidelity-x4": SheetPlan({"Set14": (1, 2, 5)}, ("fast", "fidelity"), crop_px=80, zoom=200),
    "fails-srgan-x4": SheetPlan({"Set14": (2, 5), "BSD100": (94,)}, ("fidelity", "srgan"), crop_px=80, zoom=200),
    "fails-photo-x4": SheetPlan({"BSD100": (35, 22)}, ("srgan", "photo"), crop_px=80, zoom=200, worn="noise"),
    "fails-x2": SheetPlan({"Set14": (1, 2, 13)}, ("fast", *ALL), scale=2, crop_px=64, zoom=200),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SHEETS)}; all by default")
    args = parser.parse_args()
    for name in args.names or SHEETS:
        make(SHEETS[name], args.data, IMAGES / f"{name}.jpg")
    return 0


def make(sheet: SheetPlan, data: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        low, high, made = Path(folder) / "low", Path(folder) / "high", Path(folder) / "sheet.png"
        for into in (low, high):
            into.mkdir()
        names = list(_pictures(sheet, data, low, high))
        command = ["compare", *(f"low/{name}" for name in names), "--models", ",".join(sheet.models)]
        command += ["--high-dir", "high", "--low", "--scale", str(sheet.scale)]
        command += ["--at", sheet.at] if sheet.at else ["--crops", "1"]
        command += ["--crop-px", str(sheet.crop_px), "--zoom", str(sheet.zoom), "-o", "sheet.png"]
        sys.stderr.write(f"{target.name}: srgan {shlex.join(command)}\n")
        subprocess.run([sys.executable, "-m", "srgan_cli", *command], check=True, cwd=folder)
        target.write_bytes(_as_jpeg(Image.open(made).convert("RGB")))


def _pictures(sheet: SheetPlan, data: Path, low: Path, high: Path) -> Iterable[str]:
    """Write each picture, degraded, and its original into these folders; returns the names of the former."""
    suffix = ".jpg" if sheet.worn == "jpeg" else ".png"
    for name, numbers in sheet.pictures.items():
        originals, smalls = bundled_scores.pair_folders(data, name, sheet.scale)
        for number in numbers:
            file, source = f"{name}-{number:03}", f"img_{number:03}.png"
            small = np.asarray(Image.open(smalls / source).convert("RGB"))
            (low / f"{file}{suffix}").write_bytes(_WEAR[sheet.worn](small, number))
            Image.open(originals / source).save(high / f"{file}.png")
            yield f"{file}{suffix}"


def _as_jpeg(sheet: Image.Image, qualities: Sequence[int] = (92, 88, 84, 80, 75)) -> bytes:
    for quality in qualities:
        data = io.BytesIO()
        sheet.save(data, "JPEG", quality=quality, optimize=True)
        if data.tell() <= MAX_BYTES:
            break
    return data.getvalue()


if __name__ == "__main__":
    sys.exit(main())
