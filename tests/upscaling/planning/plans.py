"""Shared by the tests of plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srgan_cli.config import UpscaleOptions
from srgan_cli.upscaling.plan import Plan
from srgan_cli.upscaling.planning import plan

KEY = "settings"


def planned(inputs: Sequence[Path | str], output: Path | str | None = None, *, scales: tuple[int, ...] = (4,),
            key: str = KEY, stdin: bytes | None = None, **options: Any) -> Plan:  # fmt: skip
    out = None if output is None else Path(output)
    folder = str(output).endswith("/")
    options = {"inputs": tuple(map(Path, inputs)), "output": out, "output_is_folder": folder, **options}
    return plan(UpscaleOptions(**options), scales, key, stdin=stdin)


def names(made: Plan) -> list[tuple[str, str]]:
    return [(str(job.source), str(job.target)) for job in made.jobs]
