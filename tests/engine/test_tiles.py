"""Cutting: integers only, so properties are exact."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.engine.tiles import Pass, Span, chain_halo, choose_scales, cut, next_rows, span

LENGTHS = st.integers(1, 5000)
TILES = st.integers(1, 1500)
HALOS = st.integers(0, 200)


@given(LENGTHS, TILES, HALOS, st.booleans())
def test_cores_partition_the_axis(length: int, tile_px: int, halo_px: int, uniform: bool) -> None:
    spans = cut(length, tile_px, halo_px, uniform=uniform)
    assert spans[0].start == 0
    assert spans[-1].stop == length
    assert all(a.stop == b.start for a, b in pairwise(spans))
    assert all(1 <= s.core <= tile_px for s in spans)


@given(LENGTHS, TILES, HALOS)
def test_cores_are_the_fewest_and_as_equal_as_integers_allow(length: int, tile_px: int, halo_px: int) -> None:
    cores = [s.core for s in cut(length, tile_px, halo_px)]
    assert len(cores) == math.ceil(length / tile_px)
    assert max(cores) - min(cores) <= 1


@given(LENGTHS, TILES, HALOS)
def test_a_window_is_its_core_and_the_halo_clamped_at_the_borders(length: int, tile_px: int, halo_px: int) -> None:
    for s in cut(length, tile_px, halo_px):
        assert s.begin == max(0, s.start - halo_px)
        assert s.end == min(length, s.stop + halo_px)


@given(LENGTHS, TILES, HALOS)
def test_uniform_windows_are_of_one_size_and_lack_no_context(length: int, tile_px: int, halo_px: int) -> None:
    least = cut(length, tile_px, halo_px)
    uniform = cut(length, tile_px, halo_px, uniform=True)
    assert len({s.window for s in uniform}) == 1
    for narrow, wide in zip(least, uniform, strict=True):
        assert (wide.start, wide.stop) == (narrow.start, narrow.stop)
        assert 0 <= wide.begin <= narrow.begin
        assert narrow.end <= wide.end <= length
    assert uniform[0].window == max(s.window for s in least)


@given(LENGTHS, TILES, HALOS, st.booleans())
def test_inner_is_the_cores_place_in_the_window(length: int, tile_px: int, halo_px: int, uniform: bool) -> None:
    for s in cut(length, tile_px, halo_px, uniform=uniform):
        window = range(s.begin, s.end)
        assert list(window[s.inner]) == list(range(s.start, s.stop))


@given(LENGTHS, TILES, HALOS)
def test_bands_cover_all_rows_in_order(height: int, tile_px: int, halo_px: int) -> None:
    top = 0
    while top < height:
        rows = next_rows(top, height, tile_px, halo_px)
        assert rows.start == top
        assert 1 <= rows.core <= tile_px
        assert rows == span(rows.start, rows.stop, height, halo_px)
        top = rows.stop
    assert top == height


@given(st.integers(2, 5000), TILES)
def test_no_band_is_thinner_than_half_a_tile(height: int, tile_px: int) -> None:
    top = 0
    while top < height:
        rows = next_rows(top, height, tile_px, 7)
        assert 2 * rows.core >= min(tile_px, height)
        top = rows.stop


@given(st.integers(1, 2000), st.lists(TILES, min_size=1, max_size=30))
def test_bands_cover_all_rows_when_the_tile_shrinks_on_the_way(height: int, tiles: list[int]) -> None:
    sizes = sorted(tiles, reverse=True)
    top = 0
    while top < height:
        rows = next_rows(top, height, sizes[0], 3)
        assert rows.start == top
        top = rows.stop
        sizes = sizes[1:] or sizes
    assert top == height


@pytest.mark.parametrize(("length", "tile_px", "halo_px"), [(0, 4, 1), (-1, 4, 1), (4, 0, 1), (4, 4, -1)])
def test_what_cannot_be_cut_is_refused(length: int, tile_px: int, halo_px: int) -> None:
    with pytest.raises(ValueError, match="cannot cut"):
        cut(length, tile_px, halo_px)


def test_one_tile_needs_no_context() -> None:
    assert cut(7, 100, 40) == (Span(0, 0, 7, 7),)


@pytest.mark.parametrize(
    ("available", "ratio", "expected"),
    [
        ((2, 4), 8, (2, 4)),
        ((2, 4), 16, (4, 4)),
        ((2, 4), 4, (4,)),
        ((2, 4), 2, (2,)),
        ((2, 4), 1.5, (2,)),
        ((2, 4), 3, (4,)),
        ((2, 4), 5, (2, 4)),
        ((2, 4), 1.0, (2,)),
        ((4,), 3, (4,)),
        ((4,), 1.01, (4,)),
        ((4,), 5, (4, 4)),
        ((4,), 16, (4, 4)),
        ((2,), 16, (2, 2, 2, 2)),
        ((2,), 3, (2, 2)),
        ((2, 3, 4), 3, (3,)),
        ((2, 3, 4), 6, (2, 3)),
        ((2, 3, 4), 9, (3, 3)),
        ((2, 3, 4, 8), 8, (8,)),
        ((3,), 16, (3, 3, 3)),
        ((4, 2), 8, (2, 4)),
        # Up to 2 % above a product the final resampling does the rest.
        ((2, 4), 4.08, (4,)),
        ((2, 4), 4.09, (2, 4)),
        ((2, 4), 2.04, (2,)),
        ((2, 4), 2.05, (4,)),
        ((4,), 4.08, (4,)),
    ],
)
def test_which_networks_reach_a_ratio(available: tuple[int, ...], ratio: float, expected: tuple[int, ...]) -> None:
    chosen = choose_scales(available, ratio)
    assert chosen == expected


@given(st.sets(st.integers(2, 8), min_size=1, max_size=4), st.floats(1.0, 16.0))
def test_the_networks_reach_the_ratio_with_the_least_surplus(available: set[int], ratio: float) -> None:
    chosen = choose_scales(tuple(available), ratio)
    product = math.prod(chosen)
    assert set(chosen) <= available
    assert list(chosen) == sorted(chosen)
    assert product * 1.02 >= ratio
    assert all(math.prod(chosen) // s * 1.02 < ratio for s in chosen if len(chosen) > 1), "a pass too many"


@pytest.mark.parametrize("available", [(), (1,)])
def test_networks_that_do_not_enlarge_are_refused(available: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="enlarges"):
        choose_scales(available, 2)


@given(st.lists(st.tuples(st.integers(2, 8), st.integers(0, 128)), max_size=4))
def test_the_halo_of_a_chain_is_that_of_its_networks_one_after_the_other(passes: list[tuple[int, int]]) -> None:
    chain = tuple(Pass(scale, halo) for scale, halo in passes)
    # From the last result backwards: what one px of it needs of the picture before, and so on to the first.
    needed = 0
    for one in reversed(chain):
        needed = one.halo_px + math.ceil(needed / one.scale)
    assert needed <= chain_halo(chain) <= needed + max(0, len(chain) - 1)


@pytest.mark.parametrize(
    ("chain", "halo_px"),
    [((), 0), ((Pass(4, 40),), 40), ((Pass(2, 5), Pass(4, 5)), 5 + 3), ((Pass(4, 5), Pass(4, 40)), 5 + 10)],
)
def test_the_halo_of_a_chain(chain: tuple[Pass, ...], halo_px: int) -> None:
    assert chain_halo(chain) == halo_px


@given(length=st.integers(1, 3000), tile_px=st.integers(1, 1000), halo_px=st.integers(0, 60))
def test_what_fits_into_a_window_is_not_cut(length: int, tile_px: int, halo_px: int) -> None:
    whole_px = tile_px + 2 * halo_px
    columns = cut(length, tile_px, halo_px, whole_px=whole_px)
    rows = next_rows(0, length, tile_px, halo_px, whole_px=whole_px)
    if length <= whole_px:
        assert columns == (Span(0, 0, length, length),)
        assert rows == columns[0]
    else:
        assert columns == cut(length, tile_px, halo_px)
        assert rows == next_rows(0, length, tile_px, halo_px)
    assert all(column.window <= whole_px for column in columns)
