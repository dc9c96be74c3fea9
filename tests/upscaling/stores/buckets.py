"""Folders of pictures in a store, their contents after a run, and the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.sizes import Size
from srgan_cli.stores.paths import path_of
from srgan_cli.upscaling.session import Session, prepare
from tests.upscaling.pictures import picture

fsspec = pytest.importorskip("fsspec")


def fill(url: str, *names: str) -> dict[str, bytes]:
    """Pictures below a URL."""
    made = {}
    for number, name in enumerate(names):
        local = Path("made", name)
        picture(local, 20 + number, 16, seed=number)
        made[name] = local.read_bytes()
        fsspec.open(f"{url}/{name}", "wb").fs.pipe_file(f"{url}/{name}", made[name])
    return made


def there(url: str) -> dict[str, bytes]:
    """What is below a URL, but for the record."""
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    found = files.find(root)
    return {name[len(root) :].strip("/"): files.cat_file(name) for name in found if ".srgan-" not in name}


def records(url: str) -> list[str]:
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return [name for name in files.find(root) if ".srgan-manifest" in name]


def command(model: Path, *arguments: str) -> int:
    return main(
        ["upscale", *arguments, "--model", str(model), "--device", "cpu", "--precision", "fp32", "--scale", "2"]
    )


def session(model: Path, source: str, output: str, **options: Any) -> Session:
    settings: dict[str, Any] = {
        "inputs": (path_of(source),), "output": path_of(output), "model": str(model), "recursive": True,
        "engine": EngineOptions("cpu", "fp32", 32), "size": Size(scale=2), **options,
    }  # fmt: skip
    return prepare(UpscaleOptions(**settings))
