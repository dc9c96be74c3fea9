"""Sums of the steps' results until they are read."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from srgan_cli.training.steps import Stepped


@dataclass(frozen=True)
class StepPosition:
    """A step's position: `fraction` of the run, how long it waited for its crops, and their number."""

    fraction: float
    waited_s: float
    pictures: int


@dataclass(frozen=True)
class Means:
    raw: dict[str, float]
    weighted: dict[str, float]
    gradient_norm: float
    discriminator: dict[str, float] | None

    def plain(self) -> dict[str, object]:
        line: dict[str, object] = {"losses": self.raw, "weighted": self.weighted, "gradient_norm": self.gradient_norm}
        return line if self.discriminator is None else {**line, "discriminator": self.discriminator}


class Meter:
    """Sums over steps, kept on the device: reading them at each step would make the CPU wait for the GPU."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self.steps = self._pictures = 0
        self.at = StepPosition(0.0, 0.0, 0)  # of the last step
        self._waited_s = 0.0
        self._began_s = time.monotonic()

    def add(self, stepped: Stepped, at: StepPosition) -> None:
        self.steps += 1
        self.at = at
        self._pictures += at.pictures
        self._waited_s += at.waited_s
        terms, discriminator = stepped.terms, stepped.discriminator_loss
        values = {f"raw.{name}": value for name, value in (terms.raw | terms.reported).items()}
        # Weights are stored per step, since some rise during the run.
        values |= {f"weighted.{name}": terms.raw[name].detach() * weight for name, weight in terms.weights.items()}
        values |= {"raw.total": terms.total, "norm": stepped.gradient_norm}
        if stepped.verdicts is not None and discriminator is not None and stepped.discriminator_norm is not None:
            values |= {f"discriminator.{name}": value for name, value in vars(stepped.verdicts).items()}
            values |= {f"discriminator.{name}": value for name, value in discriminator.raw.items()}
            values |= {
                f"discriminator.{name}_weighted": discriminator.raw[name] * discriminator.weights[name]
                for name in discriminator.raw
            }
            values["discriminator.gradient_norm"] = stepped.discriminator_norm
        for name, value in values.items():
            known = self._sums.get(name)
            self._sums[name] = value.detach().float() if known is None else known + value.detach().float()
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> Means:
        names = list(self._sums)
        read = torch.stack([self._sums[name] for name in names]).tolist()
        values = {name: value / self._counts[name] for name, value in zip(names, read, strict=True)}
        raw = {name[4:]: value for name, value in values.items() if name.startswith("raw.")}
        discriminator = {name[14:]: value for name, value in values.items() if name.startswith("discriminator.")}
        weighted = {name[9:]: value for name, value in values.items() if name.startswith("weighted.")}
        if discriminator:
            discriminator["loss"] = discriminator.pop("discriminator")
            del discriminator["discriminator_weighted"]  # its weight is 1
        return Means(raw, weighted, values["norm"], discriminator or None)

    def speed(self) -> dict[str, float]:
        seconds = max(time.monotonic() - self._began_s, 1e-9)
        return {
            "steps_per_s": self.steps / seconds,
            "pictures_per_s": self._pictures / seconds,
            "loader_fraction": self._waited_s / seconds,
        }
