"""Putting metadata into PNG and JPEG files, byte for byte (for WebP, Pillow does it).

libvips would use libexif, which rewrites EXIF: maker notes break and unknown tags are lost. So libvips writes pixels
only, and the blocks are inserted here while the bytes stream through.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import BinaryIO

from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import iptc, jpeg, png

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_NEEDED = (b"IHDR", b"PLTE", b"tRNS")
_SEGMENT_BYTES = 65_533  # of a JPEG segment, without the two bytes of its length
_EXIF_START = b"Exif\0\0"
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"
_ICC_START = b"ICC_PROFILE\0"

Rewrite = Callable[[bytes], "bytes | None"]


class HeadRewriter:
    """Passes a byte stream to `target` with its head rewritten.

    `rewrite` receives all bytes so far. It returns None while it needs more, else the bytes to write instead.
    """

    def __init__(self, target: BinaryIO, rewrite: Rewrite | None) -> None:
        self._target = target
        self._rewrite = rewrite
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._rewrite is None:
            self._target.write(data)
            return
        self._head += data
        head = self._rewrite(self._head)
        if head is not None:
            self._target.write(head)
            self._rewrite = None
            self._head = b""


def png_head(metadata: Metadata) -> Rewrite:
    """Rewriting of a PNG file's chunks before its first IDAT."""

    def rewrite(head: bytes) -> bytes | None:
        at = len(_PNG_SIGNATURE)
        needed: dict[bytes, bytes] = {}
        while len(head) >= at + 8:
            size, kind = struct.unpack(">I4s", head[at : at + 8])
            if kind == b"IDAT":
                first = needed.pop(b"IHDR")
                return b"".join([_PNG_SIGNATURE, first, *_png_chunks(metadata), *needed.values(), head[at:]])
            end = at + 12 + size
            if kind in _PNG_NEEDED:
                needed[kind] = head[at:end]
            at = end
        return None

    return rewrite


def _png_chunks(metadata: Metadata) -> list[bytes]:
    colour = {kind.encode(): data for kind, data in metadata.colour}
    if metadata.icc:
        colour.pop(b"sRGB", None)  # a file has one of the two
    chunks = [png.chunk(b"cICP", colour.pop(b"cICP"))] if b"cICP" in colour else []
    if metadata.icc:
        chunks.append(png.chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    chunks += [png.chunk(kind, data) for kind, data in colour.items()]
    if metadata.dpi:
        across, down = (min(max(round(value / 0.0254), 1), 2**31 - 1) for value in metadata.dpi)
        chunks.append(png.chunk(b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        chunks.append(png.chunk(b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append(png.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    records = iptc.records(metadata.iptc) if metadata.iptc else None
    if records:
        chunks.append(png.chunk(*png.raw_profile("iptc", records)))
    chunks += [png.chunk(*png.text_chunk(key, value)) for key, value in metadata.text]
    return chunks


def jpeg_head(metadata: Metadata) -> tuple[Rewrite, tuple[str, ...]]:
    """Rewriting of a JPEG file's application segments, and notes on what does not fit into them."""
    segments, notes = _jpeg_segments(metadata)

    def rewrite(head: bytes) -> bytes | None:
        at = 2
        while len(head) >= at + 4:
            marker, size = struct.unpack(">HH", head[at : at + 4])
            if not (0xFFE0 <= marker <= 0xFFEF or marker == 0xFFFE):
                return b"\xff\xd8" + segments + head[at:]
            at += 2 + size
        return None

    return rewrite, notes


def _jpeg_segments(metadata: Metadata) -> tuple[bytes, tuple[str, ...]]:
    parts = [_jfif(metadata.dpi)]
    notes = []
    for title, start, block in (("EXIF", _EXIF_START, metadata.exif), ("XMP", _XMP_START, metadata.xmp)):
        if not block:
            continue
        if title == "XMP" and len(start) + len(block) > _SEGMENT_BYTES:
            parts += [_segment(0xE1, part) for part in jpeg.extended(block)]
            continue
        if len(start) + len(block) > _SEGMENT_BYTES:
            notes.append(f"the {title} metadata ({len(block)} bytes) is left out: JPEG has room for 64 KB of it")
            continue
        parts.append(_segment(0xE1, start + block))
    if metadata.icc:
        room = _SEGMENT_BYTES - len(_ICC_START) - 2
        chunks = [metadata.icc[at : at + room] for at in range(0, len(metadata.icc), room)]
        if len(chunks) > 255:
            notes.append("the ICC profile is left out: it is larger than a JPEG file can hold")
        else:
            parts += [
                _segment(0xE2, _ICC_START + bytes([index, len(chunks)]) + chunk)
                for index, chunk in enumerate(chunks, start=1)
            ]
    if metadata.iptc and len(metadata.iptc) <= _SEGMENT_BYTES:  # it came from a segment, so it fits into one
        parts.append(_segment(0xED, metadata.iptc))
    for comment in (text.encode() for key, text in metadata.text if key == jpeg.COMMENT):
        if len(comment) <= _SEGMENT_BYTES:
            parts.append(_segment(0xFE, comment))
        else:
            notes.append("a comment is left out: JPEG has room for 64 KB of it")
    return b"".join(parts), tuple(notes)


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _jfif(dpi: tuple[float, float] | None) -> bytes:
    """JFIF 1.02; without a resolution it only states that pixels are square."""
    unit, across, down = 0, 1, 1
    if dpi is not None and all(0.5 <= value < 65535 for value in dpi):
        unit, across, down = 1, round(dpi[0]), round(dpi[1])
    return _segment(0xE0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0102, unit, across, down, 0, 0))
