"""MATLAB's `imresize`, by hand-computed values and, if available, by the standard test sets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.imaging.bicubic import bicubic, contributions
from srgan_cli.imaging.reading import read_image

REPO = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("SRGAN_TEST_DATA", REPO.parent / "shared" / "data")) / "test"


def test_doubling_an_impulse_gives_keys_kernel_at_quarters() -> None:
    impulse = np.zeros((1, 9))
    impulse[0, 4] = 1.0
    # Keys's kernel at 1/4, 3/4, 5/4 and 7/4, worked out by hand from eq. 15 with a = -1/2.
    at = {0.25: 0.8671875, 0.75: 0.2265625, 1.25: -0.0703125, 1.75: -0.0234375}
    expected = [at[1.75], at[1.25], at[0.75], at[0.25], at[0.25], at[0.75], at[1.25], at[1.75]]
    result = bicubic(impulse, 18, 1)[0]
    np.testing.assert_allclose(result[5:13], expected, atol=1e-15)
    assert not result[:5].any()
    assert not result[13:].any()


def test_halving_takes_a_kernel_twice_as_wide() -> None:
    # Each result lies between two pixels: taps at 1/4, 3/4, 5/4, 7/4 of the widened kernel, halved.
    side = np.array([-0.0234375, -0.0703125, 0.2265625, 0.8671875]) / 2
    indices, weights = contributions(16, 8)
    assert indices[3].tolist() == list(range(3, 11))
    np.testing.assert_allclose(weights[3], [*side, *side[::-1]], atol=1e-15)


def test_edges_are_repeated() -> None:
    indices, _ = contributions(16, 8)
    assert indices[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4]
    assert indices[-1].tolist() == [11, 12, 13, 14, 15, 15, 15, 15]


@given(st.integers(1, 40), st.integers(1, 40))
def test_weights_sum_to_one_and_indices_stay_inside(length: int, target: int) -> None:
    indices, weights = contributions(length, target)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    assert indices.min() >= 0
    assert indices.max() < length


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 255))
def test_flat_stays_flat(width: int, height: int, value: int) -> None:
    flat = np.full((5, 7, 3), value, np.uint8)
    assert (bicubic(flat, width, height) == value).all()


def test_a_straight_ramp_stays_straight_inside() -> None:
    ramp = np.tile(np.arange(20.0), (3, 1))
    enlarged = bicubic(ramp, 80, 3)[0]
    inside = np.arange(8, 72)
    np.testing.assert_allclose(enlarged[inside], (inside + 0.5) / 4 - 0.5, atol=1e-12)


def test_same_size_changes_nothing() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(bicubic(picture, 5, 6), picture)


def test_integers_are_clipped_and_keep_their_type() -> None:
    edge = np.zeros((1, 8), np.uint16)
    edge[0, 4:] = 65535
    result = bicubic(edge, 32, 1)
    assert result.dtype == np.uint16
    assert result.min() == 0
    assert result.max() == 65535


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1x1"):
        bicubic(np.zeros((4, 4)), 0, 4)


@pytest.mark.parametrize("test_set", ["Set5", "Set14", "BSD100"])
def test_equals_the_fields_small_pictures_to_the_bit(test_set: str) -> None:
    folder = TEST_DATA / test_set / "x4"
    if not folder.is_dir():
        pytest.skip("the test pictures are not here; SRGAN_TEST_DATA says where they are")
    for path in sorted((folder / "high").iterdir())[:20]:
        high = read_image(path, max_pixels=10**7).pixels
        low = read_image(folder / "low" / path.name, max_pixels=10**7).pixels
        np.testing.assert_array_equal(bicubic(high, low.shape[1], low.shape[0]), low, err_msg=path.name)
