"""Waiting threads sleep soon, unless the environment or an earlier import of torch prevents it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("before", "environment", "expected"),
    [
        ("", {}, "1000"),
        ("", {"GOMP_SPINCOUNT": "7"}, "7"),
        ("", {"OMP_WAIT_POLICY": "active"}, "None"),
        ("sys.modules['torch'] = sys;", {}, "None"),  # too late: it has been read
    ],
)
def test_waiting_threads_sleep_soon(before: str, environment: dict[str, str], expected: str) -> None:
    code = f"import os, sys; {before} import srgan_cli; srgan_cli.Size; print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**clean, **environment}
    )
    assert done.stdout.strip() == expected


def test_the_command_line_too() -> None:
    code = "import os; from srgan_cli.cli import main; main(['--help']); print(os.environ.get('GOMP_SPINCOUNT'))"
    clean = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=clean)
    assert done.stdout.splitlines()[-1] == "1000"
