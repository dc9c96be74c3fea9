"""The parts of the photo degradation: blur, ringing, resizing, noise and compression."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srgan_cli.dataset.codecs import Compression
from srgan_cli.dataset.degradation import (
    SensorNoise,
    apply,
    rng_for,
    sample,
)
from srgan_cli.dataset.kernels import (
    FILTERS,
    Blur,
    BlurKind,
    Filter,
    Ringing,
    blur_kernel,
    blurred,
    resize_matrix,
    resized,
    sinc_kernel,
)
from tests.dataset.degradations import PHOTO, as_levels, draws, once, pictures

# ----------------------------------------------------------------------------------------------------------------- blur


@pytest.mark.parametrize("kind", ["gaussian", "lens", "motion"])
@pytest.mark.parametrize("sigma_px", [0.1, 0.4, 1.0, 2.0, 5.3])
@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2])
def test_a_kernel_is_centred_and_as_wide_as_it_says(kind: BlurKind, sigma_px: float, angle: float) -> None:
    kernel = blur_kernel(Blur(kind, sigma_px, angle)).astype(np.float64)
    assert kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    radius = len(kernel) // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-5)
    assert (kernel * y).sum() == pytest.approx(0, abs=1e-5)
    along = x * math.cos(angle) + y * math.sin(angle)
    if sigma_px >= 1:  # below that, the pixels are too coarse
        assert math.sqrt((kernel * along**2).sum()) == pytest.approx(sigma_px, rel=0.12)


def test_an_oval_kernel_lies_at_its_angle() -> None:
    kernel = blur_kernel(Blur("gaussian", 3.0, angle=math.pi / 2, narrow=0.5)).astype(np.float64)
    radius = len(kernel) // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    assert math.sqrt((kernel * y**2).sum()) == pytest.approx(3.0, rel=0.05)
    assert math.sqrt((kernel * x**2).sum()) == pytest.approx(1.5, rel=0.05)


def test_blur_is_the_sum_of_shifted_pictures() -> None:
    picture = pictures(1, 16)[0]
    blur = Blur("motion", 1.5, angle=0.5)
    kernel = blur_kernel(blur)
    radius = len(kernel) // 2
    padded = np.pad(picture.numpy(), ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    expected = sum(
        kernel[i, j] * padded[:, i : i + 16, j : j + 16] for i in range(len(kernel)) for j in range(len(kernel))
    )
    np.testing.assert_allclose(blurred(picture, blur), expected, atol=1e-6)


# -------------------------------------------------------------------------------------------------------------- ringing


RINGING = dataclasses.replace(PHOTO, clean_fraction=0.0, ringing_fraction=0.1, final_ringing_fraction=0.8)


@pytest.mark.parametrize("cutoff", [0.3, 0.6, 0.9])
def test_the_sinc_kernel_is_the_transform_of_a_disc(cutoff: float) -> None:
    kernel = sinc_kernel(Ringing(cutoff, 4)).astype(np.float64)
    # The definition, summed: all waves of a frequency up to the cutoff, at each px.
    waves = np.linspace(-math.pi, math.pi, 801)
    wx, wy = np.meshgrid(waves, waves)
    inside = np.hypot(wx, wy) <= math.pi * cutoff
    places = range(-4, 5)
    expected = np.array([[np.cos(wx[inside] * x + wy[inside] * y).sum() for x in places] for y in places])
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=2e-3)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)
    assert kernel.min() < 0


def test_ringing_lets_slow_waves_pass_and_stops_fast_ones() -> None:
    x = torch.arange(128.0)
    for frequency, passes in ((0.1, True), (0.2, True), (0.8, False)):
        wave = 0.5 + 0.4 * torch.cos(math.pi * frequency * x).expand(1, 128, 128)
        kept = (blurred(wave, Ringing(0.5, 10)) - 0.5)[0, 64, 32:96].abs().max().item() / 0.4
        assert kept == pytest.approx(1.0 if passes else 0.0, abs=0.1)


def test_ringing_leaves_halos_along_an_edge_and_flat_areas_flat() -> None:
    edge = torch.zeros(3, 64, 64)
    edge[:, :, 32:] = 1.0
    soft, halos = edge * 0.5 + 0.25, blurred(edge * 0.5 + 0.25, Ringing(0.4, 10))
    assert halos.max() > soft.max() + 0.02
    assert halos.min() < soft.min() - 0.02
    flat = torch.full((3, 32, 32), 0.5)
    torch.testing.assert_close(blurred(flat, Ringing(0.4, 10)), flat)


def test_ringing_has_its_fractions_and_stands_on_either_side_of_the_codec() -> None:
    values = draws(RINGING, 1500)
    blurs = [one.blur for value in values for one in value.rounds if one.blur]
    assert 0.07 < sum(isinstance(blur, Ringing) for blur in blurs) / len(blurs) < 0.13
    last = [value.rounds[-1] for value in values]
    assert 0.75 < sum(one.ringing is not None for one in last) / len(last) < 0.82  # a few cutoffs let all pass
    assert 0.45 < sum(one.rings_after for one in last) / len(last) < 0.55
    assert not any(value.rounds[0].ringing for value in values)
    found = [one.ringing for one in last if one.ringing]
    assert all(0.33 <= ringing.cutoff < 1 and 3 <= ringing.radius_px <= 10 for ringing in found)
    half = draws(dataclasses.replace(RINGING, strength=0.5), 200)
    assert all(value.rounds[-1].ringing.cutoff >= 0.66 for value in half if value.rounds[-1].ringing)


def test_without_ringing_a_seed_gives_what_it_gave_before_there_was_any() -> None:
    # Drawn by the version before: scores of degraded copies stay comparable.
    value = sample(dataclasses.replace(PHOTO, clean_fraction=0.0), rng_for(1, 2, 3))
    first, last = value.rounds
    assert first.noise is not None
    assert last.noise is not None
    assert (first.noise.seed, last.noise.seed) == (4039286875857624346, 8288022361196069288)
    assert last.blur == Blur("gaussian", 1.0973375361865727, 1.4186063829648787, 0.9947212757509081)


def test_ringing_before_and_after_the_codec_are_two_things() -> None:
    picture, codec = pictures(1, 48), Compression("JPEG", 30, True, (3, 5))
    before, after = (
        apply(picture, [once(compression=codec, ringing=Ringing(0.4, 8), rings_after=late)], 2)
        for late in (False, True)
    )
    assert not torch.equal(before, after)
    by_hand = blurred(apply(picture, [once(compression=codec)], 2)[0], Ringing(0.4, 8)).clamp(0, 1)
    np.testing.assert_allclose(after[0], by_hand, atol=0.5 / 255 + 1e-6)


def test_the_second_blur_can_be_weaker() -> None:
    values = draws(dataclasses.replace(PHOTO, blur_px=(1.0, 3.0), last_blur=0.5), 400)
    first, last = ([v.rounds[i].blur for v in values if v.rounds] for i in (0, 1))
    assert 2.5 < max(blur.sigma_px for blur in first if isinstance(blur, Blur)) <= 3.0
    assert 1.2 < max(blur.sigma_px for blur in last if isinstance(blur, Blur)) <= 1.5


# ------------------------------------------------------------------------------------------------------------- resizing


@given(st.sampled_from(FILTERS), st.integers(1, 40), st.integers(1, 40))
def test_a_resize_keeps_flat_flat_and_the_middle_in_the_middle(kind: Filter, length: int, target: int) -> None:
    matrix = resize_matrix(kind, length, target, torch.float64, torch.device("cpu"))
    np.testing.assert_allclose(matrix.sum(dim=1), 1, atol=1e-12)
    np.testing.assert_allclose(matrix, matrix.flip(0, 1), atol=1e-9)


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("target", [15, 24, 40, 57, 80])
def test_a_ramp_stays_where_it_is(kind: Filter, target: int) -> None:
    ramp = torch.arange(40.0, dtype=torch.float64).expand(1, 2, 40)
    result = resized(ramp, target, 2, kind)[0, 0].numpy()
    expected = (np.arange(target) + 0.5) * 40 / target - 0.5
    inside = (expected > 9) & (expected < 30)
    # Exact where the filter's samples keep a ramp straight; else the ripple is small, and a shift would be 0.5.
    exact = kind in ("bilinear", "bicubic") and target > 40
    np.testing.assert_allclose(result[inside], expected[inside], atol=1e-9 if exact else 0.15)


def test_area_is_the_mean_of_what_a_pixel_covers() -> None:
    picture = pictures(1, 24)[0].double()
    expected = picture.reshape(3, 8, 3, 6, 4).mean(dim=(2, 4))
    np.testing.assert_allclose(resized(picture, 6, 8, "area"), expected, atol=1e-12)


def test_area_enlarges_as_bilinear_does() -> None:
    picture = pictures(1, 12)[0].double()
    np.testing.assert_allclose(resized(picture, 31, 17, "area"), resized(picture, 31, 17, "bilinear"), atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "theirs"), [("bilinear", Image.Resampling.BILINEAR), ("lanczos", Image.Resampling.LANCZOS)]
)
@pytest.mark.parametrize("target", [13, 60])
def test_filters_equal_pillows_away_from_the_borders(kind: Filter, theirs: Image.Resampling, target: int) -> None:
    channel = pictures(1, 40)[0, 0]
    expected = np.array(Image.fromarray(channel.numpy()).resize((target, target), theirs))
    result = resized(channel[None], target, target, kind)[0].numpy()
    edge = math.ceil(10 * target / 40)
    np.testing.assert_allclose(result[edge:-edge, edge:-edge], expected[edge:-edge, edge:-edge], atol=1e-5)


# --------------------------------------------------------------------------------------------------- noise, compression


@pytest.mark.parametrize(("sigma", "shot"), [(5.0, 0.0), (12.0, 0.0), (0.0, 0.1), (0.0, 1.5)])
@pytest.mark.parametrize("grey", [True, False])
def test_noise_has_the_variance_it_says(sigma: float, shot: float, grey: bool) -> None:
    level = torch.tensor([90.0, 120.0, 150.0])
    flat = (level / 255)[None, :, None, None].expand(1, 3, 128, 128)
    low = apply(flat, [once(noise=SensorNoise(sigma, shot, grey, seed=7))], 1)[0] * 255
    change = low - level[:, None, None]
    lit = level.mean() if grey else level
    expected = (sigma**2 + shot * lit + 1 / 12).sqrt().expand(3) if shot else torch.full((3,), math.hypot(sigma, 0.29))
    np.testing.assert_allclose(change.std(dim=(1, 2)), expected, rtol=0.03)
    assert change.mean().abs() < 0.3
    alike = torch.corrcoef(change.flatten(1))[0, 1].item()
    assert alike == pytest.approx(1.0 if grey else 0.0, abs=0.05)


def test_noise_leaves_black_black_and_white_white() -> None:
    ends = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 16, 16)
    assert torch.equal(apply(ends, [once(noise=SensorNoise(20.0, 0.0, False, seed=1))], 1), ends)


@pytest.mark.parametrize(
    ("codec", "halved", "options"),
    [
        ("JPEG", True, {"subsampling": 2}),
        ("JPEG", False, {"subsampling": 0}),
        ("WEBP", True, {"method": 2}),
    ],
)
def test_compression_is_the_codecs_own(codec: str, halved: bool, options: dict[str, int]) -> None:
    picture = pictures(1, 32)
    values = Compression(codec, 40, halved, (0, 0))  # type: ignore[arg-type]
    file = io.BytesIO()
    Image.fromarray(as_levels(picture[0])).save(file, codec, quality=40, **options)
    low = apply(picture, [once(compression=values)], 1)[0]
    np.testing.assert_array_equal(as_levels(low), np.array(Image.open(file)))


def test_the_grid_of_blocks_is_shifted() -> None:
    # A slope, which a low quality turns into one step a block.
    slope = (torch.arange(64.0) * 2 + 60).div(255).expand(1, 3, 64, 64)
    for shift in (0, 3, 5):
        low = apply(slope, [once(compression=Compression("JPEG", 5, False, (shift, 0)))], 1)[0, 1, 8]
        jumps = {i for i in range(63) if abs(low[i + 1] - low[i]) * 255 > 8}
        assert jumps
        assert all((i + 1 + shift) % 8 == 0 for i in jumps)
