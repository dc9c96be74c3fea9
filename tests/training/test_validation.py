"""The held-out pictures: both of a pair are cropped alike."""

from __future__ import annotations

import numpy as np
import pytest

from srgan_cli.training.validation import aligned


@pytest.mark.parametrize(("low_px", "extra_px"), [((255, 301), 0), ((160, 10), 3), ((256, 257), 2)])
def test_the_middles_of_a_pair_are_the_same_place(low_px: tuple[int, int], extra_px: int) -> None:
    scale = 4
    rows, columns = low_px
    low = np.stack(np.broadcast_arrays(np.arange(rows)[:, None] % 256, np.arange(columns) % 256, 0), axis=2).astype(
        np.uint8
    )
    high = np.pad(low.repeat(scale, 0).repeat(scale, 1), ((0, extra_px), (0, extra_px), (0, 0)), constant_values=99)
    ours, theirs = aligned(low, high, 400, scale)
    assert ours.shape[:2] == (min(rows, 100), min(columns, 100))
    assert np.array_equal(ours.repeat(scale, 0).repeat(scale, 1), theirs)
