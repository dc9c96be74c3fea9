"""Measurements of a run: speed, start-up time, memory, and whether other programs used the machine."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.pace import Pace

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

# The fraction of available processor time below which the machine counts as busy.
_BUSY_FRACTION = 0.7


class Stopwatch:
    """Started with a run (`began`, from `time.perf_counter`), marked when the first network is ready, read at the
    end."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._startup: float | None = None
        self._start_bytes = 0
        self._processor_began = 0.0

    def ready(self) -> None:
        if self._startup is None:
            self._startup = time.perf_counter() - self._began
            self._start_bytes = peak_bytes()
            self._processor_began = time.process_time()

    def pace(self, tally: Tally, upscaler: Upscaler) -> Pace:
        """The pace of a run that enlarged pictures."""
        import torch

        processor = time.process_time() - self._processor_began
        on_host = upscaler.compute.name == "cpu"
        busy = on_host and processor < _BUSY_FRACTION * tally.network_seconds * torch.get_num_threads()
        pictures = max((job.memory_bytes for job in tally.done), default=0)
        largest = max((job.header.width * job.header.height for job in tally.done), default=0)
        return Pace(
            upscaler.compute.name,
            upscaler.compute.precision,
            upscaler.tile_px,
            tally.network_pixels / 1e6 / tally.network_seconds,
            startup_seconds=round(self._startup or 0.0, 3),
            start_bytes=self._start_bytes,
            network_bytes=max(self._start_bytes, peak_bytes() - pictures),
            window_px=min(largest, upscaler.tile_px**2),
            was_busy=busy,
        )


def peak_bytes() -> int:
    """This process's peak memory so far; 0 if the system does not report it."""
    with suppress(ImportError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 0
