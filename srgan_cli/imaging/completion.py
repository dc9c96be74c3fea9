"""Completing a truncated file for decoders that return nothing for truncated files.

Missing data is replaced by zeros: black rows, in JPEG 2000 empty packets (ISO/IEC 15444-1, B.10.3), elsewhere whatever
the decoder makes of them. Decoders of PNG and JPEG return the available part by themselves.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from srgan_cli.imaging import gif, jpeg2000
from srgan_cli.imaging.boxes import boxes
from srgan_cli.imaging.metadata.ifd import opened
from srgan_cli.imaging.sources import Source

_MAX_GROWTH = 16  # relative to the rest of the file: if less than that is left, there is no picture
_MAX_BOXES = 1000
_BLANK = rb"(?:[ \t\r\n]|#[^\r\n]*[\r\n])+"
_BITMAP = re.compile(rb"P4" + (_BLANK + rb"(\d{1,9})") * 2 + rb"[ \t\r\n]")
_PIXMAP = re.compile(rb"P[56]" + (_BLANK + rb"(\d{1,9})") * 3 + rb"[ \t\r\n]")


def completed(source: Source, format: str) -> Source | None:  # noqa: A002
    """The completed file in memory; None if it is not truncated, too little is left, or it is of another format."""
    complete = _FORMATS.get(format)
    data = None if complete is None else complete(source)
    if data is None:
        return None
    made = Source(data)
    made.name, made.suffix = source.name, source.suffix
    return made


def _as_long_as(source: Source, end: int | None) -> bytes | None:
    if end is None or not source.size < end <= _MAX_GROWTH * source.size:
        return None
    return source.read_all().ljust(end, b"\0")


def _bmp(source: Source) -> bytes | None:
    head = source.read_at(0, 54)
    if len(head) < 54:
        return None
    begin, (width, height, _, bits, packing) = (
        int.from_bytes(head[10:14], "little"),
        struct.unpack("<iiHHI", head[18:34]),
    )
    if packing in (1, 2) or head[14:18] == struct.pack("<I", 12):  # run lengths, and OS/2
        return None
    return _as_long_as(source, begin + (width * bits + 31) // 32 * 4 * abs(height))


def _ppm(source: Source) -> bytes | None:
    head = source.read_at(0, 4096)
    if found := _BITMAP.match(head):
        width, height = map(int, found.groups())
        return _as_long_as(source, found.end() + -(-width // 8) * height)
    if found := _PIXMAP.match(head):
        width, height, most = map(int, found.groups())
        samples = width * height * (3 if head[1:2] == b"6" else 1)
        return _as_long_as(source, found.end() + samples * (1 if most < 256 else 2))
    return None


def _webp(source: Source) -> bytes | None:
    size = int.from_bytes(source.read_at(4, 4), "little")
    return _as_long_as(source, 8 + size)


def _heif(source: Source) -> bytes | None:
    """By the size of its last box, which contains the coded pictures."""
    for box in boxes(source, _MAX_BOXES):
        end = box.at + box.size
        if end >= source.size:
            return _as_long_as(source, end)
    return None


def _jpeg2000(source: Source) -> bytes | None:
    found = jpeg2000.cut(source)
    if found is None:
        return None
    begin, end = found
    if begin == end:  # between two parts
        return source.read_at(0, end) + jpeg2000.END
    padded = _as_long_as(source, end)
    return None if padded is None else padded + jpeg2000.END


def _gif(source: Source) -> bytes | None:
    """The available blocks of the first frame, and an end."""
    blocks = gif.first_blocks(source)
    if blocks is None or blocks.is_ended:
        return None
    rest = source.read_at(blocks.end, 256)[1:]
    last = bytes([len(rest)]) + rest if rest else b""
    return source.read_at(0, blocks.end) + last + b"\0;"


def _tiff(source: Source) -> bytes | None:
    """By the end of its first page's strips or tiles. (Most writers put the table last; then nothing can be
    recovered.)"""
    found = opened(source.read_at, source.size)
    if found is None:
        return None
    structure, table = found
    places = ((table.find(273), table.find(279)), (table.find(324), table.find(325)))
    ends = [
        offset + count
        for offsets, counts in places
        for offset, count in zip(structure.numbers(offsets), structure.numbers(counts), strict=False)
    ]
    return _as_long_as(source, max(ends, default=None))


_FORMATS: dict[str, Callable[[Source], bytes | None]] = {
    "bmp": _bmp,
    "gif": _gif,
    "tiff": _tiff,
    "ppm": _ppm,
    "webp": _webp,
    "heic": _heif,
    "jp2": _jpeg2000,
}
