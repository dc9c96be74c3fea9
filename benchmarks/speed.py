"""Speed of the engine, as ratios measured within one run: the only numbers that are reliable on a busy machine.

    python -m benchmarks.speed            # all cases, one JSON line each
    python -m benchmarks.speed plain bare # some

    plain    the engine, decoding and encoding included, against the plain way that most upscalers go: the same network
             in fp32, NCHW, fixed tiles of 256 px with 10 px of padding, no overlap of decode, network and encode. Each
             runs in a process of its own, as its users run it, in turns.
    bare     the engine on one large picture in memory (2500 × 2500 px), against the network alone on one of 768 × 768
             px, in the same precision and memory format.
    folder   the wall time of a folder of 100 photos, against the network's own time for them.
    models   all bundled models on one picture in memory (750 × 500 px at ×4, 1500 × 1000 at ×2), in turns, against
             `srgan` of the same scale.
    backends OpenVINO against PyTorch, both on the CPU, for the bundled models at ×4, on one picture in memory.

The pictures are made from examples/. PNG both in and out, each way at its own default compression.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
MODEL = "fidelity-x4"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cases: dict[str, Callable[[argparse.Namespace], None]] = {
        "plain": compare_with_plain,
        "bare": compare_with_bare_network,
        "folder": measure_folder,
        "models": compare_models,
        "backends": compare_backends,
    }
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(cases)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp32"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--pictures", type=int, default=100, help="of the folder")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        _WORKERS[args.worker[0]](args, *args.worker[1:])
        return
    for name in args.cases or cases:
        cases[name](args)


def report(**values: object) -> None:
    print(json.dumps(values), flush=True)


def photo(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """A picture with the statistics of a photo: the examples, mirrored and tiled until the size is filled."""
    names = ("cat.jpg", "coffee.png", "astronaut.png")
    tile = cv2.imread(str(EXAMPLES / names[seed % len(names)]))
    assert tile is not None
    tile = np.roll(tile, 37 * seed, axis=(0, 1))
    row = np.concatenate((tile, tile[:, ::-1]), axis=1)
    block = np.concatenate((row, row[::-1]), axis=0)
    repeats = (-(-height // block.shape[0]), -(-width // block.shape[1]), 1)
    return np.ascontiguousarray(np.tile(block, repeats)[:height, :width])


def write_photos(folder: Path, count: int, width: int, height: int, suffix: str = ".png") -> None:
    folder.mkdir()
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03d}{suffix}"), photo(width, height, i))


def in_own_process(args: argparse.Namespace, *worker: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.speed", "--device", args.device, "--model", args.model]
    done = subprocess.run([*command, "--worker", *worker], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---------------------------------------------------------------------------------------------- against the plain way


def compare_with_plain(args: argparse.Namespace) -> None:
    count, side = 5, 1024
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "in"
        write_photos(folder, count, side, side)
        megapixels = count * side * side * 16 / 1e6
        plain: list[float] = []
        ours: dict[str, list[float]] = {precision: [] for precision in args.precisions}
        for turn in range(args.repeats):
            plain.append(in_own_process(args, "plain", str(folder), f"{temporary}/plain-{turn}")["seconds"])
            for precision, seconds in ours.items():
                target = f"{temporary}/{precision}-{turn}"
                seconds.append(in_own_process(args, "engine", str(folder), target, precision)["seconds"])
        for precision, seconds in ours.items():
            ratios = [p / s for p, s in zip(plain, seconds, strict=True)]
            report(
                case="plain",
                model=args.model,
                precision=precision,
                engine_mp_per_s=round(megapixels / statistics.median(seconds), 2),
                plain_mp_per_s=round(megapixels / statistics.median(plain), 2),
                ratio=round(statistics.median(ratios), 2),
                ratios=[round(r, 2) for r in ratios],
            )


def plain_worker(args: argparse.Namespace, source: str, target: str) -> None:
    """Tile by tile in the style of the usual scripts: the whole picture is on the device, and so is the result."""
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn

    from benchmarks.plain_loop import plain_loop
    from srgan_cli import load_model
    from srgan_cli.networks.generators import Compact
    from srgan_cli.networks.weights import load_generator

    class _Plain(nn.Module):
        """The network as in its definition, without the engine's simplifications."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            assert isinstance(network, Compact)
            self.layers = network

        def forward(self, low: Tensor) -> Tensor:
            head = self.layers.head(low)
            x = head
            for block in self.layers.body:
                x = x + block.conv2(block.act(block.conv1(x)))  # type: ignore[operator]
            x = self.layers.tail(head + self.layers.fuse(x))
            base = F.interpolate(low, scale_factor=self.layers.scale, mode="bilinear", align_corners=False)
            return F.pixel_shuffle(x, self.layers.scale) + base

    device = "cuda" if args.device == "auto" and torch.cuda.is_available() else args.device.replace("auto", "cpu")
    model = load_model(args.model)
    network = _Plain(load_generator(model.path)).eval().to(device)

    def upscale(path: Path, out: Path) -> None:
        bgr = cv2.imread(str(path))
        assert bgr is not None
        picture = torch.from_numpy(np.transpose(bgr[:, :, ::-1].astype(np.float32) / 255.0, (2, 0, 1)).copy())
        low = picture.unsqueeze(0).to(device)
        result = plain_loop(network, low, model.scale).squeeze(0).float().cpu().clamp_(0, 1).numpy()
        cv2.imwrite(str(out), (np.transpose(result[[2, 1, 0]], (1, 2, 0)) * 255.0).round().astype(np.uint8))

    Path(target).mkdir()
    paths = sorted(Path(source).iterdir())
    network(torch.zeros(1, 3, 64, 64, device=device))
    began = time.perf_counter()
    for path in paths:
        upscale(path, Path(target) / path.name)
    report(seconds=time.perf_counter() - began)


def engine_worker(args: argparse.Namespace, source: str, target: str, precision: str) -> None:
    """The command's own path, from the plan to the last file."""
    from srgan_cli import EngineOptions, UpscaleOptions
    from srgan_cli.upscaling.observer import Silent
    from srgan_cli.upscaling.session import prepare

    engine = EngineOptions(device=args.device, precision=precision)  # type: ignore[arg-type]
    options = UpscaleOptions(output=Path(target), model=args.model, engine=engine)
    small = Path(target).with_suffix(".png")
    cv2.imwrite(str(small), photo(64, 64, 0))
    prepare(replace(options, inputs=(small,), output=small.with_suffix(".warm.png"))).run(Silent())
    began = time.perf_counter()
    run = prepare(replace(options, inputs=(Path(source),))).run(Silent())
    assert run.exit_code == 0
    report(seconds=time.perf_counter() - began, network_seconds=run.network_seconds)


# ------------------------------------------------------------------------------------------- against the bare network


def compare_with_bare_network(args: argparse.Namespace) -> None:
    for precision in args.precisions:
        runs = [in_own_process(args, "bare", precision) for _ in range(args.repeats)]
        fractions = [run["bare_ns_per_px"] / run["engine_ns_per_px"] for run in runs]
        report(
            case="bare",
            model=args.model,
            precision=precision,
            fraction_of_bare_speed=round(statistics.median(fractions), 3),
            fractions=[round(s, 3) for s in fractions],
            bare_ns_per_low_px=round(statistics.median(r["bare_ns_per_px"] for r in runs), 1),
        )


def bare_worker(args: argparse.Namespace, precision: str) -> None:
    import torch
    import torch.nn.functional as F

    from srgan_cli import EngineOptions, Upscaler, load_model

    upscaler = Upscaler(load_model(args.model), EngineOptions(args.device, precision))  # type: ignore[arg-type]
    device, side = upscaler.compute.device, 768
    pixels = photo(2500, 2500, 0)
    low = torch.rand(1, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)

    def bare() -> None:
        with upscaler.compute.inference():
            F.pixel_shuffle(upscaler.chain.subpixels(low), upscaler.chain.shuffle)
            if device.type == "cuda":
                torch.cuda.synchronize()

    bare()
    upscaler.upscale(pixels[:256, :256])
    alone, whole = [], []
    for _ in range(2):
        alone += [_seconds(bare) for _ in range(3)]
        whole.append(_seconds(lambda: upscaler.upscale(pixels)))
        alone += [_seconds(bare) for _ in range(3)]
    report(
        bare_ns_per_px=statistics.median(alone) * 1e9 / side**2,
        engine_ns_per_px=statistics.median(whole) * 1e9 / pixels[..., 0].size,
    )


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


# ----------------------------------------------------------------------------------------------------------- a folder


def measure_folder(args: argparse.Namespace) -> None:
    """100 photos of 640 × 480 px, JPEG in and out."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "in"
        write_photos(folder, args.pictures, 640, 480, ".jpg")
        for precision in args.precisions:
            ratios = []
            for turn in range(args.repeats):
                alone = in_own_process(args, "network", str(folder), precision)["seconds"]
                run = in_own_process(args, "engine", str(folder), f"{temporary}/{precision}-{turn}", precision)
                ratios.append(run["seconds"] / alone)
            report(
                case="folder",
                model=args.model,
                precision=precision,
                pictures=args.pictures,
                wall_over_network=round(statistics.median(ratios), 3),
                ratios=[round(r, 3) for r in ratios],
            )


def network_worker(args: argparse.Namespace, source: str, precision: str) -> None:
    """The network alone on the folder's pictures, decoded beforehand, results discarded."""
    import torch
    import torch.nn.functional as F

    from srgan_cli import EngineOptions, Upscaler, load_model

    upscaler = Upscaler(load_model(args.model), EngineOptions(args.device, precision))  # type: ignore[arg-type]
    lows = []
    for path in sorted(Path(source).iterdir()):
        picture = cv2.imread(str(path))
        assert picture is not None
        low = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255.0
        lows.append(low.to(upscaler.compute.device).contiguous(memory_format=torch.channels_last))
    with upscaler.compute.inference():
        upscaler.chain.subpixels(lows[0])
        began = time.perf_counter()
        for low in lows:
            F.pixel_shuffle(upscaler.chain.subpixels(low), upscaler.chain.shuffle)
        if upscaler.compute.device.type == "cuda":
            torch.cuda.synchronize()
        report(seconds=time.perf_counter() - began)


# ----------------------------------------------------------------------------------------------------------- all models


def compare_models(args: argparse.Namespace) -> None:
    """Every model of a scale in each round, so that disturbances affect all of them."""
    from srgan_cli.config import EngineOptions
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks import registry
    from srgan_cli.networks.weights import load_model

    entries = registry.entries()
    for precision in args.precisions:
        for scale in sorted({entry.scale for entry in entries}, reverse=True):
            low = photo(3000 // scale, 2000 // scale, 0)
            names = [entry.name for entry in entries if entry.scale == scale]
            made = {name: Upscaler(load_model(name), EngineOptions(args.device, precision)) for name in names}
            for upscaler in made.values():
                upscaler.upscale(low)  # one-time initialisation
            turns = [
                {name: _seconds(partial(upscaler.upscale, low)) for name, upscaler in made.items()}
                for _ in range(args.repeats)
            ]
            for name in names:
                seconds = statistics.median(turn[name] for turn in turns)
                against = statistics.median(turn.get(f"srgan-x{scale}", turn[name]) / turn[name] for turn in turns)
                report(
                    case="models",
                    model=name,
                    precision=precision,
                    megapixels_per_second=round(6.0 / seconds, 2),
                    times_as_fast_as_srgan=round(against, 2),
                    seconds=[round(turn[name], 2) for turn in turns],
                )


def compare_backends(args: argparse.Namespace) -> None:
    """Every backend that runs on the CPU in each round, for each bundled model at ×4."""
    from srgan_cli.config import EngineOptions
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks import registry
    from srgan_cli.networks.weights import load_model

    low = photo(750, 500, 0)
    for precision in args.precisions:
        for name in [entry.name for entry in registry.entries() if entry.scale == 4]:
            model = load_model(name)
            made = {device: Upscaler(model, EngineOptions(device, precision)) for device in ("cpu", "openvino")}
            # and one-time initialisation
            results = {device: upscaler.upscale(low) for device, upscaler in made.items()}
            turns = [
                {device: _seconds(partial(upscaler.upscale, low)) for device, upscaler in made.items()}
                for _ in range(args.repeats)
            ]
            differences = np.abs(results["cpu"].astype(np.int16) - results["openvino"])
            report(
                case="backends",
                model=name,
                precision=precision,
                openvino_times_as_fast=round(statistics.median(turn["cpu"] / turn["openvino"] for turn in turns), 2),
                largest_difference=int(differences.max()),
                seconds=[{device: round(seconds, 2) for device, seconds in turn.items()} for turn in turns],
            )


_WORKERS: dict[str, Callable[..., None]] = {
    "plain": plain_worker,
    "engine": engine_worker,
    "bare": bare_worker,
    "network": network_worker,
}

if __name__ == "__main__":
    main()
