"""The frames of an animated PNG (PNG specification, third edition, sections 11.3.6 and 13.3), each as a PNG."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from srgan_cli.documents.reel import Blocks, Disposal, Frame, Reel
from srgan_cli.imaging.metadata.png import chunk, chunks
from srgan_cli.imaging.sources import Source

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_NEEDED = (b"PLTE", b"tRNS")
_DISPOSALS: tuple[Disposal, ...] = ("keep", "clear", "restore")
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_MAX_CHUNKS = 1_000_000


def read_reel(source: Source, most: int) -> Reel:
    """Up to `most` frames. Raises `ValueError` if it is not an animated PNG."""
    blocks = Blocks(source)
    head = blocks.read(16, 13)
    if len(head) < 13 or blocks.read(0, 8) != _SIGNATURE:
        raise ValueError("no PNG")
    found = _Found(source, head)
    for kind, at, size in chunks(blocks.read, _MAX_CHUNKS):
        if len(found.frames) >= most:
            break
        found.take(kind, blocks, at, size)
    found.end_frame()
    width, height, depth, colour = struct.unpack(">IIBB", head[:10])
    channels = _CHANNELS.get(colour, 3)
    reel = Reel(width, height, channels, 16 if depth == 16 else 8, found.plays, tuple(found.frames[:most]))
    has_alpha = colour in (4, 6)
    return reel if has_alpha else reel.with_alpha(any(needed[4:8] == b"tRNS" for needed in found.needed))


@dataclass
class _Found:
    """What has been read so far: complete frames, the chunks that each needs, and control and data of the current
    frame."""

    source: Source
    head: bytes
    plays: int = 0
    frames: list[Frame] = field(default_factory=list)
    needed: list[bytes] = field(default_factory=list)
    control: bytes = b""
    parts: list[tuple[int, int]] = field(default_factory=list)
    has_pixels: bool = False

    def take(self, kind: bytes, blocks: Blocks, at: int, size: int) -> None:
        if kind == b"acTL":
            self.plays = blocks.number(at + 4, ">I")
        elif kind == b"fcTL" and size == 26:
            self.end_frame()
            self.control, self.parts = blocks.read(at, 26), []
        elif kind in (b"IDAT", b"fdAT"):
            skipped = 0 if kind == b"IDAT" else 4  # its sequence number
            self.parts.append((at + skipped, size - skipped))
            self.has_pixels = True
        elif kind in _NEEDED and not self.has_pixels:
            self.needed.append(chunk(kind, self.source.read_at(at, size)))

    def end_frame(self) -> None:
        if self.control and self.parts:
            needed = b"".join(self.needed)
            self.frames.append(
                _frame(self.source, self.head, needed, self.control, tuple(self.parts), first=not self.frames)
            )


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
    pixels = b"".join(chunk(b"IDAT", source.read_at(at, size)) for at, size in parts)
    header = chunk(b"IHDR", struct.pack(">II", width, height) + head[8:])
    return _SIGNATURE + header + needed + pixels + chunk(b"IEND", b"")
