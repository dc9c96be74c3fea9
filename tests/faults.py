"""Tiny networks, broken ones, and the failures that tests inject. Nothing here is random: a seed decides."""

from __future__ import annotations

import dataclasses
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.networks import weights
from srgan_cli.networks.generators import Generator, build, fold
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import Model, save_weights


class Log(list[Any]):
    """A log of the calls of a network. The engine copies networks; all copies share the log."""

    def __deepcopy__(self, _memo: object) -> Log:
        return self


# ----------------------------------------------------------------------------------------------------- tiny networks


def tiny_generator(architecture: str = "compact", scale: int = 4, *, seed: int = 0, **config: object) -> Generator:
    """A network of a few thousand weights whose every layer matters: biases and borders show in the result."""
    settings = {"features": 8, "blocks": 1, "scale": scale, **config}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build(architecture, settings)
        with torch.no_grad():
            for module in generator.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, a=0.25, nonlinearity="leaky_relu")
                    nn.init.normal_(cast(Tensor, module.bias), std=0.1)
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.normal_(cast(Tensor, module.running_mean), std=0.2)
                    nn.init.uniform_(cast(Tensor, module.running_var), 0.5, 1.5)
    quieten(generator, 0.2)
    if architecture == "srresnet":
        with torch.no_grad():
            tail(generator).bias.add_(0.5)
    return generator


@torch.no_grad()
def stirred(generator: Generator) -> Generator:
    """A new network with weights large enough that every path through it counts, batch norms' statistics too."""
    for parameter in generator.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(cast(Tensor, module.running_mean))
            nn.init.uniform_(cast(Tensor, module.running_var), 0.2, 3.0)
    return generator


def tail(generator: Generator) -> Any:
    """The last convolution, which every architecture has."""
    return generator.get_submodule("tail")


@torch.no_grad()
def quieten(generator: Generator, factor: float) -> None:
    """Make what the last convolution adds this many times as large."""
    tail(generator).weight.mul_(factor)
    tail(generator).bias.mul_(factor)


def model_of(network: Generator, *, adversarial: bool = False, **facts: Any) -> Model:
    """Any generator as a loaded model."""
    model = weights.model_of(network, Path("nowhere.safetensors"), "0" * 64)
    return dataclasses.replace(model, name=network.architecture, adversarial=adversarial, **facts)


def tiny_model(architecture: str = "compact", scale: int = 4, *, adversarial: bool = False, **config: Any) -> Model:
    return model_of(fold(tiny_generator(architecture, scale, **config)), adversarial=adversarial)


def save_tiny(path: Path, scale: int = 4, *, adversarial: bool = False, **config: Any) -> Path:
    """A weights file as `--model` takes it."""
    card = Card(path.stem, path.stem, adversarial=adversarial)
    save_weights(path, tiny_generator(scale=scale, **config), card)
    return path


# --------------------------------------------------------------------------------------------------- networks as faults


class Nearest(Generator):
    """Repeats pixels: what comes out is known. `halo_px` None stands for a model that sees without bounds."""

    architecture = "nearest"

    def __init__(self, scale: int = 2, *, halo_px: int | None = 0) -> None:
        super().__init__()
        self.scale = self.shuffle = scale
        self.halo_px = halo_px
        self.weight = nn.Parameter(torch.ones(()), requires_grad=False)  # tells which precision was asked for
        self.shapes = Log()

    def subpixels(self, low: Tensor) -> Tensor:
        self.shapes.append(tuple(low.shape))
        return low.repeat_interleave(self.scale**2, dim=1)


class OutOfMemoryAbove(Nearest):
    """Has memory for `limit_px` px at a time, batch included; once `after` holds a number, from that call on."""

    def __init__(self, limit_px: int, scale: int = 2, *, halo_px: int | None = 0, error: str = "torch") -> None:
        super().__init__(scale, halo_px=halo_px)
        self.limit_px, self.error = limit_px, error
        self.refused, self.after = Log(), Log()

    def subpixels(self, low: Tensor) -> Tensor:
        scarce = all(len(self.shapes) >= number for number in self.after)
        if scarce and low.shape[0] * low.shape[2] * low.shape[3] > self.limit_px:
            self.refused.append(tuple(low.shape))
            if self.error == "host":
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 12 bytes.")
            if self.error == "python":
                raise MemoryError
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().subpixels(low)


class Raising(Nearest):
    """Fails from its `after`-th call on."""

    def __init__(self, error: Callable[[], BaseException], *, after: int = 0) -> None:
        super().__init__()
        self.error, self.after = error, after

    def subpixels(self, low: Tensor) -> Tensor:
        if len(self.shapes) >= self.after:
            raise self.error()
        return super().subpixels(low)


class WrongInHalf(Nearest):
    """Right in fp32; in half precision off by `offset`, everywhere or (`only_bright`) for white tiles."""

    def __init__(self, offset: float, *, only_bright: bool = False) -> None:
        super().__init__()
        self.offset, self.only_bright = offset, only_bright

    def subpixels(self, low: Tensor) -> Tensor:
        subpixels = super().subpixels(low)
        if self.weight.dtype == torch.float32:
            return subpixels
        if not self.only_bright:
            return subpixels + self.offset
        bright = (low >= 1.0).flatten(1).all(1)[:, None, None, None]
        return torch.where(bright, subpixels + self.offset, subpixels)


class Never(Nearest):
    """Not finite, in whatever precision."""

    def subpixels(self, low: Tensor) -> Tensor:
        return super().subpixels(low) * float("nan")


class Cast(Nearest):
    """Lays a colour cast over the picture, as adversarial training may."""

    def __init__(self, cast: tuple[float, float, float] = (0.1, -0.05, 0.02), scale: int = 4) -> None:
        super().__init__(scale)
        self.cast = cast

    def subpixels(self, low: Tensor) -> Tensor:
        shift = torch.tensor(self.cast, device=low.device).repeat_interleave(self.scale**2)
        return super().subpixels(low) + shift[None, :, None, None]


class Blurring(Nearest):
    """A wide mean: what a model looks like that drags hidden colours over an edge."""

    def __init__(self, radius_px: int = 3, scale: int = 2) -> None:
        super().__init__(scale, halo_px=radius_px)
        self.radius_px = radius_px

    def subpixels(self, low: Tensor) -> Tensor:
        side = 2 * self.radius_px + 1
        mean = F.avg_pool2d(low, side, stride=1, padding=self.radius_px, count_include_pad=False)
        return super().subpixels(mean)


# -------------------------------------------------------------------------------------------------------- other faults


class CountingRows:
    """Rows that tell how they were asked for."""

    def __init__(self, pixels: np.ndarray[Any, Any]) -> None:
        self._pixels, self._next = pixels, 0
        self.asked: list[int] = []

    @property
    def given(self) -> int:
        return self._next

    def read_rows(self, count: int) -> np.ndarray[Any, Any]:
        assert count >= 1, "asked for nothing"
        self.asked.append(count)
        rows = self._pixels[self._next : self._next + count]
        self._next += len(rows)
        return rows


def disk_full(*_args: object, **_options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def at_call(number: int, real: Callable[..., Any], fault: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, but `fault` the `number`-th time (from 1)."""
    lock, calls = threading.Lock(), 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        with lock:
            calls += 1
            mine = calls
        return (fault if mine == number else real)(*args, **options)

    return call
