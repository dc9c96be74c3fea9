"""One call of a part of the GPU programme: its device, its time limit, and its output."""

from __future__ import annotations

import functools
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from srgan_cli.errors import SrganError

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# If less time than this is left for a part, nothing more is started.
_RESERVE_S = 20.0
_FAILURES = (RuntimeError, MemoryError, ValueError, ImportError, OSError, subprocess.SubprocessError, SrganError)


@dataclass
class Programme:
    device: str
    out: Path
    pictures: Path
    minutes: float
    tiny: bool
    part: str
    began_s: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return self.minutes * 60.0 - _RESERVE_S - (time.monotonic() - self.began_s)

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def half(self) -> str:
        """The precision in which a GPU is fastest; elsewhere fp32."""
        return "fp16" if self.on_cuda else "fp32"

    def tell(self, **values: object) -> None:
        """Write one line of the results."""
        line = {"part": self.part, "device": self.title, "torch": torch.__version__, "tiny": self.tiny, **values}
        with self.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    @functools.cached_property
    def title(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.on_cuda else self.device

    def seconds(self, work: Callable[[], object]) -> float:
        """The median of several runs, not counting the first."""
        taken = []
        for _ in range(2 if self.tiny else 6):
            began = time.perf_counter()
            work()
            if self.on_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    def find(self, work: Callable[[], Mapping[str, object]], **values: object) -> None:
        """One finding: `values`, plus the results of `work`, or why it failed."""
        if self.left_s <= 0:
            self.tell(**values, skipped="no time left")
            return
        try:
            self.tell(**values, **work())
        except _FAILURES as err:
            self.tell(**values, failed=f"{type(err).__name__}: {' '.join(str(err).split())[:300]}")
        if self.on_cuda:
            torch.cuda.empty_cache()
