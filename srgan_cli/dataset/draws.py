"""Random numbers without a state: what is drawn follows from the seed, the purpose and a number."""

from __future__ import annotations

import numpy as np


def generator(seed: int, stream: int, number: int) -> np.random.Generator:
    """Random numbers that these alone decide. Philox counts, so that any place in its sequence is reached at once."""
    key = np.array([seed & 0xFFFF_FFFF_FFFF_FFFF, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, number, 0]))
