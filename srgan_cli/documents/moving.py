"""Writing animations frame by frame, from pictures made by the encoders of still formats."""

from __future__ import annotations

import io
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, ClassVar

from srgan_cli.config import WriteOptions
from srgan_cli.documents.binding import Notes, Page
from srgan_cli.documents.document import Timing
from srgan_cli.errors import UnwritablePictureError
from srgan_cli.imaging.changes import Box, changed_box, whole
from srgan_cli.imaging.encoding import encode, final_pixels
from srgan_cli.imaging.gif_writing import GIF_NOTE, GifWriter
from srgan_cli.imaging.image import Metadata, Pixels
from srgan_cli.imaging.metadata.png import chunk
from srgan_cli.imaging.output import Output

_RIFF_BYTES = 2**32 - 10
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class _Frames:
    """Shared by the binders of animations: the previous frame, and the duration of each.

    Each frame depends on earlier ones, so there is no `state` to resume from.
    """

    state: ClassVar[dict[str, Any]] = {}

    def __init__(self, file: BinaryIO, options: WriteOptions, timing: Timing, numbers: tuple[int, ...]) -> None:
        self._file, self._options, self._timing, self._numbers = file, options, timing, numbers
        self._done = 0
        self._before: Pixels | None = None

    def _next_delay(self) -> int:
        delay = self._timing.delays_ms[self._numbers[self._done] - 1]
        self._done += 1
        return delay

    @property
    def pages(self) -> int:
        return self._done

    def _final(self, page: Page, *, even: bool = False) -> tuple[Pixels, Box, Metadata, Notes]:
        """All pixels of the frame as written, the box of changed ones, and the metadata."""
        pixels, metadata, notes = final_pixels(page.pixels, page.output, page.metadata, self._options)
        box = changed_box(pixels, self._before, even=even)
        self._before = pixels
        return pixels, box, metadata, notes

    def _still(self, pixels: Pixels, output: Output, metadata: Metadata) -> tuple[bytes, Notes]:
        stream = io.BytesIO()
        own = replace(output, width=pixels.shape[1], height=pixels.shape[0])
        notes = encode(pixels, stream, own, metadata, self._options)
        return stream.getvalue(), notes


class MovingBinder(_Frames, ABC):
    """The binder of an animation."""

    @abstractmethod
    def add(self, page: Page) -> Notes: ...

    @abstractmethod
    def finish(self) -> Notes: ...

    def abandon(self) -> None:
        """Nothing to release."""


class WebpBinder(MovingBinder):
    """RFC 9649. Metadata precedes the frames, so nothing has to be appended at the end."""

    def add(self, page: Page) -> Notes:
        pixels, box, metadata, notes = self._final(page, even=True)
        if self._done == 0:
            self._file.seek(0)
            self._file.write(self._head(page.output, metadata, alpha=pixels.shape[2] == 4))
        data, still_notes = self._still(box.of(pixels), page.output, Metadata())
        frame = b"".join(_riff(kind, part) for kind, part in _chunks(data) if kind in (b"ALPH", b"VP8 ", b"VP8L"))
        numbers = (box.left // 2, box.top // 2, box.width - 1, box.height - 1, min(self._next_delay(), 2**24 - 1))
        place = b"".join(number.to_bytes(3, "little") for number in numbers) + b"\2"  # in place of the placeholder
        self._file.seek(0, 2)
        self._file.write(_riff(b"ANMF", place + frame))
        return notes + still_notes

    def finish(self) -> Notes:
        size = self._file.seek(0, 2)
        if size > _RIFF_BYTES:
            raise UnwritablePictureError("the animation is larger than the 4 GB that a WebP file can have; write PNG")
        self._file.seek(4)
        self._file.write((size - 8).to_bytes(4, "little"))
        return ()

    def _head(self, output: Output, metadata: Metadata, *, alpha: bool) -> bytes:
        flags = 2 | 0x10 * alpha | 0x20 * bool(metadata.icc) | 8 * bool(metadata.exif) | 4 * bool(metadata.xmp)
        sides = b"".join((side - 1).to_bytes(3, "little") for side in (output.width, output.height))
        parts = [_riff(b"VP8X", bytes([flags, 0, 0, 0]) + sides)]
        parts += [_riff(b"ICCP", metadata.icc)] if metadata.icc else []
        parts.append(_riff(b"ANIM", struct.pack("<IH", 0, min(self._timing.plays, 65535))))
        parts += [_riff(b"EXIF", metadata.exif)] if metadata.exif else []
        parts += [_riff(b"XMP ", metadata.xmp)] if metadata.xmp else []
        return b"RIFF\0\0\0\0WEBP" + b"".join(parts)


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(4, "little") + data + b"\0" * (len(data) % 2)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


class ApngBinder(MovingBinder):
    """PNG specification, third edition, section 4.9. All frames have the pixel format of the first one."""

    def add(self, page: Page) -> Notes:
        first = self._done == 0
        pixels, box, metadata, notes = self._final(page)
        delay = self._next_delay()
        sequence = 0 if first else 2 * self._done - 3
        if first:
            data, still_notes = self._still(pixels, page.output, metadata)
            self._file.seek(0)
            self._file.write(self._head(data) + _control(sequence, whole(pixels), delay) + _png_pixels(data))
        else:
            data, still_notes = self._still(box.of(pixels), page.output, Metadata())
            body = b"".join(part for kind, part in _png_chunks(data) if kind == b"IDAT")
            self._file.seek(0, 2)
            self._file.write(_control(sequence, box, delay))
            self._file.write(chunk(b"fdAT", struct.pack(">I", sequence + 1) + body))
        return notes + still_notes

    def finish(self) -> Notes:
        self._file.seek(0, 2)
        self._file.write(chunk(b"IEND", b""))
        return ()

    def _head(self, data: bytes) -> bytes:
        chunks = [(kind, part) for kind, part in _png_chunks(data) if kind not in (b"IDAT", b"IEND")]
        size, *others = [chunk(kind, part) for kind, part in chunks]
        count = chunk(b"acTL", struct.pack(">II", len(self._numbers), self._timing.plays))
        return _SIGNATURE + size + count + b"".join(others)


def _control(sequence: int, box: Box, delay_ms: int) -> bytes:
    delay = (delay_ms, 1000) if delay_ms < 65536 else (min(delay_ms // 1000, 65535), 1)
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, box.width, box.height, box.left, box.top, *delay, 0, 0))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _png_pixels(data: bytes) -> bytes:
    return b"".join(chunk(kind, part) for kind, part in _png_chunks(data) if kind == b"IDAT")


class GifBinder(MovingBinder):
    """GIF89a. A frame is written once the next one shows how it is to be disposed of."""

    _writer: GifWriter | None = None

    def add(self, page: Page) -> Notes:
        pixels, _, notes = final_pixels(page.pixels, page.output, page.metadata, self._options)
        if self._writer is None:
            height, width = pixels.shape[:2]
            plays = self._timing.plays
            self._writer = GifWriter(self._file, width, height, plays)
        self._writer.add(pixels, self._next_delay())
        return (*notes, GIF_NOTE)

    def finish(self) -> Notes:
        assert self._writer is not None
        self._writer.finish()
        return ()
