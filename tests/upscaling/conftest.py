"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(tiny_x2: Path) -> Path:
    return tiny_x2
