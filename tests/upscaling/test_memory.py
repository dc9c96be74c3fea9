"""How much memory is free, on any system."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from srgan_cli.upscaling.backends import memory


def test_free_memory_is_the_systems_word_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123 << 20))
    monkeypatch.setattr(memory, "_memory_groups", list)  # as off Linux
    assert memory.free_host_bytes() == 123 << 20
    monkeypatch.setattr(memory, "_memory_groups", lambda: [("group",)])
    monkeypatch.setattr(memory, "_free_in_group", lambda _folder: 45 << 20)
    assert memory.free_host_bytes() == 45 << 20, "a container's limit leaves less"
