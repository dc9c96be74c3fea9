"""The time of a run, kept in one place: only this object reads it to decide how much of the run is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from srgan_cli.training.schedule import Length
from srgan_cli.training_config import TrainConfig

_SMOOTHING = 0.9  # of the duration of a step


class Clock:
    """Knows what has gone by since the run began, earlier sessions included, and what is kept for its end.

    `begun_s`: what went by before the first step. `earlier_s`: what earlier sessions took. `reserve_s`: what is kept
    back for what comes after the last step. Of several processes the first one's clock decides.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._steps, self._budget_s = config.steps, config.budget_s
        self._zero_s = time.monotonic()
        self._step_s = 0.0  # how long a step takes
        self.earlier_s = self.begun_s = self.reserve_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._zero_s

    @property
    def values(self) -> dict[str, float]:
        """For the checkpoint; `resume` takes them back."""
        return {"elapsed_s": self.elapsed_s, "begun_s": self.begun_s}

    def resume(self, *, elapsed_s: float, begun_s: float) -> None:
        """Go on where an earlier session ended: what this one has taken to set up is added to it."""
        self.earlier_s, self.begun_s = elapsed_s, begun_s
        self._zero_s -= elapsed_s

    def begin(self) -> None:
        """The first step comes next: the schedules begin now."""
        self.begun_s = self.elapsed_s

    def keep_back(self, seconds: float) -> None:
        """Steps end so long before the budget does."""
        self.reserve_s = seconds

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A step is made inside: how long steps take decides whether another one fits into the budget."""
        began_s = time.monotonic()
        yield
        taken_s = time.monotonic() - began_s
        self._step_s = _SMOOTHING * self._step_s + (1 - _SMOOTHING) * taken_s if self._step_s else taken_s

    def fraction(self, step: int) -> float:
        """How much of the run is done after `step` steps, now; 1 where another step would be late."""
        return self._length.fraction(step, self.elapsed_s, self._step_s)

    def fraction_at(self, step: int, elapsed_s: float) -> float:
        """How much of the run was done after `step` steps in `elapsed_s` seconds."""
        return self._length.fraction(step, elapsed_s)

    def seconds_left(self, step: int, steps_per_s: float) -> float:
        return self._length.seconds_left(step, self.elapsed_s, steps_per_s)

    @property
    def _length(self) -> Length:
        return Length(self._steps, self._budget_s, self.reserve_s, self.begun_s)
