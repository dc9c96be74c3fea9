"""The frames of a GIF (GIF89a specification, sections 17 to 26), each as a GIF of its own."""

from __future__ import annotations

import struct
from functools import partial

from srgan_cli.documents.reel import Blocks, Disposal, Frame, Reel
from srgan_cli.imaging.sources import Source

_DISPOSALS: dict[int, Disposal] = {2: "clear", 3: "restore"}
_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def read_reel(source: Source, most: int) -> Reel:
    """Up to `most` frames. Raises `ValueError` if it is not a GIF."""
    blocks = Blocks(source)
    head = blocks.read(0, 13)
    if len(head) < 13 or head[:3] != b"GIF":
        raise ValueError("no GIF")
    width, height = struct.unpack("<HH", head[6:10])
    table = blocks.read(13, _table_bytes(head[10]))
    at, plays, control, frames = 13 + len(table), 1, b"\0\0\0\0", list[Frame]()
    first_is_clear = False
    while len(frames) < most:
        kind = blocks.read(at, 2)
        if kind[:1] == b"!":
            if kind[1:] == b"\xf9":
                control = blocks.read(at + 3, 4).ljust(4, b"\0")
            elif kind[1:] == b"\xff" and blocks.read(at + 3, 11) in _LOOPS and blocks.read(at + 15, 1) == b"\1":
                again = blocks.number(at + 16, "<H")
                plays = again + 1 if again else 0
            at = _behind_blocks(blocks, at + 2)
        elif kind[:1] == b",":
            place = blocks.read(at, 10)
            if len(place) < 10:
                break
            data_at = at + 10 + _table_bytes(place[9])
            end = _behind_blocks(blocks, data_at + 1)
            frames.append(_frame(source, head, table, control, place, (at, end)))
            first_is_clear = first_is_clear or (len(frames) == 1 and bool(control[0] & 1))
            at, control = end, b"\0\0\0\0"
        else:
            break
    return Reel(width, height, 3, 8, plays, tuple(frames)).with_alpha(first_is_clear)


def _table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_blocks(blocks: Blocks, at: int) -> int:
    while (size := blocks.read(at, 1)) not in (b"", b"\0"):
        at += 1 + size[0]
    return at + 1


def _frame(source: Source, head: bytes, table: bytes, control: bytes, place: bytes, at: tuple[int, int]) -> Frame:
    left, top, width, height = struct.unpack("<4H", place[1:9])
    delay = int.from_bytes(control[1:3], "little") * 10
    disposal = _DISPOSALS.get(control[0] >> 2 & 7, "keep")
    picture = partial(_picture, source, head, table, control, place, at)
    return Frame(left, top, width, height, delay, True, disposal, picture)


def _picture(source: Source, head: bytes, table: bytes, control: bytes, place: bytes, at: tuple[int, int]) -> bytes:
    begin, end = at
    size = place[5:9]
    clear = b"!\xf9\4" + bytes([control[0] & 1, 0, 0, control[3]]) + b"\0"
    body = place[:1] + bytes(4) + place[5:] + source.read_at(begin + 10, end - begin - 10)
    return b"GIF89a" + size + head[10:13] + table + clear + body + b";"
