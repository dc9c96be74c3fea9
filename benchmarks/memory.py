"""Peak memory and time per output pixel, from a megapixel to a gigapixel out.

    python -m benchmarks.memory                     # 1 MP to 1 GP, about six minutes on two cores with bf16
    python -m benchmarks.memory --megapixels 1 100
    python -m benchmarks.memory --megapixels 20 --machine-gib 4     # on a small machine

Measured is anonymous memory (Linux, RssAnon) above that of the interpreter with torch loaded. File pages, such as those
of a scratch file, do not count, since the kernel can reclaim them at any time. Each size runs in a process of its own;
a thread samples every 20 ms.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.speed import MODEL, photo, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", nargs="+", type=float, default=[1, 10, 100, 1000], help="of output")
    parser.add_argument("--format", default="png")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--machine-gib", type=float, help="as on a machine of so much memory, of which 1 GiB is taken")
    parser.add_argument("--folder", help="where the pictures and the scratch file go (3 GB of scratch for 1 GP)")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _worker(args, *args.worker)
        return
    for megapixels in args.megapixels:
        with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
            low = Path(temporary) / "low.png"
            width, height = _low_size(megapixels)
            _write_low(low, width, height)
            machine = [] if args.machine_gib is None else ["--machine-gib", str(args.machine_gib)]
            options = [*machine, "--precision", args.precision, "--device", args.device, "--model", args.model]
            command = [sys.executable, "-m", "benchmarks.memory", *options]
            target = f"{temporary}/high.{args.format}"
            done = subprocess.run([*command, "--worker", str(low), target], check=True, capture_output=True, text=True)
            result = json.loads(done.stdout.splitlines()[-1])
            pixels = width * height * 16
            report(
                case="memory",
                model=args.model,
                precision=result["precision"],
                machine_gib=args.machine_gib,
                input=f"{width}x{height}",
                output_megapixels=round(pixels / 1e6, 1),
                peak_anonymous_mib=round(result["peak"] / 2**20),
                seconds=round(result["seconds"], 1),
                network_ns_per_output_px=round(result["network_seconds"] * 1e9 / pixels, 1),
                wall_ns_per_output_px=round(result["seconds"] * 1e9 / pixels, 1),
            )


def _low_size(megapixels: float) -> tuple[int, int]:
    """Size of the input for ×4; a gigapixel is 8,000 × 7,813."""
    width = round(8000 * math.sqrt(megapixels / 1000))
    return width, round(megapixels * 1e6 / 16 / width)


def _write_low(path: Path, width: int, height: int) -> None:
    import pyvips

    tile = photo(min(width, 2000), min(height, 2000), 0)
    picture = pyvips.Image.new_from_array(tile).copy(interpretation="srgb")
    across, down = -(-width // picture.width), -(-height // picture.height)
    picture.replicate(across, down).crop(0, 0, width, height).write_to_file(str(path), compression=1)


def _worker(args: argparse.Namespace, source: str, target: str) -> None:
    import torch  # noqa: F401 - part of the baseline

    from srgan_cli import EngineOptions, UpscaleOptions
    from srgan_cli.upscaling.observer import Silent
    from srgan_cli.upscaling.session import prepare

    if args.machine_gib is not None:
        _pretend(round(args.machine_gib * 2**30))
    engine = EngineOptions(device=args.device, precision=args.precision)
    options = UpscaleOptions(inputs=(Path(source),), output=Path(target), model=args.model, engine=engine)
    with _PeakAnonymous() as memory:
        began = time.perf_counter()
        session = prepare(options)
        run = session.run(Silent())
        seconds = time.perf_counter() - began
    assert run.exit_code == 0, run.failures
    pace = session.last_pace()
    precision = pace.precision if pace is not None else args.precision
    report(peak=memory.peak, seconds=seconds, network_seconds=run.network_seconds, precision=precision)


def _pretend(total: int) -> None:
    """Pretend that the machine has `total` bytes. The free memory follows from this process's use."""
    import psutil

    real, process = psutil.virtual_memory, psutil.Process()

    def small() -> Any:
        available = max(0, total - (1 << 30) - process.memory_info().rss)
        return real()._replace(total=total, available=available)

    psutil.virtual_memory = small


class _PeakAnonymous:
    """Samples this process's anonymous memory. `peak` is in bytes above the initial value."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._baseline = _anonymous_bytes()
        self.peak = 0

    def __enter__(self) -> _PeakAnonymous:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, _anonymous_bytes() - self._baseline)


def _anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell RssAnon")


if __name__ == "__main__":
    main()
