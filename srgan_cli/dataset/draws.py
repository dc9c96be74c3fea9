"""Random numbers without state: they depend only on the seed, the purpose and a number."""

from __future__ import annotations

import numpy as np


def generator(seed: int, stream: int, number: int) -> np.random.Generator:
    """A random generator that is determined by these arguments alone. Philox is counter-based, so any position in its
    sequence is reached at once."""
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, number, 0]))
