"""Numbers in sentences: times, sizes, parts and counts, rounded so that no unit is shown past its end ("60.0 s")."""

from __future__ import annotations

import math


def duration(seconds: float) -> str:
    """`7.2 s`, `3 min 05 s`, `2 h 07 min`."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def about(seconds: float) -> str:
    """An estimate: `about 7 s`, `about 3 min 05 s`."""
    return f"about {seconds:.0f} s" if round(seconds) < 60 else f"about {duration(round(seconds))}"


def clock(seconds: float) -> str:
    """`0:07`, `28:05`, `2:07:00`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def megapixels(count: float) -> str:
    """Two digits at least: `14.8 MP`, `0.078 MP`."""
    millions = count / 1e6
    two_digits = f"{max(millions, 1e-4):.2g}"
    return f"{millions:.1f} MP" if not millions or float(two_digits) >= 1 else f"{two_digits} MP"


def size(count: float) -> str:
    """Of a file or of memory, three digits at most: `812 MB`, `1.2 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if float(f"{count:.3g}") < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{float(f'{count:.3g}'):,.10g} TB"


def percent_done(fraction: float) -> str:
    """How much of some work is done: `99%` until all of it is."""
    return f"{math.floor(100 * fraction + 1e-9)}%"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 picture`, `3 pictures`. `plural`: for nouns without a plain s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def are(number: int) -> str:
    """The verb after a count."""
    return "is" if number == 1 else "are"


def none_of(number: int, noun: str, able: str) -> str:
    """`none of the 3 pictures can be read`, `the only picture cannot be read`; `able`: `be read`."""
    return f"the only {noun} cannot {able}" if number == 1 else f"none of the {number} {noun}s can {able}"
