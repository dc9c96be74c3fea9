"""What a run will do: which pictures, their sizes, their names. `planning` decides it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.config import WriteOptions
from srgan_cli.errors import ExitCode
from srgan_cli.imaging.image import Depth, Header
from srgan_cli.imaging.output import Output
from srgan_cli.stores.fetching import Fetched
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.ledger import identity
from srgan_cli.upscaling.paging import PageJob

# Pictures up to this size are decoded whole, ahead of time; larger ones are read row by row while they are upscaled.
READ_AHEAD_BYTES = 96 << 20
# Results up to this size are built in memory; larger ones in a scratch file beside the target.
CANVAS_BYTES = 192 << 20


@dataclass(frozen=True)
class Job:
    """One picture to be enlarged. `scales` are the networks' factors in order, empty for a picture that is already
    large enough. The result is resampled to the size of `output` if their product does not match exactly. `ledger` is
    the folder whose record it is written to. `data` holds the bytes from stdin. `model` is the one to use and `why` the
    reason; both empty if not chosen yet."""

    source: Path
    target: Path
    header: Header
    scales: tuple[int, ...]
    output: Output
    ledger: Path | None = None
    data: bytes | None = None
    notes: tuple[str, ...] = ()  # note for the user
    is_new: bool = True  # nothing may be replaced
    is_copy: bool = False  # copy the input's bytes unchanged
    model: str = ""
    why: str = ""
    version: str = ""  # the version of an input in a store
    fetched: Fetched | None = None  # temporary copy of an input from a store
    made_by: tuple[str, str] = ("", "")  # for provenance: the model's name, its weights
    page: int | None = None  # page of a file of several, if it becomes a file of its own
    # pages of a document that stays one file; header, scales and output are those of its first page
    pages: tuple[PageJob, ...] = ()
    container: str | None = None  # the kind of file that contains the results, a key of CONTAINERS
    variant: int = 0  # from 1 on, if its input has several

    def seed(self, first: int) -> int:
        """Seed of its noise and its grain: consecutive for the variants, beginning with `first`."""
        return first + max(0, self.variant - 1)

    @property
    def origin(self) -> Path | bytes:
        """Where the input's bytes are now."""
        if self.data is not None:
            return self.data
        return self.source if self.fetched is None else self.fetched.path

    @property
    def source_identity(self) -> str:
        """As `ledger.identity`; for a picture in a store, its version when the run was planned."""
        return self.version or identity(self.source)

    @property
    def network_scale(self) -> int:
        return math.prod(self.scales)

    @property
    def raw_bytes(self) -> int:
        """The result's size before compression."""
        return sum(page.raw_bytes for page in self.pages) or self.output.raw_bytes(self.header.channels)

    def needed_bytes(self, options: WriteOptions) -> int:
        """A generous estimate of the file's size."""
        parts = self.pages or (self,)
        return sum(part.output.needed_bytes(part.header.channels, options) for part in parts)

    @property
    def canvas_depth(self) -> Depth:
        """Bits per sample of the network's own result."""
        return self.output.depth if self.scales else self.header.depth

    @property
    def canvas_bytes(self) -> int:
        """Size of the network's own result, in memory or in a scratch file."""
        if self.pages:
            return max(page_of(self, page).canvas_bytes for page in self.pages)
        pixels = self.header.width * self.header.height * self.network_scale**2
        return 0 if self.is_copy else pixels * self.header.channels * self.canvas_depth // 8

    @property
    def scratch_bytes(self) -> int:
        """Space that a large picture needs on the target's disk during the run."""
        return self.canvas_bytes if self.canvas_bytes > CANVAS_BYTES else 0

    @property
    def memory_bytes(self) -> int:
        """Maximum memory for one picture, without the network."""
        decoded = max(part.header.decoded_bytes for part in self.pages or (self,))
        return min(decoded, READ_AHEAD_BYTES) + self.canvas_bytes - self.scratch_bytes

    @property
    def network_pixels(self) -> int:
        """Output px of the network, which determine the time. 0 if the picture is already large enough."""
        if self.pages:
            return sum(page.network_pixels for page in self.pages)
        return 0 if not self.scales else self.header.width * self.header.height * self.network_scale**2

    @property
    def output_pixels(self) -> int:
        return sum(part.output.pixels for part in self.pages or (self,))


def page_of(job: Job, page: PageJob) -> Job:
    """One page of a document as a separate picture."""
    return replace(
        job, header=page.header, scales=page.scales, output=page.output, page=page.number, pages=(), is_copy=False
    )


@dataclass(frozen=True)
class Skip:
    """One input that needs nothing."""

    source: Path
    target: Path
    reason: str


@dataclass(frozen=True)
class Plan:
    """Everything a run will do, in order."""

    jobs: tuple[Job, ...]
    skips: tuple[Skip, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()  # notes for the user, before the work begins
    cut_short: bool = False  # there were more pictures, but --fail-fast found a failure first

    @property
    def network_pixels(self) -> int:
        return sum(job.network_pixels for job in self.jobs)

    @property
    def exit_code(self) -> ExitCode:
        """The best possible exit code of the run."""
        return exit_code(bool(self.jobs or self.skips or self.cut_short), self.failures)


def exit_code(some_done: bool, failures: Sequence[Failure]) -> ExitCode:
    """All done, some failed, or no input was readable."""
    if failures and not some_done and all(failure.unreadable for failure in failures):
        return ExitCode.NOTHING_READABLE
    return ExitCode.SOME_FAILED if failures else ExitCode.DONE
