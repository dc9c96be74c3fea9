"""The one file that a run goes on from: a named list of state that both saves and loads."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from srgan_cli.errors import WeightsError
from srgan_cli.files import publishing, publishing_path

NAME = "checkpoint"
GOOD = "checkpoint.good"  # the last one whose pictures were looked at and found well: where a run goes back to
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
        if name.endswith("_scaler") and not state["parts"][name]:
            continue  # it was trained in a precision without one
        try:
            part.load_state_dict(state["parts"][name])
        except (RuntimeError, ValueError, KeyError) as err:
            raise WeightsError(f"the checkpoint's {name} does not fit this run: {_reason(err)}") from err
    return dict(state["values"])


def _reason(err: Exception) -> str:
    """What torch says: its first line names the network, its second what is wrong."""
    return " ".join(line.strip() for line in str(err).splitlines()[:2])


def save(path: Path, state: Mapping[str, Any]) -> None:
    """All at once or not at all: the last checkpoint stays until the new one is on disk.

    Raises `OSError` (a full disk, say); the file that was there is then untouched.
    """
    try:
        with publishing(path) as file:
            torch.save(state, file)
    except RuntimeError as err:  # torch's zip writer wraps a full disk
        raise OSError(str(err).splitlines()[0]) from err


def load(path: Path) -> dict[str, Any]:
    """Tensors and plain values only: a checkpoint from a stranger cannot run code. Raises `WeightsError`."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # a damaged pickle raises whatever its bytes happen to ask for
        raise WeightsError(f"{path} is damaged, or no checkpoint ({str(err).splitlines()[0].split('. ')[0]})") from err
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by this version of srgan")
    return state


def keep(path: Path, other: Path) -> None:
    """A copy of a checkpoint that was just saved, all at once. No link: what damages the one must spare the other."""
    with publishing_path(other) as part:
        shutil.copyfile(path, part)
