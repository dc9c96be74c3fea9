"""Detail drawn from noise: independent of tiles, bands and parts; different for another seed."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srgan_cli.comparison.scenes import Area, Enlarged
from srgan_cli.config import EngineOptions
from srgan_cli.engine.rows import ArrayRows
from srgan_cli.engine.tiles import Span
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError
from srgan_cli.networks.generators import fold
from srgan_cli.networks.weights import Model
from tests.engine.engines import WHOLE, fp32, largest_difference, noise
from tests.faults import model_of, tiny_model
from tests.networks.test_noise import noisy


@functools.cache
def model() -> Model:
    return model_of(fold(noisy()))


@settings(max_examples=20, deadline=None)
@given(
    height=st.integers(1, 70), width=st.integers(1, 70), tile_px=st.integers(16, 40), seed=st.integers(0, 2**63 - 1),
    channels=st.integers(1, 4), first_row=st.integers(0, 30), twice=st.booleans(),
)  # fmt: skip
def test_tiles_bands_and_resumed_runs_agree(
    height: int, width: int, tile_px: int, seed: int, channels: int, first_row: int, twice: bool
) -> None:
    low = noise(height, width, channels)
    models = [model()] * (1 + twice)
    whole = Upscaler(models, fp32(WHOLE)).varied(seed).upscale(low)
    tiled = Upscaler(models, fp32(tile_px)).varied(seed)
    assert largest_difference(tiled.upscale(low), whole) <= 1
    resumed = whole.copy()
    first_row = min(first_row, height - 1)
    resumed[first_row * tiled.scale :] = 0
    tiled.upscale_rows(ArrayRows(low), resumed, first_row=first_row)
    assert largest_difference(resumed, whole) <= 1


def test_pieces_and_parts_agree_with_the_whole() -> None:
    low = noise(60, 50)
    upscaler = Upscaler(model(), fp32(WHOLE)).varied(9)
    whole = upscaler.upscale(low)
    halo = upscaler.chain.halo_px
    piece = np.zeros((20 * 2, 100, 3), np.uint8)
    upscaler.upscale_strip(low[20 - halo : 40 + halo], Span(20 - halo, 20, 40, 40 + halo), piece, 16)
    assert largest_difference(piece, whole[40:80]) <= 1
    view = Enlarged("", "", low, upscaler)
    assert largest_difference(view.crop(Area(50, 42, 30, 36)), whole[42:78, 50:80]) <= 1


def test_seeds_and_strengths() -> None:
    low = noise(30, 30)
    upscaler = Upscaler(model(), fp32())

    def made(*args: Any) -> np.ndarray[Any, Any]:
        return upscaler.varied(*args).upscale(low).astype(int)

    off = made(0, 0.0)
    np.testing.assert_array_equal(upscaler.upscale(low), made(0, 1.0))
    assert (made(1) != made(2)).mean() > 0.2
    assert 0 < np.abs(made(1, 0.25) - off).mean() < np.abs(made(1, 1.0) - off).mean()
    with torch.inference_mode():
        low_tensor = torch.from_numpy(low).permute(2, 0, 1)[None] / 255
        plain = fold(noisy())(low_tensor)[0].permute(1, 2, 0).clamp(0, 1).mul(255).round().numpy()
    assert np.abs(off - plain).max() <= 1


def test_networks_without_noise_are_as_they_were() -> None:
    upscaler = Upscaler(tiny_model("compact", 2), fp32())
    assert upscaler.varied(5) is upscaler
    assert upscaler.noise is None
    assert not upscaler.has_noise


def test_a_device_that_cannot_says_so() -> None:
    upscaler = Upscaler(model(), EngineOptions("openvino", "fp32", 32))
    low = noise(20, 20)
    off = Upscaler(model(), fp32()).varied(0, 0.0).upscale(low)
    assert largest_difference(upscaler.upscale(low), off) <= 1
    assert largest_difference(upscaler.varied(0, 0.0).upscale(low), off) <= 1
    with pytest.raises(DeviceError, match=r"draws its detail from noise, and openvino.* computes it without"):
        upscaler.varied(1)
