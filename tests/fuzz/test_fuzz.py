"""A small part of the fuzzing, which tests the harness itself; run thousands with `python -m tests.fuzz`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.fuzz.corpus import all_seeds
from tests.fuzz.mutation import mutated
from tests.fuzz.parts import parts_of, tables_of
from tests.fuzz.running import Case, Checker, case, checker


@pytest.fixture(scope="module")
def checks() -> Iterator[Checker]:
    with checker() as made:
        yield made


def test_there_are_seeds_of_every_format() -> None:
    formats = {seed.suffix for seed in all_seeds()}
    extras = {".heic", ".pdf"}  # of packages that need not be here
    assert formats - extras == {".png", ".jpg", ".webp", ".gif", ".bmp", ".tif", ".avif", ".jp2", ".cbz", ".zip"}
    assert len(all_seeds()) > 140


def test_a_case_is_the_same_again() -> None:
    assert case(1, 2) == case(1, 2)
    assert case(1, 2) != case(2, 2)


def test_parts_cover_files_of_chunks() -> None:
    for seed in all_seeds():
        parts = parts_of(seed.data)
        assert all(0 <= begin <= end <= len(seed.data) for begin, end in parts)
        assert parts
        if seed.suffix in (".png", ".cbz", ".zip"):
            assert parts[-1][1] == len(seed.data)
            assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))


def test_parts_are_found_where_they_are() -> None:
    """By what stands at their begin."""
    starts = {".pdf": b" 0 obj", ".gif": b",\0\0\0\0", ".jp2": b"\xff\x93", ".heic": b"ftyp", ".jpg": b"\xff\xda"}
    for seed in all_seeds():
        if seed.suffix in starts:
            heads = [seed.data[begin : begin + 12] for begin, _ in parts_of(seed.data)]
            assert any(starts[seed.suffix] in head for head in heads), seed.name


def test_a_chain_of_tables_is_followed() -> None:
    chains = {seed.name: len(tables_of(seed.data)) for seed in all_seeds() if seed.suffix == ".tif"}
    assert chains["pages raw"] == 5
    assert chains["pages of a BigTIFF"] == 3
    assert chains["pages by hand >"] == 3


def test_mutation_changes_most_files() -> None:
    seeds = all_seeds()
    changed = [mutated(seed.data, [seeds[0].data], random.Random(n)) != seed.data for n, seed in enumerate(seeds)]
    assert sum(changed) > 0.9 * len(changed)


@pytest.mark.parametrize(
    "start", [pytest.param(start, marks=[pytest.mark.slow] if start % 3 else []) for start in range(9)]
)
def test_sound_files_are_made(start: int, checks: Checker) -> None:
    seeds = all_seeds()[start::18]
    assert checks.check([Case(seed.name, seed.suffix, seed.data) for seed in seeds]) == []


@pytest.mark.parametrize("start", range(0, 60, 15))
def test_hostile_files_do_no_harm(start: int, checks: Checker) -> None:
    found = checks.check([case(0, number) for number in range(start, start + 15)])
    assert found == [], f"files {start} to {start + 14} of seed 0"
