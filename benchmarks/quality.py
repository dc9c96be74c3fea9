"""How near results come to the originals: all scores of models on the field's test sets, beside bicubic and Lanczos.

    python -m benchmarks.quality --data DIR [--model NAME ...] [--sets Set5 Set14 BSD100] [--precision fp32|bf16]

DIR holds `SET/x4/low/` and `SET/x4/high/` with pictures of the same names: the files of the field, whose small pictures
are made by MATLAB's `imresize` (the ones of SelfExSR will do). Prints one JSON line per set and method: what
`srgan evaluate` tells of them, by the same function and the same conventions (`srgan_cli.evaluation.metrics`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast, get_args

from srgan_cli.config import DEFAULT_MODEL, EngineOptions, Precision
from srgan_cli.errors import SrganError
from srgan_cli.evaluation import further
from srgan_cli.evaluation.session import EvaluateOptions, Report, run
from srgan_cli.upscaling.session import select


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description="All scores on test sets.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds SET/xN/low and SET/xN/high")
    parser.add_argument("--model", action="append", metavar="NAME", help="may be repeated")
    parser.add_argument("--sets", nargs="+", default=["Set5", "Set14", "BSD100"], metavar="SET")
    parser.add_argument("--metrics", nargs="*", choices=further.NAMES, default=["niqe"], help="beside PSNR and SSIM")
    parser.add_argument("--vgg-weights", type=Path, metavar="FILE", help="for vgg19, instead of torchvision's")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--device", default="cpu", help="as in srgan upscale")
    arguments = parser.parse_args()
    for test_set in arguments.sets:
        for scale, models in _by_scale(arguments.model or [DEFAULT_MODEL]).items():
            folder = arguments.data / test_set / f"x{scale}"
            options = EvaluateOptions(
                high_dir=folder / "high",
                low_dir=folder / "low",
                scale=scale,
                models=tuple(models),
                metrics=tuple(arguments.metrics),
                vgg_weights=arguments.vgg_weights,
                engine=EngineOptions(device=arguments.device, precision=cast(Precision, arguments.precision)),
            )
            try:
                report = run(options)
            except SrganError as err:
                raise SystemExit(str(err)) from err
            for line in _lines(report):
                print(json.dumps({"set": test_set, **line}), flush=True)
    return 0


def _by_scale(models: list[str]) -> dict[int, list[str]]:
    """Which of the models there are for each scale."""
    scales: dict[int, list[str]] = {}
    for model in models:
        for scale in select(model).scales:
            scales.setdefault(scale, []).append(model)
    return dict(sorted(scales.items()))


def _lines(report: Report) -> Iterator[dict[str, object]]:
    if report.failures:  # a mean over other pictures than everyone's is no score of the set
        raise SystemExit("\n".join(report.failures))
    for method, evaluation in report.methods.items():
        scores = {key: round(value, 4) for key, value in evaluation.mean.items()}
        facts = {"model": method, "scale": report.scale, **report.compute.get(method, {})}
        yield {**facts, **scores, "pictures": len(evaluation.pictures)}


if __name__ == "__main__":
    raise SystemExit(main())
