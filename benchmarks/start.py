"""Start-up costs, as ratios to `import torch` measured in the same round.

    python -m benchmarks.start              # all cases, one JSON line each
    python -m benchmarks.start --repeats 7  # more rounds: the median of the ratios is reported, and the minimum

    help       `srgan --help`
    dry-run    `srgan upscale --dry-run` of one picture of 120 px
    upscale    `srgan upscale` of it: the process from its start to its end
    doctor     `srgan doctor`
    torch      `python -c "import torch"`, the process: the divisor of the four above
    load_model, Upscaler, first, second    inside a process: loading the model, making the `Upscaler`, the first and
               the second picture of 120 px; divided by `import torch` in that process

Seconds are wall-clock time; `cpu_ratio` is the ratio of processor times, which depends less on other load.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "cat.jpg"
SIDE_PX = 120


class StartCost(NamedTuple):
    seconds: float
    cpu_seconds: float


# One round of one measurement: by case, its cost and torch's.
Turn: TypeAlias = dict[str, tuple[StartCost, StartCost]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="srgan-x4")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(inside(args.model)))
        return
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small.png"
        write_small(small)
        turns = [{**processes(small, args.model), **in_one_process(args.model)} for _ in range(args.repeats)]
    for case in turns[0]:
        report(case, args.model, [turn[case] for turn in turns])


def report(case: str, model: str, turns: list[tuple[StartCost, StartCost]]) -> None:
    ratios = [cost.seconds / torch.seconds for cost, torch in turns]
    cpu_ratios = [cost.cpu_seconds / torch.cpu_seconds for cost, torch in turns]
    line = {
        "case": case,
        "model": model,
        "ratio": round(statistics.median(ratios), 3),
        "min_ratio": round(min(ratios), 3),
        "cpu_ratio": round(statistics.median(cpu_ratios), 3),
        "seconds": round(statistics.median(cost.seconds for cost, _ in turns), 3),
        "torch_seconds": round(statistics.median(torch.seconds for _, torch in turns), 3),
    }
    print(json.dumps(line), flush=True)


def write_small(path: Path) -> None:
    import cv2

    picture = cv2.imread(str(EXAMPLE))
    assert picture is not None
    cv2.imwrite(str(path), cv2.resize(picture, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))


def processes(small: Path, model: str) -> Turn:
    large = small.with_name("large.png")
    upscale = ["upscale", str(small), "-o", str(large), "--overwrite", "--model", model]
    torch = run([sys.executable, "-c", "import torch"])
    commands = {"help": ["--help"], "dry-run": [*upscale, "--dry-run"], "upscale": upscale, "doctor": ["doctor"]}
    costs = {case: run([sys.executable, "-m", "srgan_cli", *options]) for case, options in commands.items()}
    return {case: (cost, torch) for case, cost in {"torch": torch, **costs}.items()}


def run(command: list[str]) -> StartCost:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return StartCost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def in_one_process(model: str) -> Turn:
    command = [sys.executable, "-m", "benchmarks.start", "--model", model, "--worker", "inside"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    costs = {case: StartCost(*cost) for case, cost in json.loads(done.stdout).items()}
    torch = costs.pop("torch")
    return {case: (cost, torch) for case, cost in costs.items()}


def inside(model: str) -> dict[str, StartCost]:
    """The steps of a start in this process, in order."""
    from srgan_cli.threads import wait_politely

    wait_politely()  # as the command does
    costs = {}

    def step(case: str, work: Callable[[], object]) -> object:
        began = time.perf_counter(), sum(os.times()[:2])
        result = work()
        costs[case] = StartCost(time.perf_counter() - began[0], sum(os.times()[:2]) - began[1])
        return result

    step("torch", lambda: __import__("torch"))
    import numpy as np

    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks.weights import Model, load_model

    loaded = step("load_model", lambda: load_model(model))
    assert isinstance(loaded, Model)
    upscaler = step("Upscaler", lambda: Upscaler(loaded))
    assert isinstance(upscaler, Upscaler)
    low = np.random.default_rng(0).integers(0, 255, (SIDE_PX, SIDE_PX, 3), np.uint8)
    for case in ("first", "second"):
        step(case, lambda: upscaler.upscale(low))
    return costs


if __name__ == "__main__":
    main()
