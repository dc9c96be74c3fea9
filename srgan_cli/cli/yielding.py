"""The user's own defaults that give way to what the command line asks for.

With `format = "webp"` in the config file, `-o large.png` still writes PNG; with `quality = 80`, so does
`--format png`. With `ensemble = true`, `--variants 3` makes three. Given on the command line, both together are an
error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from srgan_cli.config import AUTO_MODEL, DEFAULT_MODEL
from srgan_cli.imaging.formats import FORMATS, container_of_suffix, format_of_suffix
from srgan_cli.networks import registry


def yielding(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> set[str]:
    """The parameters whose `defaults` do not apply beside the `given` ones (parameter name -> text)."""
    named = _format_of_a_name(given)
    asked = str(given.get("format_", "")).lower()
    out = set() if named is None else {"format_"}
    out |= {"name_pattern"} if _names_a_file(given.get("output")) else set()
    known = FORMATS.get((asked if asked in FORMATS else format_of_suffix(asked)) or named or "")
    if known is not None:
        out |= {"quality"} if known.default_quality is None else set()
        out |= set() if known.lossless else {"lossless"}
        out |= set() if 16 in known.depths else {"bit_depth"}
        out |= set() if known is FORMATS["png"] else {"png_level"}
        out |= set() if known is FORMATS["tiff"] else {"tiff_layout"}
    out |= {"quality"} if given.get("lossless") else set()
    out |= {"lossless"} if "quality" in given else set()
    out |= _without_effect(given, has_grain="grain" in given or "grain" in defaults)
    return out | (set() if _has_detail(given.get("model", AUTO_MODEL)) else {"detail"})


def _without_effect(given: Mapping[str, Any], *, has_grain: bool) -> set[str]:
    """An ensemble excludes different noise; and some models have none."""
    out = {"variation"} if given.get("ensemble") or _is_noiseless(given.get("model")) else set()
    if "variation" in out and not has_grain:
        out.add("variants")
    varied = not re.fullmatch("0*[.,]?0*", str(given.get("variation", 0)))
    several = str(given.get("variants", 1)) != "1" and not has_grain
    return out | ({"ensemble"} if varied or several else set())


def _format_of_a_name(given: Mapping[str, Any]) -> str | None:
    """The format of the extension in -o or --name."""
    names = (str(given.get(parameter) or "") for parameter in ("output", "name_pattern"))
    return next((found for name in names if (found := format_of_suffix(PurePath(name).suffix))), None)


def _names_a_file(output: object) -> bool:
    """Whether this -o is one result's name, or stdout, rather than a folder."""
    suffix = PurePath(str(output or "")).suffix
    return output == "-" or (format_of_suffix(suffix) or container_of_suffix(suffix)) is not None


def _has_detail(model: object) -> bool:
    """Whether `--detail` can go with this --model."""
    return model == AUTO_MODEL or re.fullmatch(rf"{DEFAULT_MODEL}(-x\d)?", str(model)) is not None


def _is_noiseless(model: object) -> bool:
    """Whether this is one of srgan's own models, and draws nothing from noise."""
    if model is None:
        return False
    name = str(model).partition("@")[0]
    noises = [entry.has_noise for entry in registry.entries() if name in (entry.name, entry.family)]
    return model == AUTO_MODEL or (bool(noises) and not any(noises))
