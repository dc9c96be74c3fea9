"""Networks that make a small picture large, by name: built from settings, and rewritten for inference.

The tensor and inference contract stands in `layers`.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import TypeAlias

from srgan_cli.errors import WeightsError
from srgan_cli.networks.compact import Compact, CompactConfig
from srgan_cli.networks.layers import Generator, bilinear_subpixels, check, halo_px, not_finite
from srgan_cli.networks.srresnet import SRResNet, SRResNetConfig
from srgan_cli.networks.srvgg import SRVGG, SRVGGConfig

__all__ = [
    "SRVGG",
    "Compact",
    "CompactConfig",
    "Config",
    "Generator",
    "SRResNet",
    "SRResNetConfig",
    "SRVGGConfig",
    "bilinear_subpixels",
    "build",
    "fold",
    "halo_px",
    "not_finite",
    "settings_of",
]

Config: TypeAlias = SRResNetConfig | CompactConfig | SRVGGConfig


_ARCHITECTURES: Mapping[str, tuple[type[Config], Callable[..., Generator]]] = {
    "srresnet": (SRResNetConfig, SRResNet),
    "compact": (CompactConfig, Compact),
    "srvgg": (SRVGGConfig, SRVGG),
}


def build(architecture: str, config: Mapping[str, object]) -> Generator:
    """A generator with fresh weights, of an architecture given by name and settings given as plain values.

    Raises `WeightsError` on an unknown name or setting, or a value out of range.
    """
    known = _ARCHITECTURES.get(architecture)
    if known is None:
        raise WeightsError(f"unknown architecture {architecture!r}; choose from {', '.join(_ARCHITECTURES)}")
    config_type, make = known
    names = {field.name for field in dataclasses.fields(config_type)}
    strange = sorted(str(name) for name in set(config) - names)
    check(not strange, f"{architecture} has no setting {', '.join(map(repr, strange))}")
    return make(config_type(**config))  # type: ignore[arg-type]  # the dataclass checks its values


def settings_of(config: Config) -> dict[str, object]:
    """As plain values, for `build`. What networks had not from the beginning is left out where it is off, so that their
    files stay as they are."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name != "noise" or value}


def fold(generator: Generator) -> Generator:
    """A copy for inference, in eval mode and without gradients, that computes the same with less work.

    What there is to simplify is for each architecture to say (`Generator.simplify`).
    """
    folded = copy.deepcopy(generator).requires_grad_(False)
    folded.simplify()
    return folded.eval().requires_grad_(False)
