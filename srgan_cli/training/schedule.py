"""How much of a run is done, and what follows from it: the phase, the learning rate, the crop.

Everything is a function of the *fraction* of the run that is done. So the rest of the code does not distinguish runs of
a given time from runs of a given number of steps: only `Length.fraction` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from srgan_cli.training_config import AdversarialSettings, Phase, PhaseSettings, TrainConfig

# The final learning rate, relative to the initial one; at exactly zero the last steps would be wasted.
_COSINE_END = 0.01
# On a slow machine, or with a short budget, the warm-up ends after this fraction of the phase.
_LONGEST_WARMUP = 0.05


@dataclass(frozen=True)
class Length:
    """A run ends after `steps`, or if `budget_s` is given, after that time.

    Of a budget, `begun_s` passed before the first step (scanning and decoding the pictures), and `reserve_s` is
    reserved for the work after the last one (the last validation, the report, the files); the schedules cover the time
    between.
    """

    steps: int
    budget_s: float | None
    reserve_s: float = 0.0
    begun_s: float = 0.0

    def fraction(self, step: int, elapsed_s: float, step_s: float = 0.0) -> float:
        """The fraction that is done after `step` steps in `elapsed_s` seconds; 1 if another step of `step_s` would be
        late."""
        if self.budget_s is None:
            return min(1.0, step / self.steps)
        end_s = self.budget_s - self.reserve_s
        if elapsed_s + step_s / 2 >= end_s:
            return 1.0
        return max(0.0, (elapsed_s - self.begun_s) / (end_s - self.begun_s))

    def seconds_left(self, step: int, elapsed_s: float, steps_per_s: float) -> float:
        if self.budget_s is not None:
            return max(0.0, self.budget_s - elapsed_s)
        return (self.steps - step) / steps_per_s if steps_per_s > 0 else math.inf


@dataclass(frozen=True)
class Place:
    """The phase of a run, and how much of it is done, in [0, 1]."""

    phase: Phase
    fraction: float


def place(config: TrainConfig, phase: Phase, fraction: float, began: float) -> Place:
    """The place of a run that is in `phase`, has done `fraction` of the whole, and had done `began` when the phase
    began.

    A phase that is over never returns, even if a run is extended.
    """
    end = config.end_of(phase)
    if phase != config.phases[-1] and fraction >= end:
        return Place(config.phases[config.phases.index(phase) + 1], 0.0)
    return Place(phase, max(0.0, (fraction - began) / (end - began)) if began < end else 1.0)


def rate_factor(settings: PhaseSettings, fraction: float, phase_step: int) -> float:
    """Factor on the learning rate after `fraction` of a phase, at its step `phase_step` (from 0)."""
    warm = 1.0
    if settings.warmup_steps:
        warm = min(1.0, max((phase_step + 1) / settings.warmup_steps, fraction / _LONGEST_WARMUP))
    if settings.schedule == "constant":
        return warm
    if settings.schedule == "halfway":
        return warm * (1.0 if fraction < 0.5 else 0.1)
    return warm * (_COSINE_END + (1.0 - _COSINE_END) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, fraction))))


def crop_px(settings: PhaseSettings, fraction: float) -> int:
    small = settings.small_crop_px and fraction < settings.small_crop_fraction
    return settings.small_crop_px if small else settings.crop_px


def ramp(settings: AdversarialSettings, fraction: float) -> float:
    """Factor on the adversarial weight: rises from 0 to 1, so that an untrained discriminator does no harm."""
    return min(1.0, fraction / settings.ramp_fraction) if settings.ramp_fraction else 1.0
