"""Traces of an earlier JPEG, found in pixels that were saved in another format."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.imaging.history import jpeg_quality_of
from tests.imaging.test_signs import Array, decoded, jpeg, luma, noisy, photo


def textured(seed: int = 0, sigma: float = 12.0) -> Array:
    """A picture with coefficients at all frequencies, (H, W, 3)."""
    return noisy(photo(seed=seed + 3), sigma, seed)


@pytest.mark.parametrize("quality", [92, 90, 85, 75, 60, 50, 30, 15])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_the_quality_is_found_wherever_the_picture_was_cropped(quality: int, subsampling: str) -> None:
    picture = textured(sigma=12.0 if quality > 80 else 40.0)  # coarse steps leave nothing of fine texture
    pixels = decoded(jpeg(picture, quality, subsampling=subsampling))[5:, 3:]
    found = jpeg_quality_of(luma(pixels))
    assert found is not None
    assert abs(found - quality) <= 3


@pytest.mark.parametrize("seed", range(4))
def test_what_was_never_a_jpeg_has_no_past(seed: int) -> None:
    assert jpeg_quality_of(luma(photo(seed=seed))) is None
    assert jpeg_quality_of(luma(textured(seed))) is None


def test_resizing_ends_it() -> None:
    pixels = decoded(jpeg(textured(), 60))
    smaller = Pillow.fromarray(pixels).resize((240, 190), Pillow.Resampling.BICUBIC)
    assert jpeg_quality_of(luma(np.asarray(smaller))) is None


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_tiny_and_drawn_pictures(level: int) -> None:
    assert jpeg_quality_of(np.full((64, 64), level, np.float32)) is None
    assert jpeg_quality_of(np.full((20, 300), level, np.float32)) is None
    drawn = np.kron(np.arange(48).reshape(6, 8) % 2, np.ones((16, 16))).astype(np.float32) * 255
    assert jpeg_quality_of(drawn) is None
