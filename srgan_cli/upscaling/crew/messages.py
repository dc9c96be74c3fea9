"""Messages between the leading process of a run and its workers. Pickled, and only exchanged between srgan's own
processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from srgan_cli.config import UpscaleOptions
from srgan_cli.engine.tiles import Span
from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.imaging.image import Pixels
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.session import Selection, Session

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

_LEAST_QUEUE_BYTES = 64 << 20
Make: TypeAlias = "Callable[[Session, Job, Callable[[str], None]], Upscaler]"

# ------------------------------------------------------------------------------------------------------- to a worker


@dataclass(frozen=True)
class Brief:
    """What a worker needs to know about a run: `options` are those of its own device. `make` loads its networks."""

    options: UpscaleOptions
    selections: dict[str, Selection]
    settings_key: str
    make: Make

    def for_one_of(self, count: int) -> Brief:
        """The brief for each of several workers on one machine, among which the run's memory limit is divided."""
        whole = self.options.queue_bytes
        queue_bytes = max(whole // count, min(whole, _LEAST_QUEUE_BYTES))
        return replace(self, options=replace(self.options, queue_bytes=queue_bytes))


@dataclass(frozen=True)
class Pictures:
    """Make these pictures, from files to files. `without_files`: for a worker that does not see them; its one job
    contains the picture's data, and the result is sent back."""

    jobs: tuple[Job, ...]
    without_files: bool = False


@dataclass(frozen=True)
class CheckAccess:
    """Report whether you see a picture, and `probe`: a file beside the results, with its content."""

    source: Path | None
    probe: tuple[Path, str] | None


@dataclass(frozen=True)
class Survey:
    """Load a job's networks and report how its picture should be cut; `probe` is a file to look for, with its
    content."""

    job: Job
    probe: tuple[Path, str] | None = None


@dataclass(frozen=True)
class Strip:
    """Make `rows` of a picture from `low`, its rows [rows.begin, rows.end): into the scratch file if the worker sees
    it, else send them back."""

    job: Job
    rows: Span
    low: Pixels
    tile_px: int
    scratch: Path | None


Unit: TypeAlias = "Pictures | CheckAccess | Survey | Strip"

# ----------------------------------------------------------------------------------------------------- from a worker


@dataclass(frozen=True)
class Started:
    """The picture for `target` has been started, with the model chosen for it. The leading process has the job itself:
    events are many, and kept small."""

    target: Path
    model: str
    why: str
    made_by: tuple[str, str]


@dataclass(frozen=True)
class Advanced:
    """Px of a picture have become final; `resumed`: they were made by an earlier run."""

    target: Path
    network_pixels: int
    resumed: bool = False


@dataclass(frozen=True)
class Computed:
    """Px of a picture have been computed which are not final yet. Sent now and then."""

    target: Path
    network_pixels: int


@dataclass(frozen=True)
class Done:
    """A picture has been published. `result` is its file's identity, or `data` its bytes if it is not published yet;
    `damaged`: it was made from the remains of a damaged one."""

    target: Path
    seconds: float
    notes: tuple[str, ...]
    result: str
    damaged: bool
    data: bytes | None = None


@dataclass(frozen=True)
class Failed:
    failure: Failure


@dataclass(frozen=True)
class Said:
    """A note for the user, or with `detail` one of less importance."""

    sentence: str
    detail: bool


@dataclass(frozen=True)
class AccessChecked:
    sees: bool


@dataclass(frozen=True)
class Surveyed:
    """How a worker would cut a picture. `tile_px` 0: not at all, since its model blends tiles."""

    scale: int
    tile_px: int
    band_px: int
    halo_px: int
    sees_probe: bool


@dataclass(frozen=True)
class StripComputed:
    """About `low_px` low-resolution px of the strip that begins at `row` are computed. Sent now and then."""

    row: int
    low_px: int


@dataclass(frozen=True)
class StripDone:
    """Rows are finished: in the scratch file, or in this message."""

    rows: Span
    high: Pixels | None


@dataclass(frozen=True)
class UnitEnded:
    """A unit has ended; jobs that neither succeeded nor failed are handed back. `error`: why the device (or its
    weights) cannot continue. `seconds`: time since its first picture was started, without loading networks."""

    error: DeviceError | WeightsError | None = None
    network_seconds: float = 0.0
    network_pixels: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class WorkerLost:
    """The worker has ended without a message; `how` describes it."""

    how: str


Event: TypeAlias = (
    "Started | Advanced | Computed | Done | Failed | Said | AccessChecked | Surveyed | StripComputed | StripDone"
    " | UnitEnded | WorkerLost"
)


class Crew(Protocol):
    """Workers by name. Each makes its units in the given order. `sees_all`: they are on this machine and see its files;
    others have to be asked."""

    sees_all: bool

    def workers(self) -> tuple[str, ...]:
        """The current workers."""

    def awaited(self) -> int:
        """How many more are being started."""

    def give(self, worker: str, unit: Unit) -> None: ...

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        """Events as soon as there are any, or none after that many seconds. Each unit ends with `UnitEnded`, or with
        `WorkerLost`."""

    def renew(self, worker: str) -> bool:
        """Start another worker in place of one that has ended; False if that is impossible."""

    def leave_out(self, worker: str) -> None:
        """Dismiss a worker that cannot be used."""

    def recall(self) -> None:
        """Make all workers end the bands that they are making early, and start none of their other units. They stay:
        each unit ends with its event, as always."""

    def interrupt(self) -> None:
        """Make all workers stop without partial results, and start none of their other units: the run ends."""

    def close(self) -> None: ...
