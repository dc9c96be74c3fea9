"""Grain and coloured specks are counted where they are, and nowhere else; the drawn training pages are as
documented."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import blemishes, drawings
from benchmarks.likeness import busiest
from srgan_cli.evaluation.evaluate import bicubic_enlarger
from srgan_cli.imaging.rgb import RGB


def test_deviation_is_that_of_luminance_around_a_pixel() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (20, 24, 1), dtype=np.uint8).repeat(3, axis=2)
    expected = picture[3:12, 5:14, 0].astype(np.float64).std()
    assert float(blemishes.deviation(picture)[7, 9]) == pytest.approx(expected, rel=1e-4)


def test_colour_around_letters_is_found_and_softness_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blemishes, "_INKS", blemishes._INKS[::3])  # black, and red on paper that is not quite white
    bicubic = bicubic_enlarger(4)

    def coloured(low: RGB) -> RGB:
        result = bicubic(low).copy()
        result[::2, ::2, 0] = np.minimum(
            result[::2, ::2, 0], 200
        )  # a reddish paper would have been fine; specks are not
        return result

    assert blemishes.coloured_fraction(bicubic, 4) < 0.01
    assert blemishes.coloured_fraction(coloured, 4) > 0.05


def test_a_page_is_the_same_each_time_and_has_ink_on_it() -> None:
    page, again = (drawings.drawn(np.random.default_rng((1, 5)), 64) for _ in range(2))
    assert page.size == (64, 64)
    assert np.array_equal(np.asarray(page), np.asarray(again))
    assert np.asarray(page).std() > 5


def test_the_busiest_crop_is_taken() -> None:
    picture = np.zeros((64, 400, 3), np.uint8)
    picture[::2, 200:] = 255
    assert busiest(picture, 64, seed=0)[:, :, 0].std() > 60
    assert busiest(picture[:20, :10], 64, seed=0).shape == (20, 10, 3)
