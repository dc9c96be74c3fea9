"""Contradictory settings of `srgan train`, and an output pipe that is closed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from srgan_cli.cli.train import resolve
from srgan_cli.cli.training_console import TrainingWatch
from srgan_cli.errors import SettingsError


@pytest.mark.parametrize(("options", "assignment"), [({"steps": 5}, "budget_s=60"), ({"budget_s": 60.0}, "steps=5")])
def test_a_run_has_one_length(options: Mapping[str, Any], assignment: str) -> None:
    with pytest.raises(SettingsError, match="give only one of"):
        resolve(None, None, options, [assignment])
    assert resolve(None, None, {}, [assignment]) is not None


def test_the_adversarial_phase_wants_a_network_to_begin_with() -> None:
    with pytest.raises(SettingsError, match=r"--init .* --phase both"):
        resolve(None, None, {"phase": "adversarial"}, [])
    assert resolve(None, None, {"phase": "adversarial", "init": "fidelity"}, []).phase == "adversarial"
    assert resolve(None, None, {}, ["phase=adversarial"]).init is None


def test_training_continues_when_its_events_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        calls = 0

        def write(self, text: str) -> None:
            json.loads(text)
            Gone.calls += 1
            raise BrokenPipeError

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr(sys, "stdout", Gone())
    watch = TrainingWatch(quiet=True, as_json=True)
    watch.validated({"psnr_y_db": 1.0})
    watch.validated({"psnr_y_db": 2.0})
    assert Gone.calls == 1
