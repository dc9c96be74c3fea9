"""Generators by name: built from settings, and simplified for inference.

The tensor and inference contract is in `layers`.
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
    """A generator with new weights, by the name of its architecture and settings as plain values.

    Raises `WeightsError` for an unknown name or setting, or a value out of range.
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
    """Settings as plain values, for `build`. Settings added in later versions are left out if they are off, so that
    such files do not change."""
    return {name: value for name, value in dataclasses.asdict(config).items() if name != "noise" or value}


def fold(generator: Generator) -> Generator:
    """A copy for inference, in eval mode and without gradients, that computes the same with less work.

    Each architecture implements its own simplifications (`Generator.simplify`).
    """
    folded = copy.deepcopy(generator).requires_grad_(False)
    folded.simplify()
    return folded.eval().requires_grad_(False)
