"""The frames of an animated WebP (RFC 9649, section 2.7), each as a WebP of its own."""

from __future__ import annotations

from functools import partial

from srgan_cli.documents.reel import Blocks, Frame, Reel
from srgan_cli.imaging.sources import Source

_ALPHA = 0x10


def read_reel(source: Source, most: int) -> Reel:
    """Up to `most` frames. Raises `ValueError` if it is not an animated WebP."""
    blocks = Blocks(source)
    if blocks.read(8, 8) != b"WEBPVP8X":
        raise ValueError("no animated WebP")
    alpha = bool(blocks.number(20, "B") & _ALPHA)
    width, height = _three(blocks, 24) + 1, _three(blocks, 27) + 1
    at, plays, frames = 12, 1, list[Frame]()
    while len(frames) < most and len(head := blocks.read(at, 8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] == b"ANIM":
            plays = blocks.number(at + 12, "<H")
        elif head[:4] == b"ANMF":
            frames.append(_frame(source, blocks, at + 8, size))
        at += 8 + size + size % 2
    return Reel(width, height, 3, 8, plays, tuple(frames)).with_alpha(alpha)


def _three(blocks: Blocks, at: int) -> int:
    return int.from_bytes(blocks.read(at, 3), "little")


def _frame(source: Source, blocks: Blocks, at: int, size: int) -> Frame:
    left, top, width, height, delay = (_three(blocks, at + 3 * index) for index in range(5))
    flags = blocks.number(at + 15, "B")
    picture = partial(_picture, source, at + 16, size - 16)
    disposal = "clear" if flags & 1 else "keep"
    return Frame(2 * left, 2 * top, width + 1, height + 1, delay, not flags & 2, disposal, picture)  # type: ignore[arg-type]


def _picture(source: Source, at: int, size: int) -> bytes:
    data = source.read_at(at, size)
    if data[:4] == b"ALPH":
        # If transparency is separate from the colours, a header (VP8X) is needed; its size is that of the VP8 frame.
        alpha_end = 8 + int.from_bytes(data[4:8], "little")
        start = alpha_end + alpha_end % 2 + 8  # of the frame: 3 bytes, a start code, and its size
        width, height = (int.from_bytes(data[start + place : start + place + 2], "little") & 0x3FFF for place in (6, 8))
        extended = bytes([_ALPHA, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        data = b"VP8X" + len(extended).to_bytes(4, "little") + extended + data
    return b"RIFF" + (4 + len(data)).to_bytes(4, "little") + b"WEBP" + data
