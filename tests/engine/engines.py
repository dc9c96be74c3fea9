"""Shared by the tests of the engine: networks, pictures and ways to run them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from srgan_cli.config import EngineOptions
from srgan_cli.engine import runners
from srgan_cli.engine.backends.pytorch import PyTorch
from srgan_cli.networks.weights import Model
from tests.faults import (
    tiny_model,
)

Pixels = np.ndarray[Any, Any]


WHOLE = 16384


# Every architecture and scale, and chains of two; tiny, but with all kinds of layers.
CHAINS: dict[str, tuple[Model, ...]] = {
    **{f"compact x{s}": (tiny_model("compact", s),) for s in (2, 3, 4, 8)},
    **{f"srvgg x{s}": (tiny_model("srvgg", s),) for s in (2, 3, 4)},
    **{f"srresnet x{s}": (tiny_model("srresnet", s, features=4),) for s in (2, 3, 4, 8)},
    "srresnet with batch norm": (tiny_model("srresnet", 4, features=4, batch_norm=True),),
    "x2 then x4": (tiny_model("compact", 2), tiny_model("srresnet", 4, features=4)),
    "x4 then x4": (tiny_model("compact", 4, features=4), tiny_model("compact", 4, features=4, seed=1)),
}


def fp32(tile_px: int | None = WHOLE, *, color_lock: bool | None = None) -> EngineOptions:
    return EngineOptions(device="cpu", precision="fp32", tile_px=tile_px, color_lock=color_lock)


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> Pixels:
    """Every value there is; alpha, where there is one, with fully transparent, opaque and soft parts."""
    random = np.random.default_rng([seed, height, width, channels])
    picture: Pixels = random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)
    if channels in (2, 4):
        kind = random.integers(0, 3, (-(-height // 5), -(-width // 5))).repeat(5, 0).repeat(5, 1)[:height, :width]
        picture[kind == 0, -1] = 0
        picture[kind == 1, -1] = np.iinfo(dtype).max
    return picture


def largest_difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max(initial=0))


def doubled(low: Pixels, scale: int = 2) -> Pixels:
    return low.repeat(scale, 0).repeat(scale, 1)


@contextmanager
def running_on(kind: str) -> Iterator[None]:
    """The runner of a GPU, which needs none to be right; that of another device beside the host (`ahead`); or the one
    that the device asks for."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "ahead":
            patch.setattr(PyTorch, "leaves_host_free", True)
        if kind == "batches":
            patch.setattr(runners, "runner", runners.DeviceRunner)
        yield


def cuda(precision: Any = "fp32", tile_px: int | None = 64, *, color_lock: bool | None = None) -> EngineOptions:
    return EngineOptions("cuda", precision, tile_px, color_lock)
