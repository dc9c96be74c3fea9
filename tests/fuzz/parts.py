"""The positions of a file's parts: chunks, segments, boxes, directory entries, members and objects."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import TypeAlias

Part: TypeAlias = tuple[int, int]  # begin and end
_MOST = 200
_INSIDE = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"iinf": 14, b"iref": 12, b"jp2h": 8}


def parts_of(data: bytes) -> list[Part]:
    """As far as the file's own lengths make sense."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _walk(data, 8, lambda at: 12 + u32(data, at, ">"))
    if data[:2] == b"\xff\xd8":
        return _walk(data, 2, lambda at: 2 + u16(data, at + 2, ">"))
    if data[:4] == b"RIFF":
        return _riff(data)
    if data[:3] == b"GIF":
        return _gif(data)
    if data[4:8] in (b"ftyp", b"jP  "):
        return _boxes(data, 0, len(data))
    if data[:4] == b"\xff\x4f\xff\x51":
        return _walk(data, 2, lambda at: 2 + u16(data, at + 2, ">"))
    if data[:2] in (b"II", b"MM"):
        return [part for table in tables_of(data) for part in table.entries] or [(0, 8)]
    if data[:2] == b"PK":
        return _members(data)
    if data[:5] == b"%PDF-":
        return _objects(data)
    return [(at, min(at + 8, len(data))) for at in range(0, min(len(data), _MOST), 8)]


def u16(data: bytes, at: int, order: str) -> int:
    return int(struct.unpack(order + "H", data[at : at + 2].ljust(2, b"\0"))[0])


def u32(data: bytes, at: int, order: str) -> int:
    return int(struct.unpack(order + "I", data[at : at + 4].ljust(4, b"\0"))[0])


def _walk(data: bytes, at: int, length: Callable[[int], int]) -> list[Part]:
    found: list[Part] = []
    while at + 4 <= len(data) and len(found) < _MOST:
        end = min(at + max(4, length(at)), len(data))
        found.append((at, end))
        at = end
    return found


def _riff(data: bytes) -> list[Part]:
    """Chunks, and of a frame of an animation those inside it, too."""
    chunks = _walk(data, 12, lambda at: 8 + u32(data, at + 4, "<") + u32(data, at + 4, "<") % 2)
    inner = [(begin + 24, end) for begin, end in chunks if data[begin : begin + 4] == b"ANMF" and end - begin > 24]
    return sorted(chunks + inner)


def _gif(data: bytes) -> list[Part]:
    """The head, colour tables, extensions and frames."""
    found: list[Part] = [(0, 13)]
    at = 13 + _table_bytes(data, 10)
    while at < len(data) and len(found) < _MOST:
        begin = at
        if data[at] == 0x2C:
            found.append((at, at + 10))
            at += 11 + _table_bytes(data, at + 9)
        else:
            at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        found.append((begin, min(at, len(data))))
    return found


def _table_bytes(data: bytes, at: int) -> int:
    flags = data[at] if at < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _boxes(data: bytes, at: int, end: int, depth: int = 0) -> list[Part]:
    found: list[Part] = []
    while at + 8 <= end and len(found) < _MOST:
        size, kind = u32(data, at, ">"), data[at + 4 : at + 8]
        stop = min(at + size, end) if size >= 8 else end
        found.append((at, stop))
        if kind in _INSIDE and depth < 4:
            found += _boxes(data, at + _INSIDE[kind], stop, depth + 1)
        if kind == b"jp2c":
            found += _walk(data, at + 10, lambda place: 2 + u16(data, place + 2, ">"))
        at = stop
    return found


class TiffTable:
    """One table of a TIFF: where it stands, its entries, and where it says what follows."""

    def __init__(self, at: int, entries: list[Part], link: Part) -> None:
        self.at, self.entries, self.link = at, entries, link


def tables_of(data: bytes) -> list[TiffTable]:
    order = "<" if data[:2] == b"II" else ">"
    big = u16(data, 2, order) == 43
    word, row, head = (8, 20, 8) if big else (4, 12, 2)
    code = order + ("Q" if big else "I")

    def offset(at: int) -> int:
        return int(struct.unpack(code, data[at : at + word].ljust(word, b"\0"))[0])

    found: list[TiffTable] = []
    at, seen = offset(8 if big else 4), set[int]()
    while 8 <= at < len(data) and at not in seen and len(found) < _MOST:
        seen.add(at)
        count = min(u16(data, at + (6 if big and order == ">" else 0), order), 60)
        entries = [(at + head + row * n, at + head + row * (n + 1)) for n in range(count)]
        link = at + head + row * count
        found.append(TiffTable(at, entries, (link, link + word)))
        at = offset(link)
    return found


def _members(data: bytes) -> list[Part]:
    """Local headers with their data, central headers, and what ends the directory."""
    starts = sorted(
        {found.start() for found in re.finditer(rb"PK(?:\x01\x02|\x03\x04|\x05\x06|\x06\x06|\x06\x07|\x07\x08)", data)}
    )
    return list(zip(starts, [*starts[1:], len(data)], strict=False))[:_MOST]


def _objects(data: bytes) -> list[Part]:
    """Objects, the insides of streams, tables of references, trailers."""
    found = [(one.start(), one.end()) for one in re.finditer(rb"\d+ \d+ obj\b.*?(endobj|stream\r?\n)", data, re.S)]
    found += [(one.start(1), one.end(1)) for one in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", data, re.S)]
    found += [(one.start(), one.end()) for one in re.finditer(rb"\bxref\b.*?trailer|trailer.*?%%EOF", data, re.S)]
    return sorted(found)[:_MOST] or [(0, len(data))]
