"""A small share of the fuzzing, so that the harness itself is held; the thousands run by `python -m tests.fuzz`."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from tests.fuzz.mutation import mutated, parts_of
from tests.fuzz.running import Case, Checker, case, checker
from tests.fuzz.seeds import Seed, all_seeds


@pytest.fixture(scope="module")
def checks() -> Iterator[Checker]:
    with checker() as made:
        yield made


def test_there_are_seeds_of_every_format() -> None:
    formats = {seed.suffix for seed in all_seeds()}
    assert formats == {".png", ".jpg", ".webp", ".gif", ".bmp", ".tif", ".avif"}
    assert len(all_seeds()) > 90


def test_a_case_is_the_same_again() -> None:
    assert case(1, 2) == case(1, 2)
    assert case(1, 2) != case(2, 2)


def test_parts_cover_files_of_chunks() -> None:
    for seed in all_seeds():
        if seed.suffix in (".png", ".webp"):
            parts = parts_of(seed.data)
            assert parts[-1][1] == len(seed.data)
            assert all(before[1] == after[0] for before, after in itertools.pairwise(parts))


def test_mutation_changes_most_files() -> None:
    seeds = all_seeds()
    changed = [mutated(seed.data, [seeds[0].data], random.Random(n)) != seed.data for n, seed in enumerate(seeds)]
    assert sum(changed) > 0.9 * len(changed)


@pytest.mark.parametrize("seed", all_seeds()[::9], ids=lambda seed: seed.name)
def test_sound_files_are_made(seed: Seed, checks: Checker) -> None:
    assert checks.check(Case(seed.name, seed.suffix, seed.data)) == []


@pytest.mark.parametrize("start", range(0, 40, 10))
def test_hostile_files_do_no_harm(start: int, checks: Checker) -> None:
    for number in range(start, start + 10):
        assert checks.check(case(0, number)) == [], f"file {number} of seed 0"
