"""Fixtures that several of these tests take."""

from __future__ import annotations

import pytest

from srgan_cli.engine.backends import pytorch


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that multiplies bf16 in hardware, where `auto` takes it."""
    monkeypatch.setattr(pytorch, "cpu_has_fast_bf16", lambda: True)
