"""The boxes that HEIC, AVIF and JPEG 2000 files are made of (ISO/IEC 14496-12, 4.2; ISO/IEC 15444-1, I.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from srgan_cli.imaging.sources import Source


class OuterBox(NamedTuple):
    """`at`: its offset; `size`: its bytes including `header`, 0 if it extends to the end; not checked."""

    kind: bytes
    at: int
    size: int
    header: int


def boxes(source: Source, most: int) -> Iterator[OuterBox]:
    """The outermost boxes, at most `most`, until one without a size."""
    at = 0
    for _ in range(most):
        head = source.read_at(at, 16)
        if len(head) < 8:
            return
        size, header = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(head[8:16], "big"), 16
        yield OuterBox(head[4:8], at, size, header)
        if size < header:
            return
        at += size
