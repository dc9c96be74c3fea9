"""TIFF files made tag by tag, of kinds that no library writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
OFFSETS, SAMPLES, ROWS, COUNTS, PLANAR = 273, 277, 278, 279, 284
SUBSAMPLING, EXTRA = 530, 338


def tiff(*arguments: Any, order: str = "<", **options: Any) -> bytes:
    """A file of one strip: one `page`."""
    return pages([page(*arguments, **options)], order=order)


def page(
    width: int,
    height: int,
    bits: Sequence[int],
    photometric: int,
    data: bytes,
    *,
    compression: int = 1,
    more: Mapping[int, tuple[int, Sequence[int]]] | None = None,
) -> tuple[dict[int, tuple[int, Sequence[int]]], bytes]:
    """Of one strip. `more`: tag -> (type, values), which also replaces what is made here."""
    tags: dict[int, tuple[int, Sequence[int]]] = {
        WIDTH: (4, [width]),
        HEIGHT: (4, [height]),
        BITS: (3, list(bits)),
        COMPRESSION: (3, [compression]),
        PHOTOMETRIC: (3, [photometric]),
        OFFSETS: (4, [0]),
        SAMPLES: (3, [len(bits)]),
        ROWS: (4, [height]),
        COUNTS: (4, [len(data)]),
    }
    return {**tags, **(more or {})}, data


def pages(
    parts: Sequence[tuple[dict[int, tuple[int, Sequence[int]]], bytes]], *, order: str = "<", sub: int = 0
) -> bytes:
    """A chain of pages; the last `sub` of them are SubIFDs (tag 330) of the first instead."""
    out = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))
    places = []
    for tags, data in parts:
        at = len(out)
        out += data + b"\0" * (len(data) % 2)
        tags = dict(tags)
        if len(tags.get(OFFSETS, (4, ()))[1]) == 1:
            tags[OFFSETS] = (4, [at])
        elif OFFSETS in tags:  # several strips or planes, told by their lengths
            starts = np.cumsum([0, *tags[COUNTS][1][:-1]])
            tags[OFFSETS] = (4, [at + int(start) for start in starts])
        places.append(tags)
    tables: list[int] = []
    if sub:
        places[0][330] = (4, [0] * sub)
    links: list[int] = []
    for index, tags in enumerate(places):
        if sub and index == 0:
            continue
        tables.append(len(out))
        links.append(_table(out, tags, order))
    if sub:
        places[0][330] = (4, tables[len(tables) - sub :])
        first = len(out)
        links.insert(0, _table(out, places[0], order))
        tables.insert(0, first)
    chain = tables[: len(tables) - sub]
    struct.pack_into(order + "I", out, 4, chain[0])
    for link, following in zip(links, chain[1:], strict=False):
        struct.pack_into(order + "I", out, link, following)
    return bytes(out)


def _table(out: bytearray, tags: Mapping[int, tuple[int, Sequence[int]]], order: str) -> int:
    """Append an IFD; where its link to the next one stands."""
    codes = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 12: "d"}
    rows = b""
    at = len(out) + 2 + 12 * len(tags) + 4
    tail = b""
    for tag in sorted(tags):
        kind, values = tags[tag]
        data = struct.pack(f"{order}{len(values)}{codes[kind]}", *values)
        count = len(values) // 2 if kind == 5 else len(values)
        if len(data) > 4:
            rows += struct.pack(order + "HHII", tag, kind, count, at + len(tail))
            tail += data + b"\0" * (len(data) % 2)
        else:
            rows += struct.pack(order + "HHI", tag, kind, count) + data.ljust(4, b"\0")
    out += struct.pack(order + "H", len(tags)) + rows
    link = len(out)
    out += bytes(4) + tail
    return link


def gradient(height: int, width: int, channels: int, top: int = 255) -> Any:
    rows, columns = np.mgrid[0:height, 0:width]
    bands = [rows / height, columns / width, (rows + columns) / (height + width), columns / width]
    return np.stack([band * top for band in bands[:channels]], -1).round().astype(np.uint16 if top > 255 else np.uint8)
