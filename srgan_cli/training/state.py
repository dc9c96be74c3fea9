"""How far a run is: the plain values that a checkpoint keeps beside the networks and the clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from srgan_cli import stored
from srgan_cli.errors import WeightsError
from srgan_cli.training_config import Phase, TrainConfig


@dataclass
class State:
    """Changed only by its own methods; everybody else reads.

    `phase_began_step` and `_s`: when this phase began. `rate` is halved by each rollback. `log_bytes` and `monitor`:
    where the log ended and what the monitor knew at the last checkpoint. `batches` are what was found to fit, by
    phase; `pictures` tells a set of pictures from another; `pieces`: how many a teacher was asked for. `done` is the
    length after which the run was finished, and `scores` what it had then.
    """

    phase: Phase = "fidelity"
    step: int = 0
    phase_step: int = 0
    phase_began_step: int = 0
    phase_began_s: float = 0.0
    rollbacks: int = 0
    rate: float = 1.0
    log_bytes: int = 0
    monitor: dict[str, Any] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    pictures: str = ""
    pieces: int = 0
    done: list[float] = field(default_factory=list)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> State:
        """From a checkpoint's values, which are those of `values` and perhaps others.

        Raises `WeightsError` for values that no run could be resumed from.
        """
        names = {one.name for one in dataclasses.fields(cls)}
        state = cls(**{name: value for name, value in values.items() if name in names})
        try:
            state._check()
            for name in ("elapsed_s", "begun_s"):  # the clock's
                stored.real(values[name])
        except (AttributeError, KeyError, TypeError, ValueError) as err:
            raise WeightsError(f"the checkpoint is damaged: its values are not valid ({err})") from err
        return state

    def _check(self) -> None:
        for count in (self.step, self.phase_step, self.phase_began_step, self.rollbacks, self.log_bytes):
            stored.whole(count)
        for number in (self.phase_began_s, self.rate):
            stored.real(number)
        for phase in (self.phase, *self.batches):
            if phase not in get_args(Phase):
                raise ValueError(f"unknown phase {phase!r}")
        for batch in self.batches.values():
            stored.whole(batch, 1)
        if not (isinstance(self.scores, dict) and isinstance(self.done, list)):
            raise ValueError("its scores or its length are missing")

    @property
    def values(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    # ------------------------------------------------------------------------------------------------ the training loop

    def advance(self) -> None:
        """A step was made."""
        self.step += 1
        self.phase_step += 1

    def enter(self, phase: Phase, elapsed_s: float) -> None:
        """A phase begins, `elapsed_s` after the run did."""
        self.phase, self.phase_step = phase, 0
        self.phase_began_step, self.phase_began_s = self.step, elapsed_s

    def go_back(self, before: State) -> None:
        """To where the run was `before`, at half the rate. The count of such returns goes on, or they would not end."""
        self.phase, self.step, self.phase_step = before.phase, before.step, before.phase_step
        self.phase_began_step, self.phase_began_s = before.phase_began_step, before.phase_began_s
        self.rollbacks, self.rate = self.rollbacks + 1, self.rate / 2

    # ------------------------------------------------------------------------------------------------------- setting up

    def take_batches(self, batches: Mapping[Phase, int]) -> None:
        """The batch of each phase that fits: found once, and kept when the run is resumed."""
        self.batches = {str(phase): batch for phase, batch in batches.items()}

    def take_pieces(self, count: int) -> None:
        """How many pieces were taught: as many, when the run is resumed."""
        self.pieces = count

    # ----------------------------------------------------------------------------------------------------- the recorder

    def take_pictures(self, digest: str) -> bool:
        """The pictures that the run learns from. False: they are not those it began with."""
        same = self.pictures in ("", digest)
        self.pictures = digest
        return same

    def note(self, log_bytes: int, monitor: Mapping[str, Any]) -> None:
        """Where the log ends and what the monitor knows, for the checkpoint that is saved next."""
        self.log_bytes, self.monitor = log_bytes, dict(monitor)

    def score(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """What was reached, by what was scored and by metric."""
        self.scores = {name: dict(values) for name, values in scores.items()}

    def finish(self, config: TrainConfig) -> None:
        """The run is as long as `config` says."""
        self.done = _length(config)

    def is_finished(self, config: TrainConfig) -> bool:
        return self.done == _length(config)


def _length(config: TrainConfig) -> list[float]:
    """What tells a run's length from another: one number is steps, two are a time."""
    return [0.0, config.budget_s] if config.budget_s is not None else [float(config.steps)]
