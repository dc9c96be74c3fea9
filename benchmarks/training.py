"""Training speed, compared with a plain loop: the same networks and losses, in a typical implementation.

    python -m benchmarks.training --hr-dir DIR [--phases fidelity adversarial] [--preset compact] [--steps 40]

The plain loop is fp32, NCHW, PyTorch's own allocator, and a `DataLoader` with two workers that decodes PNGs, cuts a
crop out of each and shrinks it bicubically (OpenCV). It is compared with `srgan train`'s own step, loader and
degradation. Each runs in a process of its own, in turns; the ratio is of the medians of their steps. The perceptual
loss is of a random VGG19 up to conv3_4: what it computes costs the same as with trained weights.

One JSON line per phase: seconds per step, their ratio, and the fraction of srgan's time spent waiting for crops.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from srgan_cli import training_presets as settings
from srgan_cli.dataset.cache import build_cache
from srgan_cli.dataset.scan import scan
from srgan_cli.training.loader import BatchLoader
from srgan_cli.training.losses import PerceptualLoss
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, begin, enter, step
from srgan_cli.training.sources import Sources
from srgan_cli.training.state import State
from srgan_cli.training_config import FidelitySettings, TrainConfig

WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hr-dir", type=Path, required=True, metavar="DIR", help="sharp pictures")
    parser.add_argument("--phases", nargs="+", default=["fidelity", "adversarial"])
    parser.add_argument("--preset", default="compact")
    parser.add_argument("--steps", type=int, default=40, help="of each run, after five that are not counted")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--pngs", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        {"ours": _ours, "plain": _plain}[args.worker[0]](args, _config(args, args.worker[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        crop_px = max(_config(args, phase).of(phase).crop_px for phase in args.phases)
        _write_pngs(args.hr_dir, Path(folder), crop_px)
        for phase in args.phases:
            found: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
            for _ in range(args.repeats):
                for way in found:
                    found[way].append(_in_a_process(way, phase, folder))
            seconds = {way: min(one["step_s"] for one in runs) for way, runs in found.items()}
            line = {
                "phase": phase,
                "preset": args.preset,
                **{f"{way}_step_s": round(s, 4) for way, s in seconds.items()},
            }
            line |= {"ratio": round(seconds["plain"] / seconds["ours"], 2)}
            line |= {"loader_fraction": round(max(one["loader_fraction"] for one in found["ours"]), 4)}
            print(json.dumps(line), flush=True)


def _in_a_process(way: str, phase: str, pngs: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.training", *sys.argv[1:], "--worker", way, phase, "--pngs", pngs]
    environment = {**os.environ, **({"SRGAN_KEEP_BLOCKS": "0"} if way == "plain" else {})}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return cast("dict[str, float]", json.loads(done.stdout.splitlines()[-1]))


def _config(args: argparse.Namespace, phase: str) -> TrainConfig:
    chosen = settings.preset(
        args.preset,
        {
            "phase": phase,
            "data": {"high_dirs": [str(args.hr_dir)]},
            "perceptual": {"source": "random"},
            "compute": {"device": args.device},
        },
    )
    return replace(chosen, steps=args.steps + WARM_UP)


def _write_pngs(source: Path, target: Path, crop_px: int) -> None:
    """The plain loop's input: the same pictures, decoded, at most 200 of those large enough for a crop."""
    names = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))[:200]
    for number, path in enumerate(names):
        pixels = cv2.imread(str(path))
        if pixels is not None and min(pixels.shape[:2]) >= crop_px:
            cv2.imwrite(str(target / f"{number}.png"), pixels)


def _tell(seconds: list[float], waited_s: float = 0.0) -> None:
    counted = seconds[WARM_UP:]
    fraction = waited_s / sum(counted)
    print(json.dumps({"step_s": statistics.median(counted), "loader_fraction": fraction}))


# ----------------------------------------------------------------------------------------------------------------- ours


def _ours(args: argparse.Namespace, config: TrainConfig) -> None:
    phase = config.phases[0]
    chosen, scale = config.of(phase), config.generator.scale
    looked = scan(config.data, scale=scale, crop_px=chosen.crop_px)
    cache = build_cache(looked.train, config.data, scale=scale, crop_px=chosen.crop_px)
    run, state = begin(config, Processes()), State(phase=phase)
    enter(run, phase)
    loader = BatchLoader(run, state, chosen.crop_px, Sources(looked, cache))
    seconds, waited_s = [], 0.0
    for number in range(args.steps + WARM_UP):
        began_s = time.perf_counter()
        examples = next(loader)
        got_s = time.perf_counter()
        step(run, state, 0.5, examples)
        state.advance()
        _wait_for(run)
        seconds.append(time.perf_counter() - began_s)
        waited_s += got_s - began_s if number >= WARM_UP else 0.0
    loader.close()
    _tell(seconds, waited_s)


def _wait_for(run: Run) -> None:
    if run.device.type == "cuda":
        torch.cuda.synchronize()


# --------------------------------------------------------------------------------------------------------- a plain loop


class _Pngs(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, folder: Path, crop_px: int, scale: int, length: int) -> None:
        self.paths = sorted(folder.iterdir())
        self.crop_px, self.scale, self.length = crop_px, scale, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(index)
        pixels = cast("np.ndarray[Any, Any]", cv2.imread(str(self.paths[rng.integers(len(self.paths))])))
        top, left = (rng.integers(side - self.crop_px + 1) for side in pixels.shape[:2])
        high = pixels[top : top + self.crop_px, left : left + self.crop_px, ::-1]
        size = self.crop_px // self.scale
        low = cv2.resize(high, (size, size), interpolation=cv2.INTER_CUBIC)
        return _tensor(low), _tensor(high)


def _tensor(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255


def _plain(args: argparse.Namespace, config: TrainConfig) -> None:
    """Adam, fp32, NCHW; the same losses, computed in the plainest way."""
    plain = replace(config, compute=replace(config.compute, precision="fp32"))
    phase = plain.phases[0]
    chosen = plain.of(phase)
    run = begin(plain, Processes())  # the networks and losses are the same; memory format, optimiser and data are not
    device = run.device
    generator = run.generator.to(memory_format=torch.contiguous_format)
    discriminator = run.discriminator.to(memory_format=torch.contiguous_format) if run.discriminator else None
    perceptual = run.perceptual.to(memory_format=torch.contiguous_format) if run.perceptual else None
    for act in [m for m in generator.modules() if isinstance(m, torch.nn.PReLU)]:
        act.__class__ = torch.nn.PReLU  # PyTorch's own, with its own backward pass
    optimizer = torch.optim.Adam(generator.parameters(), 1e-4)
    discriminator_learner = torch.optim.Adam(discriminator.parameters(), 1e-4) if discriminator is not None else None
    data = _Pngs(args.pngs, chosen.crop_px, plain.generator.scale, chosen.batch * (args.steps + WARM_UP))
    seconds = []
    began_s = time.perf_counter()
    for low_, high_ in DataLoader(data, batch_size=chosen.batch, num_workers=2):
        low, high = low_.to(device), high_.to(device)
        result = generator(low)
        loss = F.l1_loss(result, high)
        if isinstance(chosen, FidelitySettings):
            loss = loss + chosen.frequency_weight * _spectral(result, high)
        else:
            assert discriminator is not None
            assert perceptual is not None
            assert discriminator_learner is not None
            discriminator.requires_grad_(False)
            fake, real = discriminator(result).logits, discriminator(high).logits
            loss = loss + _perceptual(perceptual, result, high) + _relativistic(fake, real)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if discriminator_learner is not None and discriminator is not None:
            discriminator.requires_grad_(True)
            real, fake = discriminator(high).logits, discriminator(result.detach()).logits
            discriminator_learner.zero_grad()
            _relativistic(real, fake).backward()  # type: ignore[no-untyped-call]
            discriminator_learner.step()
        _wait_for(run)
        seconds.append(time.perf_counter() - began_s)
        began_s = time.perf_counter()
    _tell(seconds)


def _spectral(result: Tensor, high: Tensor) -> Tensor:
    difference = torch.fft.rfft2(result, norm="ortho") - torch.fft.rfft2(high, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def _perceptual(settings: PerceptualLoss, result: Tensor, high: Tensor) -> Tensor:
    found, wanted = settings.features(result), settings.features(high)
    terms = [F.l1_loss(found[k], wanted[k]) / wanted[k].abs().mean() * w for k, w in settings.weights.items()]
    return torch.stack(terms).sum()


def _relativistic(better: Tensor, worse: Tensor) -> Tensor:
    ones = torch.ones_like(better)
    up = F.binary_cross_entropy_with_logits(better - worse.mean(), ones)
    return up + F.binary_cross_entropy_with_logits(worse - better.mean(), 1 - ones)


if __name__ == "__main__":
    main()
