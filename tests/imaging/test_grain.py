"""Measured grain equals the synthetic grain, which depends only on a seed and a position."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srgan_cli.imaging.grain import BLOCK, Grain, film, left_fraction, measure
from srgan_cli.imaging.grain_field import GrainField

Array = np.ndarray[Any, Any]
SIDE = 320


def scene(channels: int = 3) -> Array:
    """A ramp with some hard edges, in [0, 255]; (SIDE, SIDE, channels)."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    ramp = 50 + columns * 0.35 + rows * 0.1 + 40.0 * ((rows // 80 + columns // 80) % 2)
    return np.repeat(ramp[:, :, None], channels, 2)


def grainy(std: float, kernel_px: float = 0.0, *, shared: bool = False, channels: int = 3) -> Array:
    shape = (SIDE, SIDE, 1 if shared else channels)
    noise = np.random.default_rng(4).normal(0, 1, shape)
    if kernel_px:
        noise = cv2.GaussianBlur(noise, (0, 0), kernel_px).reshape(shape)
    pixels: Array = (scene(channels) + std * noise / noise.std()).round().clip(0, 255).astype(np.uint8)
    return pixels


@pytest.mark.parametrize("std", [1.5, 4.0, 10.0])
def test_the_strength_of_white_noise(std: float) -> None:
    found = measure([grainy(std)])
    assert found is not None
    assert found.grain.levels == pytest.approx(std, rel=0.1)
    assert found.grain.size_px <= 0.3
    assert found.grain.shared < 0.1


@pytest.mark.parametrize("kernel_px", [0.5, 1.0])
def test_the_size_of_grain(kernel_px: float) -> None:
    found = measure([grainy(6, kernel_px)])
    assert found is not None
    assert found.grain.size_px == pytest.approx(kernel_px, abs=0.15)
    assert found.grain.levels == pytest.approx(6, rel=0.15)


def test_what_channels_share() -> None:
    alike, grey = measure([grainy(5, shared=True)]), measure([grainy(5, channels=1)])
    assert alike is not None
    assert grey is not None
    assert alike.grain.shared > 0.95
    assert len(grey.grain.strength) == 1
    assert grey.grain.shared == 1


def test_strength_follows_brightness() -> None:
    picture = scene()
    noise = np.random.default_rng(0).normal(0, 1, picture.shape) * np.where(picture > 128, 8.0, 2.0)
    found = measure([(picture + noise).round().clip(0, 255).astype(np.uint8)])
    assert found is not None
    row = np.array(found.grain.strength[0]) * 255
    assert row[8] == pytest.approx(2, rel=0.3)  # at a quarter of the scale
    assert row[22] > 1.25 * row[8]
    assert row[0] == row[-1] == 0


def test_sixteen_bits_and_strips() -> None:
    picture = grainy(5)
    whole, parts = measure([picture]), measure([picture[:160], picture[160:]])
    wide = measure([picture.astype(np.uint16) * 257])
    assert whole is not None
    assert parts is not None
    assert wide is not None
    assert wide.grain.levels == pytest.approx(whole.grain.levels, rel=0.05)
    assert parts.grain.levels == pytest.approx(whole.grain.levels, rel=0.1)
    assert {number for number, _, _ in parts.flat} == {0, 1}


def test_where_there_is_none() -> None:
    assert measure([scene().round().astype(np.uint8)]) is None
    assert measure([np.full((SIDE, SIDE, 3), 90, np.uint8)]) is None
    assert measure([np.full((8, 8, 3), 90, np.uint8)]) is None
    clear = np.concatenate([grainy(5), np.zeros((SIDE, SIDE, 1), np.uint8)], 2)
    assert measure([clear]) is None, "what cannot be seen was measured"


def test_what_an_enlargement_has_left() -> None:
    before = [grainy(6)[:BLOCK, :BLOCK]]
    repeated = [one.repeat(2, 0).repeat(2, 1) for one in before]
    smooth = [np.full_like(one, 120) for one in repeated]
    assert left_fraction(before, repeated) == pytest.approx(1, abs=0.01)
    assert left_fraction(before, smooth) < 0.01


# -------------------------------------------------------------------------------------------------------------- field


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 59), max_size=4, unique=True),
    size=st.floats(0, 2),
    aperture=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
    channels=st.integers(1, 4),
    wide=st.booleans(),
)
def test_rows_come_out_the_same_in_any_parts(
    cuts: list[int], size: float, aperture: int, seed: int, channels: int, wide: bool
) -> None:
    colours = 1 if channels <= 2 else 3
    grain = Grain(film(0.8, colours).strength, size, size / 2, 0.6)
    dtype: Any = np.uint16 if wide else np.uint8
    whole = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (60, 37, channels), dtype)
    parts, before = whole.copy(), whole.copy()
    GrainField(grain, aperture, seed=seed).put(whole, 1000)
    for top, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        GrainField(grain, aperture, seed=seed).put(parts[top:stop], 1000 + top)
    np.testing.assert_array_equal(whole, parts)
    assert (whole != before).any()
    if channels in (2, 4):
        np.testing.assert_array_equal(whole[..., -1], before[..., -1])


def test_a_seed_a_page_and_none() -> None:
    def made(seed: int = 0, page: int = 0, amount: float = 1.0) -> Array:
        pixels = np.full((64, 64, 3), 120, np.uint8)
        GrainField(film(amount, 3), 1, seed=seed, page=page).put(pixels, 0)
        return pixels

    np.testing.assert_array_equal(made(), made())
    for other in (made(seed=1), made(seed=2**40), made(page=1)):
        assert abs(np.corrcoef(made().ravel(), other.ravel())[0, 1]) < 0.1
    np.testing.assert_array_equal(made(amount=0), 120)


@pytest.mark.parametrize(("aperture", "size"), [(1, 1.0), (2, 0.5), (4, 0.5), (4, 1.0)])
def test_averaged_over_the_old_pixel_it_is_what_was_measured(aperture: int, size: float) -> None:
    strength = ((0.02,) * 33,) * 3
    pixels = np.full((256 * aperture, 256 * aperture, 3), 30_000, np.uint16)
    GrainField(Grain(strength, size, size, 0.5), aperture, seed=3).put(pixels, 0)
    light = pixels / 65535
    small = light.reshape(256, aperture, 256, aperture, 3).mean((1, 3))
    assert small.std((0, 1)) == pytest.approx(0.02, rel=0.08)
    centred = small - small.mean((0, 1))
    near = (centred[1:] * centred[:-1]).mean() / (centred**2).mean()
    assert near == pytest.approx(np.exp(-1 / (4 * size**2)), abs=0.12)
    assert np.corrcoef(centred[..., 0].ravel(), centred[..., 1].ravel())[0, 1] == pytest.approx(0.5, abs=0.05)


def test_it_is_added_in_linear_light() -> None:
    """There its mean is the value's own; in encoded values it is darker."""
    pixels = np.full((400, 400, 1), 100, np.uint8)
    GrainField(Grain(((0.06,) * 33,), 0.6, 0.6, 1.0), 1, seed=0).put(pixels, 0)
    encoded = pixels / 255
    linear = ((encoded + 0.055) / 1.055) ** 2.4
    assert linear.mean() == pytest.approx(((100 / 255 + 0.055) / 1.055) ** 2.4, rel=0.01)
    assert pixels.mean() < 99.7


def test_what_is_wholly_transparent_keeps_its_colour() -> None:
    pixels = np.full((32, 32, 4), 120, np.uint8)
    pixels[:16, :, 3] = 0
    GrainField(film(1.0, 3), 1, seed=0).put(pixels, 0)
    assert (pixels[:16, :, :3] == 120).all()
    assert (pixels[16:, :, :3] != 120).any()
