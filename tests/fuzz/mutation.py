"""Mutation that knows the structure of a file: see `parts`."""

from __future__ import annotations

import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

from tests.fuzz.parts import parts_of, tables_of

_ODD = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 20)
_HEAD_BYTES = 40  # of a part, where lengths, sizes, counts and offsets stand


def mutated(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """One to four changes; `others` are sound files to splice with."""
    for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
        change = dice.choices(_CHANGES, _WEIGHTS)[0]
        data = change(data, others, dice)
        if not data:
            break
    return data


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
    at = min(begin + dice.randrange(0, max(1, min(_HEAD_BYTES, end - begin))), len(data) - 1)
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


def _special(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """What only this kind of file has; an odd number for all others."""
    if data[:2] == b"PK":
        return _member(data, others, dice)
    if data[:5] == b"%PDF-":
        return dice.choice((_word, _word, _stream))(data, others, dice)
    if data[:2] in (b"II", b"MM"):
        return _linked(data, dice)
    return _number(data, others, dice)


def _linked(data: bytes, dice: random.Random) -> bytes:
    """A TIFF whose chain of tables leads somewhere else: back, to itself, nowhere; or a field that holds a table."""
    tables = tables_of(data)
    if not tables:
        return data
    order = "little" if data[:2] == b"II" else "big"
    begin, end = dice.choice(tables).link
    if dice.random() < 0.3 and tables[0].entries:
        begin, end = dice.choice(tables[0].entries)
        begin = end - (8 if end - begin == 20 else 4)
    places = [table.at for table in tables]
    target = dice.choice([*places, 0, 4, len(data), len(data) - 2, dice.randrange(len(data))])
    return data[:begin] + target.to_bytes(end - begin, order) + data[end:]  # type: ignore[arg-type]


def _member(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """An archive with one member mutated in itself, renamed, doubled, or another file in its place; its sums right."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            members = [(info.filename, file.read(info)) for info in file.infolist()]
    except Exception:  # noqa: BLE001 - what was changed before
        members = []
    if not members:  # no archive any more, or one whose list of members was changed to be empty
        return _number(data, others, dice)
    place = dice.randrange(len(members))
    name, inside = members[place]
    what = dice.random()
    if what < 0.6:
        members[place] = name, mutated(inside, others, dice) if inside else b"?"
    elif what < 0.75:
        members[place] = name, dice.choice(others)
    elif what < 0.9:
        members[place] = dice.choice(_NAMES).replace("*", name), inside
    else:
        members.insert(place, (f"0{name}", inside))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
        for name, inside in dict(members).items():
            file.writestr(name or "?", inside)
    return stream.getvalue()


_NAMES = (
    "../*",
    "/*",
    "C:/*",
    "a/../*",
    "\\*",
    "*.exe",
    "*\n",
    "\x1b[31m*",
    "a" * 300 + "*",
    "\u202e*",
    "CON.png",
    "*/",
    "-o.png",
)


def _word(data: bytes, _others: Sequence[bytes], dice: random.Random) -> bytes:
    """A PDF with another number or another name in one of its places."""
    if dice.random() < 0.5:
        found, new = (
            list(re.finditer(rb"(?<=[ \n\[])-?\d+(?=[ \n\]/>])", data)),
            str(dice.choice((*_ODD, -1, 3, 7))).encode(),
        )
    else:
        found, new = list(re.finditer(rb"/[A-Za-z0-9]+", data)), dice.choice(_PDF_NAMES)
    if not found:
        return data
    one = dice.choice(found)
    return data[: one.start()] + new + data[one.end() :]


_PDF_NAMES = (
    *b"/FlateDecode /DCTDecode /LZWDecode /ASCIIHexDecode /ASCII85Decode /RunLengthDecode /JPXDecode".split(),
    *b"/DeviceGray /DeviceRGB /DeviceCMYK /Indexed /Image /Width /Height /Length /Filter /SMask /Encrypt".split(),
    *b"[] null <<>> true () 9.5 -1".split(),
    b"1 0 R",
    b"99 0 R",
    b"[1 0 R 1 0 R]",
    b"/Prev 9",
    b"[/FlateDecode /FlateDecode /DCTDecode]",
)


def _stream(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """A PDF with one of its streams mutated, or unpacked, mutated, and packed again."""
    found = list(re.finditer(rb"(?<=stream\n)(.*?)(?=\nendstream)", data, re.S))
    if not found:
        return data
    one = dice.choice(found)
    inside = one.group()
    try:
        new = zlib.compress(mutated(zlib.decompress(inside), others, dice))
    except zlib.error:
        new = mutated(inside, others, dice) if inside else b"?"
    return data[: one.start()] + new + data[one.end() :]


def _checked(data: bytes) -> bytes:
    """With the checksums of a PNG set right, so that what is changed is looked at and not refused for its sum."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return data
    result = bytearray(data)
    for begin, end in parts_of(data):
        if end - begin >= 12:
            result[end - 4 : end] = struct.pack(">I", zlib.crc32(bytes(result[begin + 4 : end - 4])))
    return bytes(result)


_CHANGES = (_bits, _number, _cut, _without, _twice, _swapped, _run, _spliced, _special)
_WEIGHTS = (20, 35, 12, 8, 8, 5, 12, 10, 35)
