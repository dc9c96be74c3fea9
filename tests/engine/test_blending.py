"""Overlapping tiles that are blended."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srgan_cli.engine.chain import BLEND_PX
from srgan_cli.engine.upscaler import Upscaler
from tests.engine.engines import doubled, fp32, largest_difference, noise
from tests.faults import (
    Nearest,
    OutOfMemoryAbove,
    model_of,
)


@settings(max_examples=16)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300), tile_px=st.integers(64, 128), channels=st.integers(1, 4),
    scale=st.sampled_from([2, 3]),
)  # fmt: skip
@example(height=65, width=129, tile_px=64, channels=3, scale=2)
@example(height=300, width=33, tile_px=64, channels=3, scale=3)
def test_blending_weights_sum_to_one(height: int, width: int, tile_px: int, channels: int, scale: int) -> None:
    low = noise(height, width, channels)
    if channels in (2, 4):
        low[..., -1] = 255  # alpha is enlarged smoothly, not repeated
    high = Upscaler(model_of(Nearest(scale, halo_px=None)), fp32(tile_px)).upscale(low)
    assert largest_difference(high, doubled(low, scale)) <= (1 if channels <= 2 else 0)


class _ByTile(Nearest):
    """Every tile another brightness, as networks with global statistics make them."""

    def subpixels(self, low: torch.Tensor) -> torch.Tensor:
        subpixels = super().subpixels(low)
        return torch.full_like(subpixels, 0.25 + 0.5 * (len(self.shapes) % 2))


def test_blending_leaves_no_step_between_tiles() -> None:
    high = Upscaler(model_of(_ByTile(halo_px=None)), fp32(64)).upscale(noise(200, 200)).astype(int)
    assert high.max() - high.min() > 100
    most = 128 / (BLEND_PX * 2) + 2  # a linear fade over the strip, with rounding
    assert np.abs(np.diff(high, axis=0)).max() <= most
    assert np.abs(np.diff(high, axis=1)).max() <= most


def test_blending_after_out_of_memory() -> None:
    network = OutOfMemoryAbove(160 * 160, halo_px=None)
    low = noise(400, 300)
    upscaler = Upscaler(model_of(network), fp32(256))
    assert np.array_equal(upscaler.upscale(low), doubled(low))
    assert upscaler.statistics.out_of_memory >= 1
