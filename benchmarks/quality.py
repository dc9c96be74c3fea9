"""How near results come to the originals: Y-channel PSNR and SSIM of models, beside bicubic.

    python -m benchmarks.quality --data DIR [--model NAME ...] [--sets Set5 Set14 BSD100] [--precision fp32|bf16]

DIR holds `SET/x4/low/` and `SET/x4/high/` with pictures of the same names: the files of the field, whose small pictures
are made by MATLAB's `imresize` (the ones of SelfExSR will do). Prints one JSON line per set and model: means over the
pictures, a border as wide as the scale cut off (see `srgan_cli.evaluation.metrics`).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from srgan_cli import EngineOptions, Upscaler, load_model
from srgan_cli.config import DEFAULT_MAX_PIXELS, DEFAULT_MODEL, Precision
from srgan_cli.evaluation.bicubic import bicubic
from srgan_cli.evaluation.metrics import Scores, compare
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.reading import read_image

Enlarge = Callable[[Pixels], Pixels]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="PSNR and SSIM on test sets.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds SET/xN/low and SET/xN/high")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--sets", nargs="+", default=["Set5", "Set14", "BSD100"], metavar="SET")
    parser.add_argument("--precision", choices=("auto", "fp32", "fp16", "bf16"), default="fp32")
    parser.add_argument("--device", default="cpu", help="as in srgan upscale")
    arguments = parser.parse_args()
    options = EngineOptions(device=arguments.device, precision=cast(Precision, arguments.precision))
    upscalers = {name: Upscaler(load_model(name), options) for name in arguments.model or [DEFAULT_MODEL]}
    for test_set in arguments.sets:
        for scale in sorted({upscaler.scale for upscaler in upscalers.values()}):
            folder = arguments.data / test_set / f"x{scale}"
            _report(folder, test_set, "bicubic", scale, partial(_bicubic, scale))
            for name, upscaler in upscalers.items():
                if upscaler.scale == scale:
                    compute = {"device": str(upscaler.compute.device), "precision": upscaler.compute.precision}
                    _report(folder, test_set, upscaler.models[0].name or name, scale, upscaler.upscale, **compute)
    return 0


def _bicubic(scale: int, low: Pixels) -> Pixels:
    return bicubic(low, low.shape[1] * scale, low.shape[0] * scale)


def _report(folder: Path, test_set: str, name: str, scale: int, enlarge: Enlarge, **compute: str) -> None:
    started = time.perf_counter()
    scores = [compare(enlarge(low), high, scale) for low, high in pairs(folder)]
    line = {"set": test_set, "model": name, "scale": scale, **compute, **asdict(mean(scores)), "pictures": len(scores)}
    print(json.dumps({**_rounded(line), "seconds": round(time.perf_counter() - started, 1)}), flush=True)


def pairs(folder: Path) -> Iterator[tuple[Pixels, Pixels]]:
    """Low and high pictures of the same name, in the order of their names."""
    names = sorted(path.name for path in (folder / "high").iterdir())
    if not names:
        raise SystemExit(f"{folder}/high holds no pictures")
    for name in names:
        low, high = (read_image(folder / side / name, max_pixels=DEFAULT_MAX_PIXELS).pixels for side in ("low", "high"))
        yield low, high


def mean(scores: list[Scores]) -> Scores:
    return Scores(*(float(np.mean([getattr(one, field.name) for one in scores])) for field in fields(Scores)))


def _rounded(line: dict[str, object]) -> dict[str, object]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in line.items()}


if __name__ == "__main__":
    raise SystemExit(main())
