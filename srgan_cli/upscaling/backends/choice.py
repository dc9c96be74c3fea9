"""Which backend runs some networks, and which devices there are."""

from __future__ import annotations

from collections.abc import Sequence

from srgan_cli.config import EngineOptions
from srgan_cli.networks.weights import Model
from srgan_cli.upscaling.backends import pytorch
from srgan_cli.upscaling.backends.protocol import Backend, Device


def choose(options: EngineOptions, models: Sequence[Model]) -> Backend:
    """Resolve `auto` device and precision for networks that run one after the other.

    Raises `DeviceError` when a device is asked for that is not there.
    """
    half_ok, bf16_ok = all(m.supports_half for m in models), all(m.supports_bf16 for m in models)
    return pytorch.choose(options, half_ok=half_ok, bf16_ok=bf16_ok)


def absences() -> tuple[str, ...]:
    """Why there are not more devices, a sentence for each kind."""
    return pytorch.absences()


def devices() -> tuple[Device, ...]:
    """All devices that there are, in the order in which `auto` takes them."""
    return pytorch.devices()
