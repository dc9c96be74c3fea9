"""PSNR and SSIM: against plain formulas, closed forms, and the published bicubic row."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from srgan_cli.evaluation.evaluate import bicubic_enlarger, evaluate
from srgan_cli.evaluation.metrics import compare, luma, psnr, ssim
from srgan_cli.evaluation.pairs import find_pairs, read_pairs

REPO = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("SRGAN_TEST_DATA", REPO.parent / "shared" / "data")) / "test"

# Set: PSNR in dB and SSIM of bicubic at ×4, as in nearly every paper since 2016.
PUBLISHED = {"Set5": (28.42, 0.8104), "Set14": (26.00, 0.7027), "BSD100": (25.96, 0.6675)}


def _noise(shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [
        # rgb2ycbcr(uint8(…)) of MATLAB
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81),
        ((0, 255, 0), 145),
        ((0, 0, 255), 41),
        ((128, 128, 128), 126),
    ],
)
def test_luma_of_known_colours(rgb: tuple[int, int, int], expected: int) -> None:
    assert luma(np.array([[rgb]], np.uint8))[0, 0] == expected


def test_psnr_of_a_constant_difference() -> None:
    original = np.full((20, 20), 100.0)
    assert psnr(original + 5, original) == pytest.approx(20 * math.log10(255 / 5))
    assert psnr(original, original) == math.inf


def test_psnr_of_bytes_does_not_wrap_round() -> None:
    dark, bright = np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8)
    assert psnr(dark, bright) == psnr(bright, dark) == 0.0


def test_ssim_equals_the_papers_formula_window_by_window() -> None:
    a, b = _noise((17, 14)).astype(float), _noise((17, 14), seed=1).astype(float)
    b = 0.7 * a + 0.3 * b
    y, x = np.mgrid[-5:6, -5:6]
    weights = np.exp(-(x * x + y * y) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(17 - 10):
        for left in range(14 - 10):
            p, q = a[top : top + 11, left : left + 11], b[top : top + 11, left : left + 11]
            mp, mq = (weights * p).sum(), (weights * q).sum()
            vp, vq = (weights * (p - mp) ** 2).sum(), (weights * (q - mq) ** 2).sum()
            cov = (weights * (p - mp) * (q - mq)).sum()
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-10)


def test_ssim_of_two_flat_pictures_is_the_luminance_term() -> None:
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(np.full((11, 11), 100.0), np.full((11, 11), 120.0)) == pytest.approx(expected)


def test_ssim_of_a_picture_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="11x11"):
        ssim(np.zeros((10, 30)), np.zeros((10, 30)))


def test_equal_pictures_are_perfect() -> None:
    picture = _noise((24, 24, 3))
    scores = compare(picture, picture, 4)
    assert (scores.psnr_y_db, scores.psnr_rgb_db) == (math.inf, math.inf)
    assert (scores.ssim_y, scores.ssim_rgb) == pytest.approx((1.0, 1.0))


def test_the_border_does_not_count() -> None:
    original = _noise((24, 26, 3))
    spoiled = original.copy()
    spoiled[:4], spoiled[-4:], spoiled[:, :4], spoiled[:, -4:] = 0, 0, 0, 0
    assert compare(spoiled, original, 4).psnr_rgb_db == math.inf
    assert compare(spoiled, original, 3).psnr_rgb_db < 40


def test_grey_is_compared_as_it_is() -> None:
    original = _noise((24, 24, 1)) // 2 + 20
    brighter = original + 3
    scores = compare(brighter, original, 2)
    assert scores.psnr_y_db == scores.psnr_rgb_db == pytest.approx(20 * math.log10(255 / 3))
    assert compare(np.repeat(brighter, 3, axis=2), original, 2).psnr_y_db == pytest.approx(scores.psnr_y_db)
    as_rgb = compare(np.repeat(brighter, 3, axis=2), np.repeat(original, 3, axis=2), 2)
    assert scores.psnr_y_unrounded_db == pytest.approx(as_rgb.psnr_y_unrounded_db)
    assert scores.ssim_rgb == pytest.approx(as_rgb.ssim_rgb)


def test_a_grey_result_of_a_coloured_original_counts_as_rgb() -> None:
    grey, colour = _noise((20, 20, 1)), _noise((20, 20, 3), seed=1)
    assert compare(grey, colour, 0) == compare(np.repeat(grey, 3, axis=2), colour, 0)


@pytest.mark.parametrize(
    ("picture", "original", "border", "says"),
    [
        (np.zeros((20, 20, 3), np.uint8), np.zeros((20, 21, 3), np.uint8), 0, "cannot compare"),
        (np.zeros((20, 20, 3), np.uint16), np.zeros((20, 20, 3), np.uint16), 0, "uint8"),
        (np.zeros((20, 20, 4), np.uint8), np.zeros((20, 20, 4), np.uint8), 0, "uint8"),
        (np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8), 10, "border"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    picture: npt.NDArray[np.uint8], original: npt.NDArray[np.uint8], border: int, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        compare(picture, original, border)


@pytest.mark.slow
@pytest.mark.parametrize("test_set", PUBLISHED)
def test_bicubic_has_its_published_scores(test_set: str) -> None:
    folder = TEST_DATA / test_set / "x4"
    if not folder.is_dir():
        pytest.skip("the test pictures are not here; SRGAN_TEST_DATA says where they are")
    files = find_pairs(folder / "high", folder / "low", 4).files
    assert all(one.low is not None for one in files)
    given = read_pairs(files, scale=4, on_failure=pytest.fail)
    scores = evaluate(bicubic_enlarger(4), given, scale=4).mean
    published_db, published_ssim = PUBLISHED[test_set]
    assert scores["psnr_y_db"] == pytest.approx(published_db, abs=0.01)
    assert scores["ssim_y"] == pytest.approx(published_ssim, abs=0.0005)
