"""Reports of a training run, and its final outcome. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from srgan_cli.errors import ExitCode
from srgan_cli.training_config import Phase

if TYPE_CHECKING:
    from srgan_cli.dataset.crops import Scan


@dataclass(frozen=True)
class Progress:
    """The position of a run. `step` counts from the very first one, earlier sessions included; `fraction` is of the
    whole run.

    `losses` and `validation` are the latest values by name, as in the log. `loader_fraction` is the fraction of the
    step time that was spent waiting for crops, 0 … 1. `seconds_left` is None until known.
    """

    phase: Phase
    step: int
    fraction: float
    steps_per_s: float
    pictures_per_s: float
    losses: Mapping[str, float] = field(default_factory=dict)
    validation: Mapping[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    loader_fraction: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """The result of a run. `scores` are by what was scored (`bicubic`, `model`) and then by metric.

    `interrupted`: it was asked to stop and has saved its state; the same command resumes it.
    """

    folder: Path
    model: Path
    scores: Mapping[str, Mapping[str, float]]
    steps: int
    seconds: float
    interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.INTERRUPTED if self.interrupted else ExitCode.DONE


class TrainingObserver(Protocol):
    """Receives all events, from the training thread of the first process (rank 0) only."""

    def scanning(self, done: int, total: int) -> None:
        """`done` of `total` pictures have been scanned."""

    def scanned(self, scan: Scan) -> None:
        """The pictures have been scanned: the ones used, the ones left out and why, and how some were held out."""

    def caching(self, done: int, total: int) -> None:
        """`done` of `total` pictures have been decoded into the cache; 0 while another process decodes them."""

    def teaching(self, done: int, total: int) -> None:
        """The teacher has enlarged `done` pieces, of about `total`; 0 while another process's teacher does."""

    def preparing(self, what: str) -> None:
        """Something else that takes a while before the first step has begun: a phrase."""

    def started(self, facts: Mapping[str, object]) -> None:
        """The first step follows. `facts`: device, precision, batch, crop, parameters, length, `resumed_at` …"""

    def progress(self, p: Progress) -> None:
        """Called every few steps."""

    def note(self, sentence: str) -> None:
        """Something the user should know: a finding of the monitor, a rollback, an automatic decision."""

    def validated(self, values: Mapping[str, float]) -> None:
        """The validation pictures have been enlarged and scored."""


class SilentTraining:
    """An observer that reports nothing."""

    def scanning(self, done: int, total: int) -> None:
        pass

    def scanned(self, scan: Scan) -> None:
        pass

    def caching(self, done: int, total: int) -> None:
        pass

    def teaching(self, done: int, total: int) -> None:
        pass

    def preparing(self, what: str) -> None:
        pass

    def started(self, facts: Mapping[str, object]) -> None:
        pass

    def progress(self, p: Progress) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def validated(self, values: Mapping[str, float]) -> None:
        pass
