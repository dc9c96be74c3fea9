"""Checks whether a JPEG 2000 file contains all tiles of its picture. OpenJPEG silently decodes missing ones as flat
areas.

ISO/IEC 15444-1 (ITU-T T.800): A.5.1 for the size of the picture and of its tiles, A.4.2 for tile-parts, I.4 for the
boxes of a .jp2 file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.boxes import boxes
from srgan_cli.imaging.sources import Source
from srgan_cli.wording import are, counted

END = b"\xff\xd9"
_SIZ, _SOT = b"\xff\x51", b"\xff\x90"
_PART_BYTES = 14  # minimum size of a tile-part: two markers, and the fields of the first
_MAX_TILES = 65_535
_MAX_BOXES = 1000


@dataclass(frozen=True)
class _Part:
    """A tile-part: its offset, its tile's index, and its bytes; 0: all that is left."""

    at: int
    tile: int
    length: int


def lost(source: Source) -> str:
    """The missing tiles; empty if none are. Any other fault is left to the decoder.

    Raises `UnreadablePictureError` if the file is too small for the tiles that it announces.
    """
    start = _codestream(source)
    head = b"" if start is None else source.read_at(start, 42)
    if start is None or len(head) < 42 or head[2:4] != _SIZ:
        return ""
    right, bottom, _, _, wide, high, left, top = struct.unpack(">8I", head[8:40])
    if not wide or not high or right <= left or bottom <= top:
        return ""
    count = -(-(right - left) // wide) * -(-(bottom - top) // high)
    if count > _MAX_TILES or count * _PART_BYTES > source.size:
        raise UnreadablePictureError(
            f"{source.name} is damaged or incomplete: its {counted(count, 'tile')} must take at least "
            f"{count * _PART_BYTES} bytes, and it has {source.size}"
        )
    found = {part.tile for part in _parts(source, start) if part.tile < count}
    missing = count - len(found)
    if not missing:
        return ""
    return f"{missing} of its {count} tiles {are(missing)} missing" if count > 1 else "its only tile is missing"


def cut(source: Source) -> tuple[int, int] | None:
    """The offset where the last complete tile-part ends, and where the truncated one would end; None if nothing is
    truncated, or the header is."""
    start = _codestream(source)
    if start is None:
        return None
    end = None
    for part in _parts(source, start):
        end = part.at + part.length
        if part.length < _PART_BYTES:
            end = source.size - len(END) * (source.read_at(source.size - 2, 2) == END)
        if end > source.size:
            return part.at, end
    return None if end is None or source.read_at(end, 2) == END else (end, end)


def _codestream(source: Source) -> int | None:
    """Its offset: the start of a bare codestream, or the box "jp2c"."""
    if source.read_at(0, 4) == b"\xff\x4f" + _SIZ:
        return 0
    for box in boxes(source, _MAX_BOXES):
        if box.kind == b"jp2c":
            return box.at + box.header
    return None


def _parts(source: Source, start: int) -> Iterator[_Part]:
    """Tile-parts in file order."""
    at = start + 2
    while True:
        head = source.read_at(at, 12)
        if len(head) < 4 or head[:1] != b"\xff" or head[:2] == END:
            return
        if head[:2] != _SOT:
            at += 2 + int.from_bytes(head[2:4], "big")  # of the main header
            continue
        if len(head) < 12:
            return
        number, length = struct.unpack(">HI", head[4:10])
        yield _Part(at, number, length)
        if length < _PART_BYTES:
            return
        at += length
