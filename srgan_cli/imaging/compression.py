"""How strongly a JPEG or WebP file was compressed, from the tables in its header; no pixel is decoded.

JPEG: ITU-T T.81 annex B (markers), annex K.1 (the tables that libjpeg scales by its quality). WebP: the RIFF container
specification, and RFC 6386 sections 7 (boolean decoder), 9.1 to 9.6 and 19.2 (frame header). Standard library only.

The input may be hostile: lengths are checked against the file, and loops are bounded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from srgan_cli.imaging.sources import Source

# Real files have tens of segments or chunks; a million empty ones must not take a second.
_MAX_PIECES = 2000


def codec_quality(source: Source, format: str) -> tuple[str | None, int | None]:  # noqa: A002
    """The lossy codec of a file of `format` (a key of `FORMATS`), and its quality from 1 to 100.

    `("JPEG", q)`: the quality at which libjpeg's luminance table is as coarse (within 1 for libjpeg's own files).
    `("WebP", q)`: the quality at which libwebp's quantiser is as coarse. `(None, None)`: lossless WebP and JPEG, and
    all other formats. The quality is None if the header is damaged or does not contain it. Raises
    `UnreadablePictureError` if the file cannot be read.
    """
    if format == "jpeg":
        return _jpeg(source)
    if format == "webp":
        return _webp(source)
    return None, None


# JPEG

# T.81 table K.1, luminance, row by row. libjpeg calls this quality 50.
_ANNEX_K = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_DQT, _SOS, _EOI = 0xDB, 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOSSLESS_FRAMES = {0xC3, 0xC7, 0xCB, 0xCF}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn, SOI
_GAP_BYTES = 1 << 16


def _jpeg(source: Source) -> tuple[str | None, int | None]:
    tables: dict[int, tuple[int, ...]] = {}
    chosen: int | None = None
    for marker, data in _segments(source):
        if marker == _DQT:
            tables.update(_quantisers(data))
        elif marker in _LOSSLESS_FRAMES:
            return None, None
        elif marker in _FRAMES and len(data) >= 9:  # precision, height, width, count; then id, sampling, table
            chosen = data[8]
    table = tables.get(chosen) if chosen is not None else None
    return "JPEG", None if table is None else _ijg_quality(table)


def _segments(source: Source) -> Iterator[tuple[int, bytes]]:
    """Marker and data of the main picture's tables and frame header, up to its first scan (T.81 B.1.1).

    Thumbnails are inside APPn segments, which are skipped; the further pictures of an MPF file follow the scan.
    """
    place = 2
    for _ in range(_MAX_PIECES):
        head = source.read_at(place, 4)
        if len(head) < 4:
            return
        if head[0] != 0xFF or head[1] in (0x00, 0xFF):  # fill bytes, or invalid bytes
            following = source.read_at(place + 1, _GAP_BYTES).find(0xFF)
            if following < 0:
                return
            place += 1 + following
        elif head[1] in _WITHOUT_LENGTH:
            place += 2
        elif head[1] in (_SOS, _EOI):
            return
        else:
            length = int.from_bytes(head[2:], "big")
            if head[1] == _DQT or head[1] in _FRAMES:
                yield head[1], source.read_at(place + 4, length - 2)
            place += 2 + max(length, 2)


def _quantisers(data: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Number and 64 values, in zigzag order, of each complete table in a DQT segment (T.81 B.2.4.1)."""
    place = 0
    while place < len(data):
        wide, number = data[place] >> 4, data[place] & 15
        end = place + 1 + (128 if wide else 64)
        if wide > 1 or end > len(data):
            return
        yield number, struct.unpack(">64H" if wide else ">64B", data[place + 1 : end])
        place = end


def _ijg_quality(table: Sequence[int]) -> int:
    """The libjpeg quality whose table is as coarse, by the mean over the frequencies of value ÷ annex K's value.

    A plain mean of the values would be dominated by the highest frequencies, which affect size more than appearance.
    """
    wanted = _coarseness(table, _in_zigzag())
    wide = max(table) > 255
    return min(range(1, 101), key=lambda quality: abs(_ijg_coarseness(quality, wide) - wanted))


def quality_of_steps(steps: Mapping[tuple[int, int], float]) -> int:
    """The libjpeg quality (1 to 100) whose luminance steps are closest to those at some frequencies (row, column)."""

    def misfit(quality: int) -> float:
        table = _ijg_table(quality)
        return sum(abs(math.log(step / table[8 * row + column])) for (row, column), step in steps.items())

    return min(range(1, 101), key=misfit)


def _ijg_table(quality: int, most: int = 255) -> list[int]:
    """libjpeg's luminance table, row by row (`jpeg_quality_scaling`, `jpeg_add_quant_table`)."""
    per_cent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return [min(max((base * per_cent + 50) // 100, 1), most) for base in _ANNEX_K]


def _coarseness(table: Sequence[int], bases: Sequence[int]) -> float:
    """The mean of value ÷ base; both in the same order."""
    return sum(value / base for value, base in zip(table, bases, strict=True)) / 64


@cache
def _ijg_coarseness(quality: int, wide: bool) -> float:
    """Coarseness of the table that libjpeg's `jpeg_set_quality` makes; `wide`: without `force_baseline`."""
    return _coarseness(_ijg_table(quality, 32767 if wide else 255), _ANNEX_K)


@cache
def _in_zigzag() -> tuple[int, ...]:
    """Annex K's table in file order (T.81 figure A.6): by diagonals, upwards on even ones."""
    places = [(row, column) for row in range(8) for column in range(8)]
    places.sort(key=lambda at: (sum(at), at[0] if sum(at) % 2 else at[1]))
    return tuple(_ANNEX_K[8 * row + column] for row, column in places)


# WebP

_FRAME_HEADER_BYTES = 1024  # the fields up to the quantiser take far fewer than a hundred bytes
_HALF = 128


def _webp(source: Source) -> tuple[str | None, int | None]:
    found = _first_frame(source)
    if found is None:
        return "WebP", None
    kind, place = found
    if kind == b"VP8L":
        return None, None
    quantiser = _vp8_quantiser(source.read_at(place, _FRAME_HEADER_BYTES))
    return "WebP", None if quantiser is None else _libwebp_quality(quantiser)


def _first_frame(source: Source) -> tuple[bytes, int] | None:
    """`VP8 ` or `VP8L` of the (first) frame, and the offset of its data; None if there is none."""
    place = 12
    for _ in range(_MAX_PIECES):
        head = source.read_at(place, 8)
        if len(head) < 8:
            return None
        kind, size = head[:4], int.from_bytes(head[4:], "little")
        place += 8
        if kind in (b"VP8 ", b"VP8L"):
            return kind, place
        # A frame of an animation has chunks of its own after a header of 16 bytes. All other chunks are skipped.
        place += 16 if kind == b"ANMF" else size + size % 2
    return None


def _vp8_quantiser(frame: bytes) -> float | None:
    """The mean quantiser index (0 finest … 127) of a key frame's macroblocks; None if it is damaged (RFC 6386 9).

    libwebp gives up to four segments quantisers of their own. Each is weighted by its probability in the tree of
    segment probabilities.
    """
    if len(frame) < 12 or frame[0] & 1 or frame[3:6] != b"\x9d\x01\x2a":
        return None
    bits = _BooleanDecoder(frame[10:])
    bits.number(2)  # colour space, clamping
    own, absolute, fractions = _segmentation(bits)
    bits.number(1 + 6 + 3)  # loop filter: type, level, sharpness
    if bits.flag() and bits.flag():  # loop filter deltas, and their updates
        for _ in range(8):
            bits.optional(6)
    bits.number(2)  # partitions
    base = bits.number(7)
    quantisers = [min(max(value if absolute else base + value, 0), 127) for value in own]
    mean = sum(value * fraction for value, fraction in zip(quantisers, fractions, strict=True))
    return None if bits.overrun else mean


def _segmentation(bits: _BooleanDecoder) -> tuple[list[int], bool, list[float]]:
    """RFC 6386 9.3: the four segments' quantisers, whether they replace the frame's (or add to it), their fractions."""
    own, absolute = [0] * 4, False
    if not bits.flag():
        return own, absolute, [1.0, 0.0, 0.0, 0.0]
    new_map, new_values = bits.flag(), bits.flag()
    if new_values:
        absolute = bits.flag()
        own = [bits.optional(7) for _ in range(4)]
        for _ in range(4):
            bits.optional(6)  # loop filter levels
    if not new_map:  # a key frame without a map: all macroblocks are in the first segment
        return own, absolute, [1.0, 0.0, 0.0, 0.0]
    low, first, third = ((bits.number(8) if bits.flag() else 255) / 256 for _ in range(3))
    fractions = [low * first, low * (1 - first), (1 - low) * third, (1 - low) * (1 - third)]
    return own, absolute, fractions


def _libwebp_quality(quantiser: float) -> int:
    """The quality (1 to 100) at which libwebp uses `quantiser` on average; within 3 of the quality that it was given.

    The inverse of libwebp's own rule (`QualityToCompression`): the index falls with the cube root of a compression
    factor, which is 2/3 of the quality up to 0.75, and 2 × quality − 1 above. Measured with libwebp 1.5 at methods 0
    and 4.
    """
    linear = (1 - quantiser / 127) ** 3
    quality = 1.5 * linear if linear < 0.5 else (1 + linear) / 2
    return min(max(round(100 * quality), 1), 100)


class _BooleanDecoder:
    """RFC 6386 section 7.3. Past its end it reads zeros, and `overrun` is true."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._value = int.from_bytes(data[:2], "big")
        self._place = 2
        self._range = 255
        self._shifted = 0

    @property
    def overrun(self) -> bool:
        # Two bytes are read ahead of what is decoded.
        return self._place > len(self._data) + 2

    def flag(self) -> bool:
        split = 1 + (((self._range - 1) * _HALF) >> 8)
        one = self._value >= split << 8
        if one:
            self._range -= split
            self._value -= split << 8
        else:
            self._range = split
        while self._range < 128:
            self._value <<= 1
            self._range <<= 1
            self._shifted += 1
            if self._shifted == 8:
                self._shifted = 0
                self._value |= self._data[self._place] if self._place < len(self._data) else 0
                self._place += 1
        return one

    def number(self, bits: int) -> int:
        value = 0
        for _ in range(bits):
            value = 2 * value + self.flag()
        return value

    def optional(self, bits: int) -> int:
        """A flag, followed by a magnitude and a sign if it is set; else 0."""
        if not self.flag():
            return 0
        value = self.number(bits)
        return -value if self.flag() else value
