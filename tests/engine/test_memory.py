"""How much memory is free, on any system."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import psutil
import pytest

from srgan_cli.engine.backends import memory
from tests.commands import Command


def test_free_memory_is_the_systems_word_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123 << 20))
    monkeypatch.setattr(memory, "_memory_groups", list)  # as off Linux
    assert memory.free_host_bytes() == 123 << 20
    monkeypatch.setattr(memory, "_memory_groups", lambda: [("group",)])
    monkeypatch.setattr(memory, "_free_in_group", lambda _folder: 45 << 20)
    assert memory.free_host_bytes() == 45 << 20, "a container's limit leaves less"


@pytest.mark.parametrize(("total_gib", "free_gib", "most_mib"), [(64, 60, 1100), (4, 3, 683), (16, 0.5, 308)])
def test_a_tile_takes_less_on_small_and_on_busy_machines(
    monkeypatch: pytest.MonkeyPatch, total_gib: float, free_gib: float, most_mib: int
) -> None:
    monkeypatch.setattr(
        psutil, "virtual_memory", lambda: SimpleNamespace(total=total_gib * 2**30, available=free_gib * 2**30)
    )
    monkeypatch.setattr(memory, "_memory_groups", list)
    assert 0.9 * most_mib <= memory.host_tile_bytes() / 2**20 <= most_mib


# The second of two windows is measured, since in the first libraries are loaded: what this process' memory is more at
# most than it was before, for each px of the window, and what was estimated of it.
_WINDOW = """
import ctypes
from pathlib import Path
import torch
torch.set_num_threads({threads})
from srgan_cli import EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from tests.faults import tiny_model

def of(word):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(word))

model = tiny_model("compact", 4, features=64, blocks=16, adversarial=True)
chain = (upscaler := Upscaler(model, EngineOptions("cpu", "{precision}", ensemble={ensemble}))).chain
with upscaler.compute.inference():
    for side in (32, 128):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = of("VmRSS")
        chain.subpixels(torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last))
        peak = of("VmHWM") - before
print(peak / side**2, chain.bytes_per_px(), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("precision", "ensemble"), [("fp32", False), ("bf16", False), ("fp32", True)])
def test_a_window_takes_what_was_estimated(precision: str, ensemble: bool, threads: int) -> None:
    """Gaps in the heap included: of large windows in fp32 they took nearly as much as what was in use."""
    prelude = _WINDOW.format(precision=precision, ensemble=ensemble, threads=threads)
    with Command("--version", prelude=prelude) as command:
        said, _ = command.communicate()
    taken, estimated = map(float, said.split()[:2])
    assert 0.35 * estimated < taken < 1.06 * estimated
