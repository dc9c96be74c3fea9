"""The file that a run resumes from: a named list of state that is used for both saving and loading."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from srgan_cli.errors import WeightsError
from srgan_cli.files import publishing, publishing_path
from srgan_cli.networks.pickles import read_tensors
from srgan_cli.training import folder
from srgan_cli.training_config import GeneratorSettings, Phase, TrainConfig

FORMAT = 1


class Stateful(Protocol):
    """A network, an optimiser, a scaler: anything with a state dictionary."""

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state_dict: Any) -> Any: ...


def capture(parts: Mapping[str, Stateful], values: Mapping[str, object]) -> dict[str, Any]:
    """The states of all parts by name, with plain values."""
    return {
        "format": FORMAT,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "values": dict(values),
    }


def restore(state: Mapping[str, Any], parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Restore each part's state; returns the plain values. Names must match: nothing is skipped silently."""
    names = set(state["parts"])
    if names != set(parts):
        raise WeightsError(
            f"the checkpoint holds {', '.join(sorted(names))}, and this run expects {', '.join(sorted(parts))}"
        )
    for name, part in parts.items():
        if name.endswith("_scaler") and not state["parts"][name]:
            continue  # it was trained in a precision that needs no scaler
        try:
            if isinstance(part, torch.optim.Optimizer):
                _check_settings(part, state["parts"][name])
            part.load_state_dict(state["parts"][name])
            if isinstance(part, torch.optim.Optimizer):
                _check_moments(part)
        except Exception as err:  # a damaged state can raise any exception
            raise WeightsError(f"the checkpoint's {name} does not fit this run: {_reason(err)}") from err
    return dict(state["values"])


def _check_settings(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """An optimiser accepts any state, and would fail at the next step; so only settings of the same types are
    allowed."""
    for now, before in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for key, value in now.items():
            if key != "params" and not isinstance(before[key], _alike(value)):
                raise ValueError(f"{key} is {type(before[key]).__name__}")


def _alike(value: object) -> tuple[type, ...]:
    return (int, float) if isinstance(value, int | float) else (type(value),)


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    """The same check for its moments: tensors of the weights' own shapes, or single numbers."""
    for parameter, state in optimizer.state.items():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"a moment of {tuple(value.shape)} for weights of {tuple(parameter.shape)}")


def _reason(err: Exception) -> str:
    """torch's message: its first line names the network, its second says what is wrong."""
    return " ".join(line.strip() for line in str(err).splitlines()[:2])


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Save atomically: the last checkpoint stays until the new one is on disk.

    Raises `OSError` (such as a full disk); the existing file is then unchanged.
    """
    try:
        with publishing(path, own=True) as file:
            torch.save(state, file)
    except RuntimeError as err:  # torch's zip writer wraps a full disk's error
        raise OSError(str(err).splitlines()[0]) from err


def load(path: Path) -> dict[str, Any]:
    """Load tensors and plain values only: an untrusted checkpoint cannot run code. Raises `WeightsError`."""
    state = read_tensors(path, str(path))
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WeightsError(f"{path} was not written by this version of srgan")
    parts, values = state.get("parts"), state.get("values")
    if not isinstance(parts, dict) or not isinstance(values, dict) or not all(map(_is_text, (*parts, *values))):
        raise WeightsError(f"{path} is damaged: its parts or its values are missing")
    return state


def _is_text(name: object) -> bool:
    return isinstance(name, str)


def phase_of(state: Mapping[str, Any], config: TrainConfig) -> Phase:
    """The phase that the run was in, which decides which optimiser restores its state. Raises `WeightsError`."""
    for phase in config.phases:
        if state["values"].get("phase") == phase:
            return phase
    raise WeightsError("the checkpoint is damaged: its values are not valid (a phase that this run does not have)")


def keep(path: Path, other: Path) -> None:
    """Copy a checkpoint that was just saved, atomically. Not a link, so that damage to one does not affect the
    other."""
    with publishing_path(other, own=True) as part:
        shutil.copyfile(path, part)


def earlier_run(where: Path, config: TrainConfig) -> tuple[GeneratorSettings, dict[str, Any]] | None:
    """The run to resume, or None: the generator's sizes, which may have come from a file, and the checkpoint.

    Raises `SettingsError` if it has other settings, naming them, and `WeightsError` if it is damaged.
    """
    before, path = folder.earlier_settings(where, config), folder.kept(where)
    if before is None or path is None:
        return None
    try:
        return before.generator, load(path)
    except WeightsError as err:
        if not (where / folder.GOOD_NAME).exists():
            raise
        hint = f"{where / folder.GOOD_NAME} is an earlier one: give it that name to resume from it"
        raise WeightsError(f"{err}; {hint}") from err
