"""Reports of a run: the observer that receives them, and their tally."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from srgan_cli.errors import DeviceError, ExitCode, WeightsError
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.plan import Job, Skip, exit_code


class Observer(Protocol):
    """Receives the progress of a run. All calls come from the thread that called `run`, except that `done`, `failed`
    and `skipped` may come from others."""

    def started(self, job: Job) -> None: ...

    def advanced(self, job: Job, network_pixels: int) -> None:
        """`network_pixels` more output px of the network are final."""

    def resumed(self, job: Job, network_pixels: int) -> None:
        """`network_pixels` output px are final already, from an earlier run."""

    def computed(self, job: Job, network_pixels: int) -> None:
        """About `network_pixels` output px are computed of those that `advanced` has not reported yet: an intermediate
        state, which may be reported often, or never."""

    def done(self, job: Job, seconds: float, notes: tuple[str, ...]) -> None: ...

    def failed(self, failure: Failure) -> None: ...

    def skipped(self, skip: Skip) -> None:
        """Another process has made it since the run began."""

    def note(self, sentence: str) -> None:
        """Something the user should know."""

    def detail(self, sentence: str) -> None:
        """A detail the user may want to know."""


@dataclass
class Tally:
    """The counts of a run, and the exit code that follows from them. Any thread may append to a list; the numbers are
    added up by the thread that runs the networks."""

    done: list[Job] = field(default_factory=list)
    damaged: list[Job] = field(default_factory=list)  # of those done: made from the remains of a damaged file
    skips: list[Skip] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupted: bool = False
    cut_short: bool = False  # by --fail-fast, with pictures left
    error: DeviceError | WeightsError | None = None  # the error that ended the run early
    seconds: float = 0.0
    network_seconds: float = 0.0
    network_pixels: int = 0

    @property
    def output_pixels(self) -> int:
        """Of all results. Not counted on the way, since several threads finish pictures."""
        return sum(job.output_pixels for job in self.done)

    @property
    def exit_code(self) -> ExitCode:
        if self.error is not None:
            return self.error.exit_code
        if self.interrupted:
            return ExitCode.INTERRUPTED
        code = exit_code(bool(self.done or self.skips or self.cut_short), self.failures)
        return ExitCode.SOME_FAILED if self.damaged and code == ExitCode.DONE else code


class Silent:
    """An observer that reports nothing."""

    def started(self, job: object) -> None: ...

    def advanced(self, job: object, network_pixels: int) -> None: ...

    def resumed(self, job: object, network_pixels: int) -> None: ...

    def computed(self, job: object, network_pixels: int) -> None: ...

    def done(self, job: object, seconds: float, notes: tuple[str, ...]) -> None: ...

    def failed(self, failure: object) -> None: ...

    def skipped(self, skip: object) -> None: ...

    def note(self, sentence: str) -> None: ...

    def detail(self, sentence: str) -> None: ...
