"""Where to cut: integers only.

A convolutional generator's output depends on a bounded neighbourhood of its input, its *halo*. A tile's window has that
much context around its core, and is clamped at the picture's true borders (so that the network sees its zero padding
only there). Then its core's pixels are exactly those of the whole picture, and there are no seams that would have to be
blended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Span:
    """One tile along one axis, in low-resolution px: core [start, stop), window with context [begin, end)."""

    begin: int
    start: int
    stop: int
    end: int

    @property
    def core(self) -> int:
        return self.stop - self.start

    @property
    def window(self) -> int:
        return self.end - self.begin

    @property
    def inner(self) -> slice:
        """The core's position inside the window."""
        return slice(self.start - self.begin, self.stop - self.begin)


def span(start: int, stop: int, length: int, halo_px: int) -> Span:
    """The core [start, stop) of an axis of `length` px, with the available context up to `halo_px`."""
    return Span(max(0, start - halo_px), start, stop, min(length, stop + halo_px))


def cut(length: int, tile_px: int, halo_px: int, *, uniform: bool = False, whole_px: int = 0) -> tuple[Span, ...]:
    """Cut an axis of `length` px into the fewest cores of at most `tile_px` px, as equal as integers allow.

    An axis of up to `whole_px` px is not cut: it needs no context, so it may use the whole window. `uniform` moves
    windows at the borders inwards until all have the same size, so that they can share a batch: extra context does not
    change the result.
    """
    if length < 1 or tile_px < 1 or halo_px < 0:
        raise ValueError(f"cannot cut {length} px into tiles of {tile_px} px with a halo of {halo_px} px")
    count = 1 if length <= whole_px else -(-length // tile_px)
    edges = [length * i // count for i in range(count + 1)]
    spans = [span(start, stop, length, halo_px) for start, stop in pairwise(edges)]
    if not uniform:
        return tuple(spans)
    window = max(s.window for s in spans)
    return tuple(_widened(s, window, length) for s in spans)


def _widened(s: Span, window: int, length: int) -> Span:
    begin = min(max(0, s.begin - (window - s.window) // 2), length - window)
    return Span(begin, s.start, s.stop, begin + window)


def next_rows(top: int, height: int, tile_px: int, halo_px: int, *, whole_px: int = 0) -> Span:
    """The band that starts at row `top`. The remaining rows are divided evenly, so that the last band is not thin.

    `whole_px` as for `cut`.
    """
    left = height - top
    bands = 1 if top == 0 and height <= whole_px else -(-left // tile_px)
    return span(top, top + -(-left // bands), height, halo_px)


@dataclass(frozen=True)
class Pass:
    """One network of a chain: its scale, and the context it needs in px of its own input."""

    scale: int
    halo_px: int


def chain_halo(passes: tuple[Pass, ...]) -> int:
    """Halo of networks run one after the other, in px of the first one's input."""
    halo, scale = 0, 1
    for one in passes:
        halo += -(-one.halo_px // scale)
        scale *= one.scale
    return halo


def choose_scales(available: tuple[int, ...], ratio: float) -> tuple[int, ...]:
    """Which networks to run, in order, to enlarge by at least `ratio`: the least surplus, then the fewest passes.

    The larger factor comes last: the second network works on an enlarged picture, so of chains with the same product,
    the one that starts with the smaller factor has less work. A ratio up to 2 % above a product is reached by the final
    resampling (sizes given in px seldom divide evenly).

    >>> choose_scales((2, 4), 8), choose_scales((4,), 3), choose_scales((2, 3, 4), 3)
    ((2, 4), (4,), (3,))
    """
    candidates: list[tuple[int, ...]] = []
    frontier: list[tuple[int, ...]] = [()]
    while frontier:
        chain = frontier.pop()
        if chain and math.prod(chain) * 1.02 >= ratio:
            candidates.append(chain)
            continue
        lowest = chain[-1] if chain else 0  # ascending chains only, so that every multiset occurs once
        frontier.extend((*chain, s) for s in available if s >= max(lowest, 2))
    if not candidates:
        raise ValueError(f"none of the scales {available} enlarges")
    return min(candidates, key=lambda chain: (math.prod(chain), len(chain), chain))
