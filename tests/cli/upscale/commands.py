"""Shared by the tests of `srgan upscale`."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

pytestmark = pytest.mark.timeout(120)


Run = Callable[..., tuple[int, bytes, str]]


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def size_of(file: Path | bytes) -> tuple[int, int]:
    with Pillow.open(io.BytesIO(file) if isinstance(file, bytes) else file) as result:
        result.load()
        return result.size


def events(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]
