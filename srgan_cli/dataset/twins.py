"""Matching low and high pictures by their names: one rule for training and evaluation.

A low picture has the high one's name, in any format, possibly with a suffix added by data sets and programs: `0801x4`
(DIV2K), `0801_x4`, `img_LR`, `img_bicLRx4` (MATLAB's scripts), `img_001_SRF_4_LR` beside `img_001_SRF_4_HR`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")


def _high_tail(scale: int) -> re.Pattern[str]:
    return re.compile(rf"[-_](?:SRF[-_]{scale}[-_])?(?:HR|GT|high)$", re.IGNORECASE)


def _low_tail(scale: int) -> re.Pattern[str]:
    """`x4`, optionally after `bic`, `LR` or `LRBI`; or `LR` alone, or `SRF_4_LR`."""
    size = rf"[-_]?(?:bic)?(?:LR)?(?:BI)?[-_]?x{scale}(?:[-_]?LR)?"
    return re.compile(rf"(?:{size}|[-_](?:SRF[-_]{scale}[-_])?(?:LR|low))$", re.IGNORECASE)


class Twins(Generic[_T]):
    """Low pictures by name (path in their folder, without suffix). `scale` is how much smaller they are."""

    def __init__(self, lows: Iterable[tuple[str, _T]], scale: int) -> None:
        self._exact: dict[str, list[_T]] = {}
        self._by_core: dict[str, list[_T]] = {}
        self._high_tail = _high_tail(scale)
        tail = _low_tail(scale)
        for name, low in lows:
            self._exact.setdefault(name, []).append(low)
            core = tail.sub("", name)
            if core != name and not core.endswith("/") and core:
                self._by_core.setdefault(core, []).append(low)

    def of(self, high: str, itself: _T | None = None) -> list[_T]:
        """The low pictures of a high one: with the same name, or else with its name minus the size suffix. `itself`,
        the high one, is none of them, if both are in one folder."""
        core = self._high_tail.sub("", high)
        exact, by_core = self._exact, self._by_core
        groups = exact.get(high, []), by_core.get(high, []), by_core.get(core, []), exact.get(core, [])
        others = ([low for low in group if low != itself] for group in groups)
        return next(filter(None, others), [])
