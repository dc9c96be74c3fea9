"""Shared by the tests of whole runs: a recording observer, and a run of five pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.plan import Job, Skip
from srgan_cli.upscaling.record_storage import FILE_NAME
from srgan_cli.upscaling.session import Session, prepare
from tests.upscaling.pictures import tree

pytestmark = pytest.mark.timeout(60)  # what hangs here is a defect


class Recorder:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def started(self, job: Job) -> None:
        self.events.append(("started", job.source.name))

    def advanced(self, job: Job, network_pixels: int) -> None:
        self.events.append(("advanced", network_pixels))

    def resumed(self, job: Job, network_pixels: int) -> None:
        self.events.append(("resumed", network_pixels))

    def computed(self, job: Job, network_pixels: int) -> None:
        """Between two bands; how often is not specified."""

    def done(self, job: Job, seconds: float, notes: tuple[str, ...]) -> None:
        self.events.append(("done", job.source.name))

    def failed(self, failure: Failure) -> None:
        self.events.append(("failed", failure.source.name))

    def skipped(self, skip: Skip) -> None:
        self.events.append(("skipped", skip.source.name))

    def note(self, sentence: str) -> None:
        self.events.append(("note", sentence))

    def detail(self, sentence: str) -> None:
        self.events.append(("detail", sentence))

    def of(self, kind: str) -> list[Any]:
        return [value for name, value in self.events if name == kind]


def session(source: Path, model: Path, **options: Any) -> Session:
    settings: dict[str, Any] = {
        "inputs": (source,),
        "output": source.parent / "out",
        "model": str(model),
        "engine": EngineOptions("cpu", "fp32", 32),
        **options,
    }
    return prepare(UpscaleOptions(**settings))


def results(folder: Path) -> set[str]:
    """The finished files; fails when anything else has been left there."""
    left = tree(folder) - {FILE_NAME}
    assert not [name for name in left if Path(name).name.startswith(".")], "something half-made was left"
    for name in left:
        with Pillow.open(folder / name) as result:
            result.load()
    return left


def pixels_of(path: Path) -> Any:
    with Pillow.open(path) as result:
        return np.asarray(result)
