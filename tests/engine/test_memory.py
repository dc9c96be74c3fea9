"""How much memory is free, on any system."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from srgan_cli.engine.backends import memory


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
