"""How settings check their own values."""

from __future__ import annotations

import math
from collections.abc import Mapping

from srgan_cli.errors import SettingsError, in_python


def check(condition: bool, message: str) -> None:
    """Raise `SettingsError` with `message` unless `condition` holds."""
    if not condition:
        raise SettingsError(message)


def check_option(condition: bool, message: str) -> None:
    """Raise `SettingsError` unless `condition` holds. `message` spells options as on the command line (`--scale`)."""
    if not condition:
        raise option_error(message)


def option_error(message: str) -> SettingsError:
    """The error with options spelled as in Python; the command line shows `message` unchanged."""
    return SettingsError(in_python(message), terminal=message)


def check_numbers(section: str, values: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    for name, (least, most) in bounds.items():
        value = getattr(values, name)
        check(
            math.isfinite(value) and least <= value <= most,
            f"{section}.{name} must be between {least:g} and {most:g}, not {value!r}",
        )


def check_choice(section: str, values: object, **choices: tuple[str, ...]) -> None:
    for name, known in choices.items():
        value = getattr(values, name)
        check(value in known, f"{section}.{name} must be one of {', '.join(known)}, not {value!r}")
