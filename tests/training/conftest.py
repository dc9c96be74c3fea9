"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import save_photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photos(tmp_path_factory.mktemp("photos"), 8)
