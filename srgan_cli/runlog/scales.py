"""Arithmetic for charts: round numbers on axes, number formats, and reducing the points of lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Point: TypeAlias = tuple[float, float]

_SMOOTH_FRACTION = 0.04  # window of the running mean, as a fraction of the points
_MIN_SMOOTHED = 8  # with fewer points, no smoothing


def ticks(least: float, most: float, many: int) -> list[float]:
    """At most `many` + 1 round numbers (1, 2 or 5 times a power of ten apart) within [least, most]."""
    rough = (most - least) / max(many, 1)
    if not (math.isfinite(rough) and rough > 0):
        return [least]
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def log_ticks(least: float, most: float, many: int) -> list[float]:
    """Powers of ten within [least, most], with 2 and 5 between them (or only 3) if that gives at most `many`."""
    first, last = math.floor(math.log10(least)), math.ceil(math.log10(most))
    found: list[float] = []
    for within in ((1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**p for p in range(first, last + 1) for m in within if least <= m * 10.0**p <= most]
        if len(found) <= many:
            return found
    return found[:: math.ceil(len(found) / many)]


def tick_labels(values: Sequence[float], *, even: bool = True) -> list[str]:
    """Labels of one axis, with as many decimals as the finest number needs; formatted individually if uneven."""
    if not even or len(values) < 2:
        return [_trimmed(value) for value in values]
    apart = values[1] - values[0]
    decimals = max(0, -math.floor(math.log10(apart) + 1e-9))
    return [_grouped(f"{value + 0.0:.{min(decimals, 9)}f}") for value in values]


def number(value: float) -> str:
    """Three significant digits, four from ten on: `0.0312`, `28.91`, `12 400`, and 0 for negligible values."""
    if not math.isfinite(value):
        return "–"
    if abs(value) < 1e-9:
        return "0"
    size = math.floor(math.log10(abs(float(f"{value:.3e}"))))  # 99.996 is shown as 100.0
    if size < -4:
        return _trimmed(value)
    return _grouped(f"{value:.{max(3 - size if size > 0 else 2 - size, 0)}f}")


def _trimmed(value: float) -> str:
    if abs(value) >= 1e-4 or value == 0:
        return _grouped(f"{value:.6f}".rstrip("0").rstrip("."))
    digits, power = f"{value:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e\N{MINUS SIGN}{abs(int(power))}"


def _grouped(digits: str) -> str:
    """Thousands separated by narrow spaces from five digits on, and a true minus sign."""
    sign = "\N{MINUS SIGN}" if digits.startswith("-") and float(digits) != 0 else ""
    whole, dot, rest = digits.lstrip("-").partition(".")
    if len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{sign}{whole}{dot}{rest}"


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: the means of groups of neighbours, and the last point itself."""
    if len(points) <= most:
        return list(points)
    values = np.asarray(points[:-1], np.float64)
    edges = np.linspace(0, len(values), most).astype(int)  # most - 1 groups
    sums = np.add.reduceat(values, edges[:-1], axis=0) / np.diff(edges)[:, None]
    return [(float(x), float(y)) for x, y in sums] + [points[-1]]


def smoothed(points: Sequence[Point]) -> list[Point]:
    """The running mean over a window of `_SMOOTH_FRACTION` of the points, or of those available."""
    if len(points) < _MIN_SMOOTHED:
        return list(points)
    reach = max(int(len(points) * _SMOOTH_FRACTION / 2), 1)
    y = np.asarray([y for _, y in points], np.float64)
    total = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    # The window grows slowly at the beginning, where a loss falls so fast that a mean would hide it.
    first = index - np.minimum(reach, index)
    last = np.minimum(index + np.minimum(reach, index), len(y) - 1)
    mean = (total[last + 1] - total[first]) / (last + 1 - first)
    return [(x, float(value)) for (x, _), value in zip(points, mean, strict=True)]


def kept_apart(wanted: Sequence[float], apart: float, least: float, most: float) -> list[float]:
    """Positions close to the wanted ones, at least `apart` from each other, and within [least, most] if there is
    room."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    places = list(wanted)
    lowest = least
    for i in order:  # forwards …
        places[i] = lowest = max(places[i], lowest)
        lowest += apart
    ceiling = most
    for i in reversed(order):  # … and backwards from the end
        places[i] = ceiling = min(places[i], ceiling)
        ceiling -= apart
    return places
