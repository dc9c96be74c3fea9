"""The low pictures: bicubic to the bit, photo without drift, and everything repeatable from its values."""

from __future__ import annotations

import dataclasses
import io
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
    Compression,
    Degradation,
    Noise,
    Round,
    apply,
    bicubic_down,
    rng_for,
    sample,
    sharpened,
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
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.training_data_config import DegradationSettings

REPO = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("SRGAN_TEST_DATA", REPO.parent / "shared" / "data")) / "test"

PHOTO = DegradationSettings(kind="photo")
BARE = Round(blur=None, factor=None, filter="bicubic", noise=None, compression=None)


def pictures(count: int = 4, side: int = 48, seed: int = 0) -> torch.Tensor:
    """Smooth shapes with some texture, (N, 3, side, side), multiples of 1/255."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = rng.uniform(1, 9, (count, 3, 2, 1, 1))
    smooth = 0.5 + 0.3 * np.sin(waves[:, :, 0] * x * 6 + waves[:, :, 1] * y * 6)
    levels = np.floor(255 * (smooth + rng.normal(0, 0.05, smooth.shape)).clip(0, 1) + 0.5)
    return torch.from_numpy(levels / 255).float()


def as_levels(picture: torch.Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1], multiples of 1/255 -> (H, W, 3) uint8."""
    levels = picture.double() * 255
    assert (levels - levels.round()).abs().max() < 1e-4
    return levels.round().byte().permute(1, 2, 0).numpy()


def draws(config: DegradationSettings, count: int, seed: int = 0) -> list[Degradation]:
    return [sample(config, rng_for(seed, 0, index)) for index in range(count)]


def once(**changes: object) -> Degradation:
    return Degradation((dataclasses.replace(BARE, **changes),))  # type: ignore[arg-type]


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


def test_bicubic_down_has_a_gradient_whoever_used_it_before() -> None:
    with torch.inference_mode():  # what is kept from here must not be spoilt for training
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
    with pytest.raises(ValueError, match="one degradation a crop, not 1 for 2"):
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


# ------------------------------------------------------------------------------------------------- noise, compression


@pytest.mark.parametrize(("sigma", "shot"), [(5.0, 0.0), (12.0, 0.0), (0.0, 0.1), (0.0, 1.5)])
@pytest.mark.parametrize("grey", [True, False])
def test_noise_has_the_variance_it_says(sigma: float, shot: float, grey: bool) -> None:
    level = torch.tensor([90.0, 120.0, 150.0])
    flat = (level / 255)[None, :, None, None].expand(1, 3, 128, 128)
    low = apply(flat, [once(noise=Noise(sigma, shot, grey, seed=7))], 1)[0] * 255
    change = low - level[:, None, None]
    lit = level.mean() if grey else level
    expected = (sigma**2 + shot * lit + 1 / 12).sqrt().expand(3) if shot else torch.full((3,), math.hypot(sigma, 0.29))
    np.testing.assert_allclose(change.std(dim=(1, 2)), expected, rtol=0.03)
    assert change.mean().abs() < 0.3
    alike = torch.corrcoef(change.flatten(1))[0, 1].item()
    assert alike == pytest.approx(1.0 if grey else 0.0, abs=0.05)


def test_noise_leaves_black_black_and_white_white() -> None:
    ends = torch.tensor([0.0, 1.0, 0.0])[None, :, None, None].expand(1, 3, 16, 16)
    assert torch.equal(apply(ends, [once(noise=Noise(20.0, 0.0, False, seed=1))], 1), ends)


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
