"""Fixtures that several of these tests take."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from srgan_cli.training import trainer
from tests import faults
from tests.training.runs import Witness, config, save_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No test changes them."""
    return save_photos(tmp_path_factory.mktemp("photos"), 8)


@pytest.fixture(scope="session")
def trained(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `config(photos)`, which no test changes."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    trainer.train(config(photos), folder, Witness())
    return folder


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(trained, tmp_path / "finished"))


@pytest.fixture(scope="session")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Teachers that enlarge 2 and 4 times; no test changes them."""
    folder = tmp_path_factory.mktemp("teachers")
    for scale in (2, 4):
        faults.save_tiny(folder / f"x{scale}.safetensors", scale, seed=3)
    return folder
