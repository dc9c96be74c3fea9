"""Rows on their way into the engine: in order, complete, and few held in memory."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.engine.rows import AheadRows, ArrayRows, RowWindow
from srgan_cli.engine.tiles import next_rows
from srgan_cli.errors import UnreadablePictureError
from tests.faults import CountingRows

pytestmark = pytest.mark.timeout(60)


def numbered(height: int) -> Any:
    """Every row holds its own number."""
    return np.arange(height, dtype=np.uint16)[:, None, None].repeat(3, 1)


@given(st.integers(1, 400), st.lists(st.integers(1, 90), min_size=1, max_size=40))
def test_rows_of_an_array_come_in_order_and_end(height: int, counts: list[int]) -> None:
    rows, seen = ArrayRows(numbered(height)), 0
    for count in counts:
        part = rows.read_rows(count)
        assert part[:, 0, 0].tolist() == list(range(seen, min(height, seen + count)))
        seen += len(part)


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 40), st.data())
def test_a_window_gives_what_bands_and_retries_ask_for(height: int, tile_px: int, halo_px: int, data: Any) -> None:
    source = CountingRows(numbered(height))
    window = RowWindow(source)
    top = data.draw(st.integers(0, height - 1), "first row")
    furthest = 0
    while top < height:
        rows = next_rows(top, height, tile_px, halo_px)
        taken = window.take(rows.begin, rows.end, keep_from=rows.begin)
        assert taken[:, 0, 0].tolist() == list(range(rows.begin, rows.end))
        furthest = max(furthest, rows.end)
        assert source.given == furthest, "no row is read before it is needed, and none twice"
        if tile_px > 1 and data.draw(st.booleans(), "out of memory"):
            tile_px //= 2  # and the same band again, thinner
            continue
        top = rows.stop
    assert source.given == height


def test_a_window_keeps_what_may_be_asked_for_again() -> None:
    source = CountingRows(numbered(100))
    window = RowWindow(source)
    window.take(0, 30, keep_from=0)
    window.take(20, 60, keep_from=0)  # the band before may still fail
    assert window.take(0, 15, keep_from=0)[:, 0, 0].tolist() == list(range(15))
    assert window.take(10, 70, keep_from=10)[:, 0, 0].tolist() == list(range(10, 70))
    assert source.given == 70


def test_a_window_over_a_source_that_ends_early_is_an_error() -> None:
    with pytest.raises((ValueError, UnreadablePictureError)):
        RowWindow(ArrayRows(numbered(5))).take(0, 9, keep_from=0)
    with pytest.raises((ValueError, UnreadablePictureError)):
        RowWindow(ArrayRows(numbered(5))).take(8, 9, keep_from=8)


# ------------------------------------------------------------------------------------------------------ decoded ahead


@given(
    st.integers(1, 300), st.integers(1, 50), st.integers(1, 4),
    st.lists(st.integers(1, 120), min_size=1, max_size=20),
)  # fmt: skip
def test_rows_read_ahead_are_the_same_rows(height: int, block_rows: int, blocks: int, counts: list[int]) -> None:
    seen = 0
    with AheadRows(ArrayRows(numbered(height)), 1, block_bytes=block_rows, blocks=blocks) as ahead:
        for count in counts:
            part = ahead.read_rows(count)
            assert part[:, 0, 0].tolist() == list(range(seen, min(height, seen + count)))
            seen += len(part)
    assert not [thread for thread in threading.enumerate() if thread.name == "srgan-decoder"]


def test_no_more_is_read_ahead_than_a_few_blocks() -> None:
    source = CountingRows(numbered(1000))
    with AheadRows(source, 1, block_bytes=10, blocks=2) as ahead:
        ahead.read_rows(5)
        time.sleep(0.1)
        assert source.given <= 10 * (1 + 2 + 1)
        assert set(source.asked) == {10}


class _Bad:
    def __init__(self, good: int) -> None:
        self.left = good

    def read_rows(self, count: int) -> Any:
        if self.left <= 0:
            raise UnreadablePictureError("damaged")
        self.left -= count
        return numbered(count)


def test_an_error_ahead_is_raised_where_the_rows_are_wanted() -> None:
    with AheadRows(_Bad(20), 1, block_bytes=10) as ahead:
        assert len(ahead.read_rows(15)) == 15
        for _ in range(2):
            with pytest.raises(UnreadablePictureError, match="damaged"):
                ahead.read_rows(15)


def test_leaving_early_stops_the_decoder() -> None:
    source = CountingRows(numbered(100_000))
    with AheadRows(source, 1, block_bytes=1, blocks=1) as ahead:
        ahead.read_rows(3)
    assert source.given < 20
    assert not [thread for thread in threading.enumerate() if thread.name == "srgan-decoder"]
