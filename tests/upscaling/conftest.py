"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.upscaling.backends import pytorch


@pytest.fixture(scope="session")
def model(tiny_x2: Path) -> Path:
    return tiny_x2


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that multiplies bf16 in hardware, where `auto` takes it."""
    monkeypatch.setattr(pytorch, "cpu_has_fast_bf16", lambda: True)
