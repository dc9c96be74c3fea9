"""The frames of an animated PNG (PNG specification, third edition, sections 11.3.6 and 13.3), each as a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import partial

from srgan_cli.imaging.documents.reel import Blocks, Disposal, Frame, Reel
from srgan_cli.imaging.sources import Source

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"PLTE", b"tRNS")
_DISPOSALS: tuple[Disposal, ...] = ("keep", "clear", "restore")
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_MAX_CHUNKS = 1_000_000


def read_reel(source: Source, most: int) -> Reel:
    """Up to `most` frames. Raises `ValueError` for what is no animated PNG."""
    blocks = Blocks(source)
    head = blocks.read(16, 13)
    if len(head) < 13 or blocks.read(0, 8) != _SIGNATURE:
        raise ValueError("no PNG")
    width, height, depth, colour = struct.unpack(">IIBB", head[:10])
    needed: list[bytes] = []
    plays, control, parts, frames = 0, b"", list[tuple[int, int]](), list[Frame]()

    def end_frame() -> None:
        if control and parts:
            frames.append(_frame(source, head, b"".join(needed), control, tuple(parts), first=not frames))

    at, has_pixels = 8, False
    for _ in range(_MAX_CHUNKS):
        if len(frames) >= most or len(start := blocks.read(at, 8)) < 8 or start[4:] == b"IEND":
            break
        size, kind = int.from_bytes(start[:4], "big"), start[4:]
        if kind == b"acTL":
            plays = blocks.number(at + 12, ">I")
        elif kind == b"fcTL" and size == 26:
            end_frame()
            control, parts = blocks.read(at + 8, 26), []
        elif kind == b"IDAT" or kind == b"fdAT":
            parts.append((at + 8, size) if kind == b"IDAT" else (at + 12, size - 4))
            has_pixels = True
        elif kind in _NEEDED and not has_pixels:
            needed.append(_chunk(kind, source.read_at(at + 8, size)))
        at += 12 + size
    end_frame()
    alpha = colour in (4, 6) or any(one[4:8] == b"tRNS" for one in needed)
    channels = _CHANNELS.get(colour, 3)
    opaque = Reel(width, height, channels, 16 if depth == 16 else 8, plays, tuple(frames[:most]))
    holes = any(one.disposal == "clear" for one in frames) or (bool(frames) and not opaque.covers(frames[0]))
    if (alpha or holes) and channels in (1, 3):
        return Reel(width, height, channels + 1, opaque.depth, plays, opaque.frames)
    return opaque


def _frame(
    source: Source, head: bytes, needed: bytes, control: bytes, parts: Sequence[tuple[int, int]], *, first: bool
) -> Frame:
    width, height, left, top, delay, unit, disposal, blend = struct.unpack(">4xIIIIHHBB", control)
    kept: Disposal = _DISPOSALS[disposal] if disposal < len(_DISPOSALS) else "keep"
    if first and kept == "restore":
        kept = "clear"
    picture = partial(_picture, source, head, needed, width, height, parts)
    return Frame(left, top, width, height, round(1000 * delay / (unit or 100)), blend == 1, kept, picture)


def _picture(
    source: Source, head: bytes, needed: bytes, width: int, height: int, parts: Sequence[tuple[int, int]]
) -> bytes:
    pixels = b"".join(_chunk(b"IDAT", source.read_at(at, size)) for at, size in parts)
    header = _chunk(b"IHDR", struct.pack(">II", width, height) + head[8:])
    return _SIGNATURE + header + needed + pixels + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
