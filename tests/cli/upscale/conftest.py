"""Fixtures that several of these tests take."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from srgan_cli.cli import main
from tests.cli.upscale.commands import Run, _Stdin


@pytest.fixture(autouse=True)
def _here(here: Path) -> None:
    """All of them work there."""


@pytest.fixture
def srgan(model: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`srgan upscale ARGUMENTS` in this process -> exit code, stdout, stderr."""

    def run(*arguments: str | Path, stdin: bytes | None = None) -> tuple[int, bytes, str]:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", _Stdin(stdin))
        settings = [] if "--device" in arguments else ["--device", "cpu"]
        settings += [] if "--precision" in arguments else ["--precision", "fp32"]
        settings += [] if "-m" in arguments else ["-m", str(model)]
        code = main(["upscale", *settings, *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return code, out, err.decode()

    return run
