"""Fixtures that several of these tests take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.upscaling.pictures import picture


@pytest.fixture(scope="session")
def model(tiny_x4: Path) -> Path:
    return tiny_x4


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """in/ with five pictures."""
    for number, name in enumerate("abcde"):
        picture(tmp_path / "in" / f"{name}.png", 20 + number, 16, seed=number)
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())  # a server of other tests may run on
    yield
    deadline = time.monotonic() + 20
    while (left := _ours(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


def _ours(before: set[threading.Thread]) -> list[str]:
    return [t.name for t in threading.enumerate() if t not in before and t.name.startswith("srgan-")]
