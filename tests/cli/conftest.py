"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tiny_x4: Path) -> Path:
    return tiny_x4
