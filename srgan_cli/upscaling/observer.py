"""What a run reports while it goes, to whom, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from srgan_cli.errors import DeviceError, ExitCode, WeightsError
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.plan import Job, Skip, exit_code


class Observer(Protocol):
    """Who hears how a run goes. All calls come from the thread that called `run`, but `done`, `failed` and
    `skipped`, which may come from the others."""

    def started(self, job: Job) -> None: ...

    def advanced(self, job: Job, network_pixels: int) -> None:
        """`network_pixels` more output px of the network are final."""

    def done(self, job: Job, seconds: float, notes: tuple[str, ...]) -> None: ...

    def failed(self, failure: Failure) -> None: ...

    def skipped(self, skip: Skip) -> None:
        """Another process has made it since the run began."""

    def note(self, sentence: str) -> None:
        """Something a person should know."""

    def detail(self, sentence: str) -> None:
        """Something a person may want to know."""


@dataclass
class Tally:
    """The tally of a run, and the exit code that follows from it."""

    done: list[Job] = field(default_factory=list)
    damaged: list[Job] = field(default_factory=list)  # of those done: made of what is left of a damaged file
    skips: list[Skip] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    cut_short: bool = False  # by --fail-fast, with pictures left
    error: DeviceError | WeightsError | None = None  # what ended the run early
    seconds: float = 0.0
    network_seconds: float = 0.0
    network_pixels: int = 0
    output_pixels: int = 0

    @property
    def exit_code(self) -> ExitCode:
        if self.error is not None:
            return self.error.exit_code
        if self.interrupted:
            return ExitCode.INTERRUPTED
        code = exit_code(bool(self.done or self.skips or self.cut_short), self.failures)
        return ExitCode.SOME_FAILED if self.damaged and code == ExitCode.DONE else code


class Silent:
    """An observer that keeps to itself."""

    def started(self, job: object) -> None: ...

    def advanced(self, job: object, network_pixels: int) -> None: ...

    def done(self, job: object, seconds: float, notes: tuple[str, ...]) -> None: ...

    def failed(self, failure: object) -> None: ...

    def skipped(self, skip: object) -> None: ...

    def note(self, sentence: str) -> None: ...

    def detail(self, sentence: str) -> None: ...
