"""The GPU programme: all measurements on a GPU, in parts that each take a few minutes.

    scripts/gpu-programme --pack gpu-pack.tar --pictures DIR   # here: what the other machine needs, at most 60 MiB
    tar xf gpu-pack.tar && scripts/gpu-programme PART          # there, with PyTorch: a part, or several one by one
    scripts/gpu-programme --table results.jsonl --write        # here: the results become a part of docs/BENCHMARKS.md

    tests      the tests marked `gpu`
    roofline   how fast the device multiplies matrices, and moves memory
    engine     every bundled model, fp16, bf16 and fp32: the engine from memory to memory, the bare network, a plain
               loop of tiles as most programs have it; peak memory; the fraction of the roofline
    tiles      sides of tiles, and how many at once
    fused      the engine and one layer, with PyTorch's kernels and with the fused ones
    compile    CUDA graphs and torch.compile, on the bare network
    files      PNG and JPEG in and out, against the network alone
    training   steps per second in both phases, against a plain loop
    vulkan     the engine through Vulkan, where ncnn and a driver are there
    train-paper-x4, train-fidelity-x4, train-fidelity-x2   training, which continues where the last call stopped

Each line of the results (--out, results.jsonl) is one finding, with the part, the device and the versions. A part ends
before --minutes are over: what there was no time for is a line that says so. `--tiny` tries all of it with the smallest
sizes there are, on whatever device there is.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch

from benchmarks import gpu_engine, gpu_pack, gpu_runs
from benchmarks.gpu_fused import measure_fused
from benchmarks.gpu_programme import Programme

Part: TypeAlias = Callable[[Programme], None]

PARTS: dict[str, Part] = {
    "tests": gpu_runs.run_tests,
    "roofline": gpu_engine.measure_roofline,
    "engine": gpu_engine.measure_engine,
    "tiles": gpu_engine.measure_tiles,
    "fused": measure_fused,
    "compile": gpu_engine.measure_compile,
    "files": gpu_runs.measure_files,
    "training": gpu_runs.measure_training,
    "vulkan": gpu_engine.measure_vulkan,
    "train-paper-x4": partial(gpu_runs.train, name="paper-x4", options=["--preset", "paper", "--phase", "fidelity"]),
    "train-fidelity-x4": partial(
        gpu_runs.train, name="fidelity-x4", options=["--preset", "srgan", "--phase", "fidelity"]
    ),
    "train-fidelity-x2": partial(
        gpu_runs.train, name="fidelity-x2", options=["--preset", "srgan", "--phase", "fidelity", "--scale", "2"]
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("results.jsonl"), metavar="FILE")
    parser.add_argument(
        "--pictures",
        type=Path,
        default=gpu_pack.pictures(),
        metavar="DIR",
        help="sharp photos to train on [default: those of the pack, or examples/]",
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="a part ends before that [default: 9]")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that everything works")
    parser.add_argument("--pack", type=Path, metavar="FILE.tar", help="write what the other machine needs")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the results as tables")
    parser.add_argument("--write", action="store_true", help="with --table: into docs/BENCHMARKS.md")
    args = parser.parse_args()
    if args.pack:
        print(f"{args.pack}: {gpu_pack.pack(args.pack, args.pictures) / 2**20:.1f} MiB")
    elif args.table:
        text = gpu_pack.tables(args.table)
        if args.write:
            gpu_pack.write_tables(text)
        print(text)
    elif unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    for part in args.parts:
        programme = Programme(args.device, args.out, args.pictures.resolve(), args.minutes, args.tiny, part)
        PARTS[part](programme)
        programme.tell(case="end", seconds=round(time.monotonic() - programme.began_s, 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
