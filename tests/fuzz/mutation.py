"""Mutation that knows the structure of a file: its chunks, segments, boxes and directory entries, and their lengths."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

Part: TypeAlias = tuple[int, int]  # begin, end of a chunk, a segment, a box, a directory entry
_ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 20)


def mutated(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """One to four changes; `others` are sound files to splice with."""
    for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
        change = dice.choices(_CHANGES, _WEIGHTS)[0]
        data = change(data, others, dice)
        if not data:
            break
    return data


def parts_of(data: bytes) -> list[Part]:
    """Where the parts of a file stand, as far as its lengths make sense."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _walk(data, 8, lambda at: 12 + _u32(data, at, ">"))
    if data[:2] == b"\xff\xd8":
        return _walk(data, 2, lambda at: 2 + _u16(data, at + 2, ">"))
    if data[:4] == b"RIFF":
        return _walk(data, 12, lambda at: 8 + _u32(data, at + 4, "<") + _u32(data, at + 4, "<") % 2)
    if data[4:8] == b"ftyp":
        return _boxes(data, 0, len(data))
    if data[:2] in (b"II", b"MM"):
        return _entries(data)
    return [(at, at + 8) for at in range(0, min(len(data), 200), 8)]


def _u16(data: bytes, at: int, order: str) -> int:
    return int(struct.unpack(order + "H", data[at : at + 2].ljust(2, b"\0"))[0])


def _u32(data: bytes, at: int, order: str) -> int:
    return int(struct.unpack(order + "I", data[at : at + 4].ljust(4, b"\0"))[0])


def _walk(data: bytes, at: int, length: Callable[[int], int]) -> list[Part]:
    found: list[Part] = []
    while at + 4 <= len(data) and len(found) < 200:
        end = min(at + max(4, length(at)), len(data))
        found.append((at, end))
        at = end
    return found


def _boxes(data: bytes, at: int, end: int, depth: int = 0) -> list[Part]:
    found: list[Part] = []
    while at + 8 <= end and len(found) < 200:
        size = _u32(data, at, ">")
        stop = min(at + size, end) if size >= 8 else end
        found.append((at, stop))
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8, b"iinf": 14, b"iref": 12}.get(data[at + 4 : at + 8])
        if inside and depth < 4:
            found += _boxes(data, at + inside, stop, depth + 1)
        at = stop
    return found


def _entries(data: bytes) -> list[Part]:
    order = "<" if data[:2] == b"II" else ">"
    found: list[Part] = []
    at, seen = _u32(data, 4, order), set()
    while 8 <= at < len(data) and at not in seen and len(found) < 200:
        seen.add(at)
        count = min(_u16(data, at, order), 60)
        found += [(at + 2 + 12 * n, at + 14 + 12 * n) for n in range(count)]
        at = _u32(data, at + 2 + 12 * count, order)
    return found or [(0, 8)]


# ------------------------------------------------------------------------------------------------------------- changes


def _bits(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    result = bytearray(data)
    for _ in range(dice.choice((1, 1, 3, 20))):
        result[dice.randrange(len(result))] ^= 1 << dice.randrange(8)
    return bytes(result)


def _number(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    """An odd number somewhere in the head of a part: most often a length, a size, a count or an offset."""
    begin, end = dice.choice(parts_of(data) or [(0, len(data))])
    width = dice.choice((1, 2, 4, 4))
    at = min(begin + dice.randrange(0, max(1, min(24, end - begin))), len(data) - 1)
    value = dice.choice(_ODD) & ((1 << 8 * width) - 1)
    packed = value.to_bytes(width, dice.choice(("little", "big")))
    return _checked(data[:at] + packed + data[at + width :])


def _cut(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    if dice.random() < 0.5:
        return data[: dice.randrange(1, len(data) + 1)]
    begin, _ = dice.choice(parts_of(data) or [(1, 1)])
    return data[: max(1, begin + dice.randrange(-2, 6))]


def _without(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    begin, end = dice.choice(parts_of(data) or [(0, 1)])
    return data[:begin] + data[end:]


def _twice(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    begin, end = dice.choice(parts_of(data) or [(0, 1)])
    return data[:end] + data[begin:end] * dice.choice((1, 1, 3, 300 if end - begin < 100 else 2)) + data[end:]


def _swapped(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    parts = parts_of(data)
    if len(parts) < 2:
        return data
    (a, b), (c, d) = sorted(dice.sample(parts, 2))
    return data if b > c else data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _run(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    """A run of one byte, or of noise, over a part or between two."""
    begin, end = dice.choice(parts_of(data) or [(0, len(data))])
    count = dice.choice((1, 4, 16, end - begin, 2000))
    fill = dice.choice((b"\0" * count, b"\xff" * count, dice.randbytes(count)))
    at = dice.randrange(begin, max(begin + 1, end))
    return data[:at] + fill + data[at if dice.random() < 0.5 else at + count :]


def _spliced(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    other = dice.choice(others)
    begin, end = dice.choice(parts_of(other) or [(0, len(other))])
    at, _ = dice.choice(parts_of(data) or [(0, 0)])
    return _checked(data[:at] + other[begin:end] + data[at:]) if dice.random() < 0.7 else data[:at] + other[begin:]


def _checked(data: bytes) -> bytes:
    """With the checksums of a PNG set right, so that what is changed is looked at and not refused for its sum."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    result = bytearray(data)
    for begin, end in parts_of(data):
        if end - begin >= 12:
            result[end - 4 : end] = struct.pack(">I", zlib.crc32(bytes(result[begin + 4 : end - 4])))
    return bytes(result)


_CHANGES = (_bits, _number, _cut, _without, _twice, _swapped, _run, _spliced)
_WEIGHTS = (20, 35, 12, 8, 8, 5, 12, 10)
