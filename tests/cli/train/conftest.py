"""Fixtures that several of these tests take."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.training import preflight
from tests.cli.train.trainers import Trainer, _stand_in


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    fake = Trainer()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    _stand_in(monkeypatch, "trainer", train=fake.train)
    monkeypatch.setattr(preflight, "check", lambda config, folder: None)  # the folders of these tests do not exist
    return fake
