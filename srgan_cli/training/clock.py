"""The time of a run, in one place: only this object decides how much of the run is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from srgan_cli.training.schedule import Length
from srgan_cli.training_config import TrainConfig

_SMOOTHING = 0.9  # weight of the earlier steps in the running mean of a step's duration


class Clock:
    """The time since the run began, earlier sessions included, and the time reserved for its end.

    `begun_s`: time before the first step. `earlier_s`: duration of earlier sessions. `reserve_s`: time reserved for the
    work after the last step. With several processes the first one's clock decides.
    """

    def __init__(self, config: TrainConfig) -> None:
        self._steps, self._budget_s = config.steps, config.budget_s
        self._zero_s = time.monotonic()
        self._step_s = 0.0  # duration of a step
        self.earlier_s = self.begun_s = self.reserve_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._zero_s

    @property
    def values(self) -> dict[str, float]:
        """For the checkpoint; the input of `resume`."""
        return {"elapsed_s": self.elapsed_s, "begun_s": self.begun_s}

    def resume(self, *, elapsed_s: float, begun_s: float) -> None:
        """Continue where an earlier session ended; this session's set-up time is added."""
        self.earlier_s, self.begun_s = elapsed_s, begun_s
        self._zero_s -= elapsed_s

    def begin(self) -> None:
        """The first step follows: the schedules begin now."""
        self.begun_s = self.elapsed_s

    def keep_back(self, seconds: float) -> None:
        """Reserve time: steps end this long before the budget does."""
        self.reserve_s = seconds

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A step runs inside this block; its duration decides whether another one fits into the budget."""
        began_s = time.monotonic()
        yield
        taken_s = time.monotonic() - began_s
        self._step_s = _SMOOTHING * self._step_s + (1 - _SMOOTHING) * taken_s if self._step_s else taken_s

    def fraction(self, step: int) -> float:
        """The fraction of the run that is done after `step` steps, now; 1 if another step would be late."""
        return self._length.fraction(step, self.elapsed_s, self._step_s)

    def fraction_at(self, step: int, elapsed_s: float) -> float:
        """The fraction of the run that was done after `step` steps in `elapsed_s` seconds."""
        return self._length.fraction(step, elapsed_s)

    def seconds_left(self, step: int, steps_per_s: float) -> float:
        return self._length.seconds_left(step, self.elapsed_s, steps_per_s)

    @property
    def _length(self) -> Length:
        return Length(self._steps, self._budget_s, self.reserve_s, self.begun_s)
