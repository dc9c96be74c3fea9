"""Low pictures made from high ones: bicubic by the usual convention, and with the photo degradation."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from srgan_cli.dataset.degradation import (
    Degradation,
    apply,
    bicubic_down,
    rng_for,
    sample,
    sharpened,
)
from srgan_cli.dataset.kernels import (
    FILTERS,
    Blur,
)
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.training_data_config import DegradationSettings
from tests.dataset.degradations import PHOTO, as_levels, draws, once, pictures

REPO = Path(__file__).resolve().parents[2]


TEST_DATA = Path(os.environ.get("SRGAN_TEST_DATA", REPO.parent / "shared" / "data")) / "test"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


# -------------------------------------------------------------------------------------------------------------- bicubic


@pytest.mark.parametrize(("scale", "exact"), [(2, True), (3, False), (4, True), (8, True)])
def test_bicubic_is_the_evaluations(scale: int, exact: bool) -> None:
    high = torch.from_numpy(np.random.default_rng(scale).integers(0, 256, (3, 3, 48, 72))).float() / 255
    low = apply(high, [Degradation.BICUBIC] * 3, scale)
    assert low.dtype == torch.float32
    for one, small in zip(high, low, strict=True):
        expected = bicubic(as_levels(one), 72 // scale, 48 // scale)
        # Weights of thirds are not exact in binary: where a sum is a half, the order of adding decides.
        off = np.abs(as_levels(small).astype(int) - expected)
        assert off.max() == 0 if exact else off.mean() < 0.01


@pytest.mark.parametrize("test_set", ["Set5", "Set14"])
@pytest.mark.parametrize("scale", [2, 4])
def test_bicubic_equals_the_fields_small_pictures_to_the_bit(test_set: str, scale: int) -> None:
    folder = TEST_DATA / test_set / f"x{scale}"
    if not folder.is_dir():
        pytest.skip("the test pictures are not here; SRGAN_TEST_DATA says where they are")
    for path in sorted((folder / "high").iterdir())[:4]:
        pixels = np.array(Image.open(path).convert("RGB"))
        high = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        low = apply(high, [Degradation.BICUBIC], scale)[0]
        expected = np.array(Image.open(folder / "low" / path.name).convert("RGB"))
        np.testing.assert_array_equal(as_levels(low), expected, err_msg=path.name)


def test_bicubic_down_is_neither_rounded_nor_clipped() -> None:
    high = torch.zeros(2, 3, 24, 16)
    high[0, :, 12:], high[1, :, :, 8:] = 1.0, 1.0
    low = bicubic_down(high, 4)
    for one, small in zip(high, low, strict=True):
        expected = bicubic(one.permute(1, 2, 0).double().numpy(), 4, 6)
        np.testing.assert_allclose(small.permute(1, 2, 0), expected, atol=1e-6)
    assert low.min() < 0


def test_bicubic_down_has_a_gradient_after_use_in_inference_mode() -> None:
    with torch.inference_mode():  # what is cached here must still be usable in training
        bicubic_down(torch.rand(1, 3, 20, 20), 2)
    high = torch.rand(1, 1, 20, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: bicubic_down(x, 2), high)


def test_autocast_does_not_reach_inside() -> None:
    high = pictures(2)
    values = [Degradation.BICUBIC, once(blur=Blur("gaussian", 1.0))]
    expected, down = apply(high, values, 4), bicubic_down(high, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(apply(high, values, 4), expected)
        assert torch.equal(bicubic_down(high, 4), down)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="30x32 px is not a multiple of the scale, 4"):
        apply(torch.rand(1, 3, 32, 30), [Degradation.BICUBIC], 4)
    with pytest.raises(ValueError, match="30x32 px is not a multiple of the scale, 4"):
        apply(torch.rand(1, 3, 32, 30), [once()], 4)
    with pytest.raises(ValueError, match="one degradation per crop, not 1 for 2"):
        apply(torch.rand(2, 3, 32, 32), [Degradation.BICUBIC], 4)


# --------------------------------------------------------------------------------------------------------------- sample


@pytest.mark.parametrize(
    "config",
    [
        DegradationSettings(),
        DegradationSettings(kind="photo", strength=0.0),
        DegradationSettings(kind="photo", clean_fraction=1.0),
    ],
)
def test_where_nothing_is_wanted_nothing_happens(config: DegradationSettings) -> None:
    assert set(draws(config, 50)) == {Degradation.BICUBIC}


def test_bicubic_draws_nothing() -> None:
    rng = rng_for(1, 2, 3)
    sample(DegradationSettings(), rng)
    assert rng.random() == rng_for(1, 2, 3).random()


def test_the_same_place_draws_the_same_and_another_place_something_else() -> None:
    places = [(seed, step, index) for seed in (0, 1, -1) for step in (0, 1, 2**40) for index in (0, 1, 2)]
    values = [sample(DegradationSettings(kind="photo", clean_fraction=0), rng_for(*place)) for place in places]
    assert len(set(values)) == len(places)
    assert values == [sample(DegradationSettings(kind="photo", clean_fraction=0), rng_for(*place)) for place in places]


def test_a_wide_range_is_drawn_to_its_end() -> None:
    config = dataclasses.replace(PHOTO, noise=(0.01, 10.0), noise_fraction=1.0, clean_fraction=0.0)
    drawn = [one.noise.sigma for value in draws(config, 400) for one in value.rounds if one.noise and one.noise.sigma]
    assert 0.01 <= min(drawn) < 0.03
    assert 3.0 < max(drawn) <= 10.0


def test_shares_and_ranges_are_kept() -> None:
    values = draws(PHOTO, 2000)
    rounds = [one for value in values for one in value.rounds]
    rough = len(rounds) / 2

    def close(count: int, fraction: float, of: float) -> bool:
        return abs(count - fraction * of) < 4 * math.sqrt(of * fraction * (1 - fraction))

    assert close(len(values) - int(rough), PHOTO.clean_fraction, 2000)
    for field, fraction in (("blur", 0.8), ("noise", 0.8), ("compression", 0.8)):
        assert close(sum(getattr(one, field) is not None for one in rounds), fraction, len(rounds))
    files = [one.compression for one in rounds if one.compression]
    assert close(sum(file.codec == "WEBP" for file in files), PHOTO.webp_fraction, len(files))
    assert {file.halved_chroma for file in files} == {True, False}
    assert all(30 <= file.quality <= 95 for file in files)
    blurs = [one.blur for one in rounds if one.blur]
    assert all(isinstance(blur, Blur) and 0.2 <= blur.sigma_px <= 2 for blur in blurs)
    assert {blur.kind for blur in blurs if isinstance(blur, Blur)} == {"gaussian", "lens", "motion"}
    assert {one.filter for one in rounds} == set(FILTERS)
    noises = [one.noise for one in rounds if one.noise]
    assert close(sum(noise.grey for noise in noises), PHOTO.grey_noise_fraction, len(noises))
    assert all((1 <= noise.sigma <= 20) != (0.05 <= noise.shot <= 2) for noise in noises)
    for value in values:
        assert [one.factor is None for one in value.rounds] in ([], [False, True])
    assert all(0.3 <= one.factor <= 1.3 for one in rounds if one.factor)


@pytest.mark.parametrize(
    ("quality", "strength", "expected"),
    [
        (30, 1, 30),
        (80, 1, 80),
        (75, 2, 50),
        (50, 2, 25),
        (90, 0.5, 95),
        (25, 0.5, 50),
        (40, 0.1, 94),
        (20, 4, 10),
        (6, 2, 6),
    ],
)
def test_strength_scales_the_steps_of_the_quantiser(quality: float, strength: float, expected: int) -> None:
    config = DegradationSettings(
        kind="photo", strength=strength, jpeg_quality=(quality, quality), compression_fraction=1, clean_fraction=0
    )
    for value in draws(config, 3):
        assert [one.compression.quality for one in value.rounds if one.compression] == [expected, expected]


def test_one_round_goes_straight_to_the_low_size() -> None:
    values = draws(DegradationSettings(kind="photo", rounds=1, clean_fraction=0), 20)
    assert all(len(value.rounds) == 1 and value.rounds[0].factor is None for value in values)


# ---------------------------------------------------------------------------------------------------------------- photo


@given(
    st.sampled_from([2, 3, 4, 8]),
    st.sampled_from([0.01, 0.5, 1.0, 4.0]),
    st.integers(1, 2),
    st.integers(0, 1000),
)
@settings(max_examples=25)
def test_results_are_8_bit_pictures_of_the_low_size(scale: int, strength: float, rounds: int, seed: int) -> None:
    high = pictures(3, 24, seed)[:, :, :, : 24 // scale * scale]
    low = apply(high, draws(DegradationSettings(kind="photo", strength=strength, rounds=rounds), 3, seed), scale)
    assert low.shape == (3, 3, 24 // scale, 24 // scale)
    assert low.dtype == torch.float32
    for one in low:
        as_levels(one)
    assert 0 <= low.min() <= low.max() <= 1


def test_the_widest_settings_are_survived() -> None:
    wide = DegradationSettings(
        kind="photo",
        strength=4.0,
        blur_px=(16.0, 16.0),
        resize=(0.1, 4.0),
        noise=(0.0, 100.0),
        poisson=(0.0, 10.0),
        jpeg_quality=(1.0, 100.0),
    )
    low = apply(pictures(4, 16), draws(wide, 4), 4)
    assert torch.isfinite(low).all()
    none = dataclasses.replace(wide, blur_px=(0.0, 0.0), noise=(0.0, 0.0), poisson=(0.0, 0.0))
    assert torch.isfinite(apply(pictures(4, 16), draws(none, 4), 4)).all()


@pytest.mark.usefixtures("two_threads")
def test_a_crops_result_depends_on_nothing_but_its_own_values() -> None:
    high, values = pictures(6), [*draws(PHOTO, 5), Degradation.BICUBIC]
    low = apply(high, values, 4)
    assert torch.equal(apply(high, values, 4), low)
    assert torch.equal(apply(high.flip(0), values[::-1], 4).flip(0), low)
    assert torch.equal(apply(high.contiguous(memory_format=torch.channels_last), values, 4), low)
    torch.set_num_threads(1)
    for i in range(6):
        assert torch.equal(apply(high[i : i + 1], values[i : i + 1], 4), low[i : i + 1])


def test_the_given_pictures_are_left_as_they_were() -> None:
    high = pictures(4)
    before = high.clone()
    apply(high, draws(PHOTO, 4), 4)
    assert torch.equal(high, before)


@pytest.mark.parametrize("colour", [(0.5, 0.5, 0.5), (0.14, 0.37, 0.02), (0.98, 0.9, 0.05)])
def test_the_mean_colour_does_not_drift(colour: tuple[float, float, float]) -> None:
    flat = torch.tensor(colour).mul(255).round().div(255)[None, :, None, None].expand(150, 3, 32, 32)
    low = apply(flat, draws(DegradationSettings(kind="photo", clean_fraction=0), 150), 4)
    drift = (low - flat[:, :, ::4, ::4]).mean(dim=(0, 2, 3)) * 255
    assert drift.abs().max() < 0.7  # levels; a codec's own rounding of colours is up to one


def test_more_strength_is_more_loss() -> None:
    high = pictures(40)
    clean = bicubic_down(high, 4)
    losses = [
        (apply(high, draws(DegradationSettings(kind="photo", strength=strength, clean_fraction=0), 40), 4) - clean)
        .square()
        .mean()
        .item()
        for strength in (0.0, 0.05, 0.4, 1.0, 2.0)
    ]
    assert losses[0] < 1e-5  # rounding to 8 bits
    assert losses == sorted(losses)
    assert losses[-1] > 2 * losses[2]


# ----------------------------------------------------------------------------------------------------------- sharpening


def test_sharpening_raises_contrast_at_edges_only() -> None:
    edge = torch.full((1, 3, 64, 64), 0.3)
    edge[..., 32:] = 0.7
    sharp = sharpened(edge, 0.5)
    assert sharp[..., 31].max() < 0.25
    assert sharp[..., 32].min() > 0.75
    assert torch.equal(sharpened(edge, 0.0), edge)
    fine = 0.5 + 0.008 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sharpened(fine, 0.5), fine)  # below the threshold: noise


def test_sharpening_is_the_formula() -> None:
    picture = pictures(1, 40)[0, 0].double().numpy()
    taps = np.exp(-0.5 * (np.arange(-24, 25) / 8.0) ** 2)
    taps /= taps.sum()

    def soft(values: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            padded = np.pad(values, [(24, 24) if i == axis else (0, 0) for i in (0, 1)], mode="edge")
            values = np.apply_along_axis(np.convolve, axis, padded, taps, mode="valid")
        return values

    detail = picture - soft(picture)
    mask = soft((np.abs(detail) * 255 > 10).astype(float))
    expected = (picture * (1 - mask) + (picture + 0.7 * detail) * mask).clip(0, 1)
    result = sharpened(torch.from_numpy(picture).float().expand(1, 3, 40, 40), 0.7)[0, 0]
    np.testing.assert_allclose(result, expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------------ GPU


@pytest.mark.gpu
def test_a_gpu_makes_the_same_bicubic_and_much_the_same_photo() -> None:
    high, values = pictures(8, 64), draws(PHOTO, 8)
    on_gpu = high.cuda()
    expected = apply(high, [Degradation.BICUBIC] * 8, 4)
    assert torch.equal(apply(on_gpu, [Degradation.BICUBIC] * 8, 4).cpu(), expected)
    low = apply(on_gpu, values, 4)
    assert torch.equal(apply(on_gpu, values, 4), low)
    assert low.device == on_gpu.device
    quiet = [once(blur=Blur("lens", 1.5), filter=kind) for kind in FILTERS * 2]
    torch.testing.assert_close(apply(on_gpu, quiet, 4).cpu(), apply(high, quiet, 4), atol=1.1 / 255, rtol=0)
