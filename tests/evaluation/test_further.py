"""Metrics by name."""

from __future__ import annotations

import numpy as np

from srgan_cli.evaluation import further
from srgan_cli.evaluation.evaluate import Metric


def test_networks_see_the_middle_of_what_is_too_large_for_them() -> None:
    seen: list[tuple[int, ...]] = []

    def measure(result: np.ndarray, original: np.ndarray) -> float:
        seen.append(original.shape)
        return float(original[0, 0, 0])

    picture = np.zeros((1100, 60, 3), np.uint8)
    picture[38, 0] = 7
    metric = further._of_the_middle(Metric("key", measure))
    assert metric.key == "key"
    assert metric.measure(picture, picture) == 7.0
    assert seen == [(1024, 60, 3)]
