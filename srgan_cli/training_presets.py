"""Presets of training runs; reading settings from plain values and writing them as TOML.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from srgan_cli import stored
from srgan_cli.checking import check
from srgan_cli.errors import SettingsError
from srgan_cli.training_config import TrainConfig

_MAX_TOML_BYTES = 1 << 20

PRESETS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "srgan": (
        "best quality: compact 64x16, L1 then patch discriminator and VGG19",
        {},
    ),
    "compact": (
        "for CPUs: compact 64x8, fidelity only, useful results in half an hour",
        {"phase": "fidelity", "steps": 10_000, "generator": {"blocks": 8}},
    ),
    "photo": (
        "robust to real, compressed, noisy pictures: srgan with the photo degradation",
        {"degradation": {"kind": "photo"}},
    ),
    "adapt": (
        "for your own worn pictures without originals (--unpaired-lr-dir): starts from photo, first learns the wear",
        {
            "phase": "adversarial",
            "init": "photo",
            "data": {"min_std": 0.0},
            "adversarial": {
                "batch": 8,
                "pixel_weight": 4.0,
                "adversarial_weight": 0.02,
                "perceptual_crops": 4,
                "learning_rate": 3e-4,
                "warmup_steps": 20,
            },
        },
    ),
    "paper": (
        "Ledig et al. 2017 as published: SRResNet with batch norm, MSE, VGG54, 1.2 million steps",
        {
            "steps": 1_200_000,
            "fidelity_fraction": 1_000_000 / 1_200_000,
            "generator": {"architecture": "srresnet", "batch_norm": True},
            "data": {"levels": (1.0,), "augment": False},
            "fidelity": {
                "loss": "mse",
                "frequency_weight": 0.0,
                "crop_px": 96,
                "learning_rate": 1e-4,
                "schedule": "constant",
                "warmup_steps": 0,
                "beta2": 0.999,
                "clip_norm": 0.0,
                "ema": 0.0,
                "optimizer": "adamw",
            },
            "adversarial": {
                "objective": "nonsaturating",
                "pixel_weight": 0.0,
                "perceptual_weight": 1.0,
                "adversarial_weight": 1e-3,
                "consistency_weight": 0.0,
                "grid_weight": 0.0,
                "spectrum_weight": 0.0,
                "learning_rate": 1e-4,
                "discriminator_learning_rate": 1e-4,
                "ramp_fraction": 0.0,
                "crop_px": 96,
                "schedule": "halfway",
                "beta2": 0.999,
                "clip_norm": 0.0,
                "ema": 0.0,
            },
            "perceptual": {
                "layers": {"conv5_4": 1.0},
                "activation": "after",
                "distance": "mse",
                "scaling": "paper",
            },
            "discriminator": {"kind": "vgg"},
        },
    ),
}  # fmt: skip

# As strong as Real-ESRGAN's (X. Wang et al. 2021, arXiv:2107.10833; options/train_realesrgan_x4plus.yml there), for
# `photo` with a teacher. When originals are the target, degradation stronger than in real pictures makes a network too
# cautious. A teacher's result is a function of the low picture, however damaged, so it can be learned, and the student
# has to imitate it for all inputs.
_TAUGHT_PHOTO: Mapping[str, Any] = {
    "degradation": {
        "blur_px": (0.2, 3.0),
        "last_blur": 0.5,
        "ringing_fraction": 0.1,
        "final_ringing_fraction": 0.8,
        "resize": (0.15, 1.5),
        "noise": (1.0, 30.0),
        "poisson": (0.05, 3.0),
        "jpeg_quality": (30.0, 95.0),
    },
}


def preset(name: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A preset with some settings changed; `changes` are nested as in the TOML file.

    Raises `SettingsError` for an unknown preset or setting, or a value of the wrong type or out of range.
    """
    known = PRESETS.get(name)
    check(known is not None, f"unknown preset {name!r}; choose from {', '.join(PRESETS)}")
    assert known is not None
    base, changes = {**known[1], "preset": name}, changes or {}
    if _is_taught_photo(merged(base, changes)):
        base = merged(base, _TAUGHT_PHOTO)
    return from_mapping(merged(base, changes))


def _is_taught_photo(values: Mapping[str, Any]) -> bool:
    teacher, degradation = values.get("teacher"), values.get("degradation")
    return (
        isinstance(teacher, Mapping)
        and bool(teacher.get("model"))
        and isinstance(degradation, Mapping)
        and degradation.get("kind") == "photo"
    )


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` updated with `changes`, section by section. `perceptual.layers` is replaced as a whole."""
    result = dict(base)
    for key, value in changes.items():
        under = result.get(key)
        deeper = isinstance(value, Mapping) and isinstance(under, Mapping) and key != "layers"
        result[key] = merged(under, value) if deeper else value  # type: ignore[arg-type]
    return result


def from_mapping(values: Mapping[str, Any]) -> TrainConfig:
    """Settings from nested plain values, as in TOML or JSON. Raises `SettingsError`."""
    return cast(TrainConfig, _section(TrainConfig, values, ""))


def _section(kind: type[Any], values: Mapping[str, Any], path: str) -> Any:
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    strange = [f"{path}{name}{_nearest(name, path, fields)}" for name in values if name not in fields]
    check(not strange, f"unknown setting {', '.join(strange)}; `srgan train --print-config` shows all of them")
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in values.items()})


def _nearest(name: str, path: str, fields: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(fields), n=1)
    return f" (did you mean {path}{near[0]}?)" if near else ""


def _value(hint: Any, value: Any, path: str) -> Any:
    """`value` converted to the field's type: lists become tuples, and integers become floats where needed."""
    if dataclasses.is_dataclass(hint):
        check(isinstance(value, Mapping), f"{path} is a section, not a value")
        return _section(hint, value, f"{path}.")  # type: ignore[arg-type]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        check(isinstance(value, list | tuple), f"{path} must be a list, not {value!r}")
        return tuple(_value(arguments[0], item, path) for item in value)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        check(isinstance(value, Mapping), f"{path} must be a table, not {value!r}")
        return {str(key): _value(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if origin is Literal:
        return value  # the section's own check reports it
    if type(None) in arguments:
        rest = next(a for a in arguments if a is not type(None))
        return None if value is None or value == "" else _value(rest, value, path)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    check(fits, f"{path} must be {names.get(hint, hint)}, not {value!r}")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as nested plain values. Raises `SettingsError` when it cannot be read or is not TOML."""
    try:
        return stored.toml_of(stored.read_bytes(path, _MAX_TOML_BYTES, follow=True))
    except (OSError, ValueError) as err:
        reason = err.strerror or str(err) if isinstance(err, OSError) else str(err)
        if isinstance(err, UnicodeDecodeError):
            reason = "it is not text in UTF-8"
        raise SettingsError(f"{path} cannot be read as TOML: {reason}") from err


def parse_value(text: str) -> Any:
    """A value in TOML syntax. Anything else is taken as text, so that text needs no quotes."""
    try:
        return stored.toml_of(f"value = {text}")["value"]
    except (ValueError, KeyError):
        return text.strip()


def to_toml(config: TrainConfig) -> str:
    """All settings as TOML, which `read_toml` and `from_mapping` turn into the same settings.

    TOML has no null, so settings that are None are written as comments.
    """
    plain = dataclasses.asdict(config)
    sections = {key: value for key, value in plain.items() if isinstance(value, dict)}
    lines = [_setting(key, value) for key, value in plain.items() if key not in sections]
    for name, section in sections.items():
        lines += ["", f"[{name}]", *(_setting(key, value) for key, value in section.items())]
    return "\n".join(lines) + "\n"


def _setting(key: str, value: object) -> str:
    return f"# {key} is not set" if value is None else f"{key} = {_toml(value)}"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(str(key))} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # TOML writes text, numbers and booleans as JSON does, except for this character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """`30m`, `1h30m`, `90s`, `2.5h` -> seconds. A number without a unit is refused as ambiguous."""
    compact = text.replace(" ", "").lower().replace("min", "m")
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", compact) is None:
        raise SettingsError(f"{text!r} is not a length of time; write 90s, 30m, 2h or 1h30m")
    return sum(float(number) * _UNITS_S[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", compact))
