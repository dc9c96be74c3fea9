"""The interface of a backend: it runs a batch of windows, and reports its memory, its precisions, its name and reasons.

The engine does everything else (halos, bands, colours, rounding, finite checks, the canary, halving tiles when memory
runs out) in the same way for all. A new backend is one file with a `Backend` and a function that lists its devices, and
a line in `choice`.
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

# Fraction of the free memory that a first estimate may use: the rest is for everything the estimate does not include.
MEMORY_FRACTION = 0.6
# Side of the largest window, halo included.
MAX_WINDOW_PX = 1024
ACCELERATOR_BATCH = 8


@dataclass(frozen=True)
class Device:
    """A device that can run networks. `name` is its name in `--device`."""

    name: str
    title: str
    free_bytes: int | None = None
    only_when_asked: str = ""  # why `auto` does not choose it; empty if it may

    def __str__(self) -> str:
        parts = [self.title]
        if self.free_bytes is not None:
            parts.append(f"{self.free_bytes / 2**30:.1f} GiB free")
        if self.only_when_asked:
            parts.append(f"used only if you name it: {self.only_when_asked}")
        return f"{self.name}: {', '.join(parts)}"


def because(reasons: tuple[str, ...], reason: str | None) -> tuple[str, ...]:
    """A backend's reasons after its precision has changed: the device's is kept, `reason` is the new one."""
    return reasons if reason is None else (*reasons[:1], reason)


class Prepared(Protocol):
    """One network, ready to run."""

    shuffle: int

    def subpixels(self, low: Tensor) -> Tensor:
        """(N, C, H, W) fp32 -> (N, C·r², H·s/r, W·s/r) fp32 with r = `shuffle`; both on the backend's `device`."""


@runtime_checkable
class Drawing(Prepared, Protocol):
    """A prepared network that can draw its detail from noise."""

    def drawn(self, low: Tensor, noise: Noise) -> Tensor:
        """As `subpixels`."""


@runtime_checkable
class Followed(Prepared, Protocol):
    """A prepared network that reports how far it is while it runs."""

    work: int  # for one px of its input, in units of its own: only ratios count
    on_fraction: Callable[[float], None] | None  # called with the fraction done, in the thread that runs it


class Backend(Protocol):
    """Where, and in what precision, networks run."""

    @property
    def name(self) -> str:
        """The device's name in `--device`."""

    @property
    def device(self) -> torch.device:
        """The device on which windows are passed in and results returned. Backends with their own memory use the
        host."""

    @property
    def precision(self) -> RunPrecision: ...

    @property
    def chosen_precision(self) -> bool:
        """Whether the user chose the precision: then it is used without the canary."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The sentences that `srgan doctor` prints: why this device, and why this precision."""

    @property
    def max_window_px(self) -> int:
        """Side of the largest window, halo included, that is possible and useful."""

    @property
    def windows_at_once(self) -> int:
        """How many windows share the memory."""

    @property
    def leaves_host_free(self) -> bool:
        """Whether the host's processor has other work to do while a window runs."""

    def exact(self, reason: str | None = None) -> Backend:
        """The same backend in fp32; `reason`, if given, is the new reason for the precision."""

    def referee(self, models: Sequence[Model]) -> Backend | None:
        """The backend that the canary compares this one with; None if this one needs no check."""

    def prepare(self, model: Model) -> Prepared:
        """Raises `RuntimeError` or `MemoryError` as the device does."""

    def inference(self) -> AbstractContextManager[None]:
        """A context in which networks run."""

    def budget_bytes(self) -> float:
        """How much of the currently free memory windows may use."""

    def bytes_per_px(
        self, networks: Sequence[Prepared], probe: Callable[[int], object], result: float, held: float = 0.0
    ) -> float:
        """Memory for one more px of a window at the peak, in any of `networks` and after them, where copies of the
        result take `result` bytes. `held` of these are there while the networks run.

        `probe(side)` runs all of them on a square window.
        """

    def is_out_of_memory(self, err: BaseException) -> bool:
        """Whether an error means that a smaller window may succeed."""

    def empty_cache(self) -> None:
        """Return unused cached memory to the device."""
