"""The one file that a run goes on from: a named list of state that both saves and loads."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from srgan_cli.errors import WeightsError

NAME = "checkpoint"
FORMAT = 1


class Stateful(Protocol):
    """A network, an optimiser, a scaler: whatever can tell its state and take it back."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


def capture(parts: Mapping[str, Stateful], values: Mapping[str, object]) -> dict[str, Any]:
    """The states of all parts by name, and plain values beside them."""
    return {
        "format": FORMAT,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "values": dict(values),
    }


def restore(state: Mapping[str, Any], parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Give each part its state back; returns the plain values. Names must match: nothing is skipped in silence."""
    names = set(state["parts"])
    if names != set(parts):
        raise WeightsError(
            f"the checkpoint holds {', '.join(sorted(names))}, and this run wants {', '.join(sorted(parts))}"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(state["parts"][name])
        except (RuntimeError, ValueError, KeyError) as err:
            raise WeightsError(f"the checkpoint's {name} does not fit this run: {str(err).splitlines()[0]}") from err
    return dict(state["values"])


def save(path: Path, state: Mapping[str, Any]) -> None:
    """All at once or not at all: the last checkpoint stays until the new one is on disk.

    Raises `OSError` (a full disk, say); the file that was there is then untouched.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as err:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(err, OSError):
            raise
        raise OSError(str(err).splitlines()[0]) from err  # torch's zip writer wraps a full disk


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values only: a checkpoint from a stranger cannot run code. Raises `WeightsError`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:
        raise WeightsError(f"{path} is damaged, or no checkpoint: {str(err).splitlines()[0]}") from err
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by this version of srgan")
    return state


def share(path: Path, other: Path) -> None:
    """`other` becomes another name of the file that `path` now names, or a copy where a disk knows no links.

    `save` puts a new file in the place of `path`, so `other` keeps this one.
    """
    temporary = other.with_name(f".{other.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copyfile(path, temporary)
    temporary.replace(other)
