"""torch is imported ahead, but not for a run that is refused."""

from __future__ import annotations

import threading

import pytest

from srgan_cli.errors import SettingsError
from srgan_cli.upscaling import warming
from srgan_cli.upscaling.warming import torch_ahead


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    done = threading.Event()
    monkeypatch.setattr(warming, "_import_torch", done.set)
    return done


def test_torch_is_imported_while_the_block_runs(imported: threading.Event) -> None:
    with torch_ahead(grace_seconds=0.0):
        assert imported.wait(10)


def test_a_refused_run_does_not_wait_for_torch(imported: threading.Event) -> None:
    with pytest.raises(SettingsError), torch_ahead(grace_seconds=0.5) as timer:
        raise SettingsError("no such thing")
    timer.join(10)
    assert not timer.is_alive()
    assert not imported.is_set()


def test_nothing_to_do_needs_no_torch(imported: threading.Event) -> None:
    with torch_ahead(grace_seconds=0.5) as timer:
        timer.cancel()
    timer.join(10)
    assert not imported.is_set()
