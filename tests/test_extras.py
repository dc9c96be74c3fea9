"""Messages about missing packages never lead to another project of the same name."""

from __future__ import annotations

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

import pytest

import srgan_cli
from srgan_cli.extras import how_to_install


class Installed:
    requires: tuple[str, ...] = (
        'pillow-heif>=0.18; extra == "heic"',
        "spandrel>=0.4 ; extra == 'spandrel'",
        "torch>=2",
    )

    def __init__(self, origin: object) -> None:
        self._origin = origin

    def read_text(self, _name: str) -> str | None:
        return None if self._origin is None else json.dumps(self._origin)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ({"url": "file:///home/a%20b/srgan", "dir_info": {"editable": True}}, "pip install '/home/a b/srgan[heic]'"),
        (
            {"url": "https://example.org/srgan.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "pip install 'srgan-cli[heic] @ git+https://example.org/srgan.git@abc'",
        ),
        (
            {"url": "file:///tmp/srgan.whl", "archive_info": {}},
            "pip install 'srgan-cli[heic] @ file:///tmp/srgan.whl'",
        ),
        (None, "pip install 'pillow-heif>=0.18'"),
    ],
)
def test_the_command_fits_the_installation(monkeypatch: pytest.MonkeyPatch, origin: object, expected: str) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _name: Installed(origin))
    assert how_to_install("heic") == expected


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert how_to_install("onnx") == "pip install '.[onnx]' in the checkout"


def test_no_message_and_no_page_names_the_project_to_the_registry() -> None:
    root = Path(__file__).parents[1]
    pages = [*root.glob("*.md"), *(root / "docs").glob("*.md"), *(root / "examples").rglob("*.py")]
    for path in (*Path(srgan_cli.__file__).parent.rglob("*.py"), *pages):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.search(r"pip install[^\n]*srgan-cli(?!.*@)", line) or path.name == "extras.py", path
