"""The files that mutation starts from."""

from __future__ import annotations

import functools

from tests.fuzz.documents import documents
from tests.fuzz.seeds import Seed, pictures


@functools.cache
def all_seeds() -> tuple[Seed, ...]:
    """The files that this machine's codecs can write; the same in every run."""
    return tuple(seed for seed in (*pictures(), *documents()) if seed.data)
