"""The progress of a run: plain values that a checkpoint stores beside the networks and the clock."""

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
    """Changed only by its own methods; read-only for others.

    `phase_began_step` and `_s`: when this phase began. `rate` is halved by each rollback. `log_bytes` and `monitor`:
    the log's end and the monitor's state at the last checkpoint. `batches` are the ones that fit, by phase; `pictures`
    identifies the set of pictures; `pieces`: the number of a teacher's pieces, and `taught_for` the run's length that
    they were made for; `models`: hashes of the other networks that the run learns from. `done` is the length after
    which the run was finished, and `scores` its scores then.
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
    taught_for: list[float] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    done: list[float] = field(default_factory=list)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)

    @classmethod
    def restored(cls, values: Mapping[str, Any]) -> State:
        """From a checkpoint's values, which include those of `values`.

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
        for count in (self.step, self.phase_step, self.phase_began_step, self.rollbacks, self.log_bytes, self.pieces):
            stored.whole(count)
        for number in (self.phase_began_s, self.rate, *self.taught_for):
            stored.real(number)
        for phase in (self.phase, *self.batches):
            if phase not in get_args(Phase):
                raise ValueError(f"unknown phase {phase!r}")
        for batch in self.batches.values():
            stored.whole(batch, 1)
        if not (isinstance(self.scores, dict) and isinstance(self.done, list) and isinstance(self.models, dict)):
            raise ValueError("its scores, its length or its models are missing")

    @property
    def values(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    # ------------------------------------------------------------------------------------------------ the training loop

    def advance(self) -> None:
        """A step has been made."""
        self.step += 1
        self.phase_step += 1

    def enter(self, phase: Phase, elapsed_s: float) -> None:
        """A phase begins, `elapsed_s` after the start of the run."""
        self.phase, self.phase_step = phase, 0
        self.phase_began_step, self.phase_began_s = self.step, elapsed_s

    def go_back(self, before: State) -> None:
        """Return to the state `before`, at half the rate. The count of rollbacks is kept, so that they end."""
        self.phase, self.step, self.phase_step = before.phase, before.step, before.phase_step
        self.phase_began_step, self.phase_began_s = before.phase_began_step, before.phase_began_s
        self.rollbacks, self.rate = self.rollbacks + 1, self.rate / 2

    # ------------------------------------------------------------------------------------------------------- setting up

    def take_batches(self, batches: Mapping[Phase, int]) -> None:
        """Set the batch of each phase that fits: determined once, and kept when the run is resumed."""
        self.batches = {str(phase): batch for phase, batch in batches.items()}

    def take_pieces(self, count: int, config: TrainConfig) -> None:
        """Set the number of a teacher's pieces, made for the length in `config`."""
        self.pieces, self.taught_for = count, _length(config)

    def has_pieces_for(self, config: TrainConfig) -> bool:
        """Whether the number of pieces stays, since the run has not become longer than they were made for."""
        length = _length(config)
        longer = len(length) != len(self.taught_for) or length > self.taught_for
        return self.pieces > 0 and not longer

    @property
    def taught_for_s(self) -> float:
        """The budget that a teacher's pieces were made for; 0 if it was a number of steps."""
        return self.taught_for[1] if len(self.taught_for) == 2 else 0.0

    def take_models(self, models: Mapping[str, str]) -> list[str]:
        """Set the hashes of the networks that the run learns from, and return the names of those that have changed
        since it began."""
        changed = [name for name, found in models.items() if self.models.get(name, found) != found]
        self.models = dict(models)
        return changed

    # ----------------------------------------------------------------------------------------------------- the recorder

    def take_pictures(self, digest: str) -> bool:
        """Set the pictures that the run learns from. Returns False if they differ from those it began with."""
        same = self.pictures in ("", digest)
        self.pictures = digest
        return same

    def note(self, log_bytes: int, monitor: Mapping[str, Any]) -> None:
        """Store the log's end and the monitor's state for the next checkpoint."""
        self.log_bytes, self.monitor = log_bytes, dict(monitor)

    def score(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Store scores, by what was scored and by metric."""
        self.scores = {name: dict(values) for name, values in scores.items()}

    def finish(self, config: TrainConfig) -> None:
        """Mark the run as finished with the length in `config`."""
        self.done = _length(config)

    def is_finished(self, config: TrainConfig) -> bool:
        return self.done == _length(config)


def _length(config: TrainConfig) -> list[float]:
    """Identifies a run's length: one number means steps, two mean a time."""
    return [0.0, config.budget_s] if config.budget_s is not None else [float(config.steps)]
