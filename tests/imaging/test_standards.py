"""Luma: one formula for arrays of any type and for tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srgan_cli.imaging import standards
from srgan_cli.networks import layers


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_luma_is_the_weighted_mean_for_arrays_and_tensors(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(kind)
    red, green, blue = np.moveaxis(pixels.astype(np.float64), -1, 0)
    wanted = 0.299 * red + 0.587 * green + 0.114 * blue
    single, double = standards.luma(pixels, np.float32), standards.luma(pixels, np.float64)
    assert (str(single.dtype), str(double.dtype)) == ("float32", "float64")
    np.testing.assert_allclose(single, wanted, rtol=1e-6)
    np.testing.assert_allclose(double, wanted, rtol=1e-12)
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]  # -> (1, 3, H, W)
    np.testing.assert_allclose(layers.luma(tensor)[0, 0], wanted, rtol=1e-6)
