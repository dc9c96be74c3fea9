"""What the engine asks of a backend: to run a batch of windows; its memory; its precisions; its name and reasons.

Everything else (halos, bands, colours, rounding, finite checks, the canary, a tile halved when memory runs out) is the
engine's, and the same for all. A further backend is one file with a `Backend` and a function that lists its devices,
and a line in `choice`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from srgan_cli.networks.noise import Noise
    from srgan_cli.networks.weights import Model

RunPrecision: TypeAlias = Literal["fp32", "fp16", "bf16"]

# What a first guess may take of the memory that is free: the rest is for everything that a guess forgets.
MEMORY_FRACTION = 0.6
# Side of the largest window, halo included.
MAX_WINDOW_PX = 1024
ACCELERATOR_BATCH = 8


@dataclass(frozen=True)
class Device:
    """Something that networks can run on. `name` is what `--device` takes."""

    name: str
    title: str
    free_bytes: int | None = None
    only_when_asked: str = ""  # why `auto` passes it over; empty: it does not

    def __str__(self) -> str:
        parts = [self.title]
        if self.free_bytes is not None:
            parts.append(f"{self.free_bytes / 2**30:.1f} GiB free")
        if self.only_when_asked:
            parts.append(f"only when asked for: {self.only_when_asked}")
        return f"{self.name}: {', '.join(parts)}"


def because(reasons: tuple[str, ...], reason: str | None) -> tuple[str, ...]:
    """A backend's reasons when its precision is no longer what it was: the device's stays, `reason` is the new one."""
    return reasons if reason is None else (*reasons[:1], reason)


class Prepared(Protocol):
    """One network, ready to run."""

    shuffle: int

    def subpixels(self, low: Tensor) -> Tensor:
        """(N, C, H, W) fp32 -> (N, C·r², H·s/r, W·s/r) fp32 with r = `shuffle`; both lie on the backend's `device`."""


@runtime_checkable
class Drawing(Prepared, Protocol):
    """One that can draw its detail from noise."""

    def drawn(self, low: Tensor, noise: Noise) -> Tensor:
        """As `subpixels`."""


class Backend(Protocol):
    """Where and in what precision networks run."""

    @property
    def name(self) -> str:
        """As `--device` takes it."""

    @property
    def device(self) -> torch.device:
        """Where windows are handed over, and results. A backend with a memory of its own takes them from the host."""

    @property
    def precision(self) -> RunPrecision: ...

    @property
    def chosen_precision(self) -> bool:
        """The person named the precision: obey, do not second-guess."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences that `srgan doctor` prints: why this device, and why this precision."""

    @property
    def max_window_px(self) -> int:
        """Side of the largest window, halo included, that is worth it or possible."""

    @property
    def windows_at_once(self) -> int:
        """How many windows share the memory."""

    def exact(self, reason: str | None = None) -> Backend:
        """The same in fp32; with a `reason`, that is why from now on."""

    def referee(self, models: Sequence[Model]) -> Backend | None:
        """What the canary compares this one with; None where this one is beyond doubt."""

    def prepare(self, model: Model) -> Prepared:
        """Raises `RuntimeError` or `MemoryError` as the device does."""

    def inference(self) -> AbstractContextManager[None]:
        """What networks run inside of."""

    def budget_bytes(self) -> float:
        """How much of the memory that is free now windows may take."""

    def bytes_per_px(self, networks: Sequence[Prepared], probe: Callable[[int], object], result: float) -> float:
        """Memory that one more px of a window takes at the peak, in any of `networks` and behind them, where the copies
        of the result take `result` bytes.

        `probe(side)` runs all of them on a square window.
        """

    def is_out_of_memory(self, err: BaseException) -> bool:
        """Whether an error means that a smaller window may succeed."""

    def empty_cache(self) -> None:
        """Give what is held unused back to the device."""
