"""The folders for files on their way from or to a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.stores import scratch


def test_what_another_process_removes_meanwhile_is_no_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = scratch.for_results("memory://a")
    entries = list(folder.path.parent.iterdir())
    gone = folder.path.parent / "results-0123456789abcdef.lock"
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([gone, *entries]))
    other = scratch.for_results("memory://b")
    assert other.path.is_dir()
    other.close()
    folder.close()
