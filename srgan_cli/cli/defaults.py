"""The user's own defaults: in a config file, or as `SRGAN_*` environment variables.

Precedence, highest first: command line, environment, config file, built-in defaults.

    # config.toml
    device = "cpu"          # for every command that has this option

    [upscale]
    quality = 90            # --quality; long names without the dashes
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from srgan_cli.errors import SettingsError, shown
from srgan_cli.files import config_folder

# Options that may be set outside a section, or in the environment without a command's name: they mean the same in all
# commands.
SHARED = ("device", "precision", "tile", "model", "quiet")
# Options that cannot have a default, since they only make sense for a single run.
NEVER = ("help", "dry-run", "files-from", "output", "print-config", "failed", "csv", "save")


def config_file() -> Path | None:
    """The config file, whether it exists or not; None if it is disabled (`SRGAN_CONFIG` is empty), or there is no home
    directory."""
    named = os.environ.get("SRGAN_CONFIG")
    if named is not None:
        return Path(named) if named else None
    folder = config_folder()
    return None if folder is None else folder / "config.toml"


def of(command: str, settable: Mapping[str, str]) -> dict[str, Any]:
    """The defaults of a command, by parameter name; `settable` maps option names to parameter names.

    Raises `SettingsError` for a file that is not TOML and for unknown sections and settings.
    """
    return {settable[key]: value for key, (value, _) in found(command, settable).items()}


def origin(command: str, settable: Mapping[str, str], parameter: str) -> str:
    """The source of a parameter's default, for messages."""
    key = next(key for key, name in settable.items() if name == parameter)
    return f"from {found(command, settable)[key][1]}"


def found(command: str, settable: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Each default set by the user, and its source: option -> (value, `SRGAN_DEVICE`)."""
    known = [key for key in settable if key not in NEVER]
    return {**_from_file(command, known), **_from_environment(command, known)}


def _from_environment(command: str, known: list[str]) -> dict[str, tuple[Any, str]]:
    values = {}
    for key in known:
        name = key.replace("-", "_").upper()
        names = [f"SRGAN_{command.upper()}_{name}", *([f"SRGAN_{name}"] if key in SHARED else [])]
        given = next((name for name in names if os.environ.get(name)), None)
        if given is not None:
            values[key] = (os.environ[given], given)
    return values


def _from_file(command: str, known: list[str]) -> dict[str, tuple[Any, str]]:
    path = config_file()
    if path is None:
        return {}
    if not os.path.exists(path):  # noqa: PTH110 - nor can it be looked at, in a home of somebody else's
        if os.environ.get("SRGAN_CONFIG"):
            raise SettingsError(f"SRGAN_CONFIG names {shown(path)}, which does not exist")
        return {}
    from srgan_cli.training_presets import read_toml

    written = read_toml(path)
    shared = {_key(name): value for name, value in written.items() if not isinstance(value, dict)}
    _refuse_unknown(shared, list(SHARED), shown(path), "; give it in a section, such as [upscale]")
    _refuse_unknown_sections([name for name, value in written.items() if isinstance(value, dict)], shown(path))
    own = {_key(name): value for name, value in written.get(command, {}).items()}
    _refuse_unknown(own, known, f"[{command}] in {shown(path)}", "")
    values = {**{key: value for key, value in shared.items() if key in known}, **own}
    return {key: (value, shown(path)) for key, value in values.items()}


def _key(name: str) -> str:
    return name.replace("_", "-")


def _refuse_unknown(values: Mapping[str, Any], known: list[str], where: str, hint: str) -> None:
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]}?" if near else hint
            raise SettingsError(f"unknown setting {name!r} in {where}{meant}")


def _refuse_unknown_sections(names: list[str], where: str) -> None:
    from srgan_cli.cli import COMMANDS

    for name in names:
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, COMMANDS, 1)
            meant = f"did you mean [{near[0]}]?" if near else "sections are called like commands, such as [upscale]"
            raise SettingsError(f"unknown section [{shown(name)}] in {where}; {meant}")
