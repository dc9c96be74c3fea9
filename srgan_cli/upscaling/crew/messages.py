"""What the process that leads a run and its workers say to each other. Pickled, between processes of ours only."""

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
    """What a worker needs to know of a run: `options` are those of its own device. `make` loads its networks."""

    options: UpscaleOptions
    selections: dict[str, Selection]
    settings_key: str
    make: Make

    def for_one_of(self, count: int) -> Brief:
        """The brief for each of several workers of one machine: what a run may hold at a time is divided among them."""
        whole = self.options.queue_bytes
        queue_bytes = max(whole // count, min(whole, _LEAST_QUEUE_BYTES))
        return replace(self, options=replace(self.options, queue_bytes=queue_bytes))


@dataclass(frozen=True)
class Pictures:
    """Make these, from their files to files. With `blind`, a worker sees neither: the one job carries its data, and
    what it becomes is sent back."""

    jobs: tuple[Job, ...]
    blind: bool = False


@dataclass(frozen=True)
class Look:
    """Say whether you see a picture, and `probe`, a file beside results with its content."""

    source: Path | None
    probe: tuple[Path, str] | None


@dataclass(frozen=True)
class Survey:
    """Load the networks of a job, and say how its picture is to be cut; `probe` is a file to be looked for, and what is
    in it."""

    job: Job
    probe: tuple[Path, str] | None = None


@dataclass(frozen=True)
class Piece:
    """Make `rows` of a picture out of `low`, its rows [rows.begin, rows.end): into the scratch file, where there is
    one that the worker sees, else to be sent back."""

    job: Job
    rows: Span
    low: Pixels
    tile_px: int
    scratch: Path | None


Unit: TypeAlias = "Pictures | Look | Survey | Piece"

# ----------------------------------------------------------------------------------------------------- from a worker


@dataclass(frozen=True)
class Started:
    """The picture that becomes `target` is begun, by the model that was chosen for it. Whoever leads has the job:
    events are many, and carry no more than they have to."""

    target: Path
    model: str
    why: str
    made_by: tuple[str, str]


@dataclass(frozen=True)
class Advanced:
    target: Path
    network_pixels: int


@dataclass(frozen=True)
class Done:
    """A picture has its name. `result` is its file's identity, `data` its bytes where it has none yet; `damaged`: it
    was made of what is left of one."""

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
    """Something a person should know, or (`detail`) may want to know."""

    sentence: str
    detail: bool


@dataclass(frozen=True)
class Looked:
    sees: bool


@dataclass(frozen=True)
class Surveyed:
    """How a worker would cut a picture. `tile_px` 0: not at all, as its model fades tiles together."""

    scale: int
    tile_px: int
    band_px: int
    halo_px: int
    sees_probe: bool


@dataclass(frozen=True)
class Pieced:
    """Rows are made: they are in the scratch file, or here."""

    rows: Span
    high: Pixels | None


@dataclass(frozen=True)
class Over:
    """A unit has ended; what was neither done nor failed of it is handed back. `error`: why, where the device (or its
    weights) cannot go on. `seconds`: since its first picture was begun, the loading of networks left out."""

    error: DeviceError | WeightsError | None = None
    network_seconds: float = 0.0
    network_pixels: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Gone:
    """The worker has ended without a word, and this is how."""

    how: str


Event: TypeAlias = "Started | Advanced | Done | Failed | Said | Looked | Surveyed | Pieced | Over | Gone"


class Crew(Protocol):
    """Workers, by name. Each makes its units in the order in which they are given. `sees_all`: they are on this
    machine, and see its files; of others each is asked."""

    sees_all: bool

    def workers(self) -> tuple[str, ...]:
        """Those that exist now."""

    def awaited(self) -> int:
        """How many more are being started."""

    def give(self, worker: str, unit: Unit) -> None: ...

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        """What they have said, as soon as they have, or nothing after that many seconds. `Over` ends each unit, or
        `Gone`."""

    def renew(self, worker: str) -> bool:
        """Another worker in the place of one that is gone; False where there can be none."""

    def leave_out(self, worker: str) -> None:
        """Let one go that is of no use."""

    def interrupt(self) -> None:
        """Let all end what they do, with nothing half-made, and begin nothing of what they have been given."""

    def close(self) -> None: ...
