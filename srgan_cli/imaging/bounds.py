"""Whether a file can contain the picture that its header promises, so that time and memory are bounded by the file's
size.

A header of a few bytes can make decoders allocate gigabytes. But most codecs have a maximum ratio: deflate makes at
most 1032 bytes of one (zlib's own figure), and a Huffman code has at least one bit per symbol. A file that is smaller
than that allows is truncated, and no decoder need be called. The codecs of WebP, AVIF, HEIC and JPEG 2000 have no
maximum ratio; for them the ratio of flat pictures is used.
"""

from __future__ import annotations

import struct

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.sources import Source

_DEFLATE = 1032
_GIF_PX = 2731  # a code of at least 9 bits represents at most 4096 px; 12 bits once the table is that full
_JPEG_PX = 512  # a block of 64 px takes at least one bit
_RLE_PX = 128  # two bytes for a run of up to 255 px
_ZSTD = 32_768  # a block of four bytes repeats one byte up to 128 KiB (RFC 8878, section 3.1.1.2)
_FAX_ROWS = 8  # a row like the one above it takes one bit (ITU-T T.6)
# For codecs without a maximum ratio, px per byte: flat pictures of 36 MP written by libwebp, OpenJPEG and libaom have
# 17,000 to 26,000 (`Image.new("RGB", (6000, 6000))` in 1,400 to 2,100 bytes), in HEIC 1,600. Above this many px, where
# flat pictures are rare and cost a gigabyte, a tenth of that.
_FLAT_PX, _LARGE, _LARGE_PX = 40_000, 48_000_000, 3000
_SPARE_PX = 1_000_000
_GIF_FREE_PX = 16_000_000
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def check_png(source: Source) -> None:
    """Check by IHDR. Raises `UnreadablePictureError`, like all functions here."""
    head = source.read_at(0, 33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        return
    width, height, depth, colour = struct.unpack(">IIBB", head[16:26])
    row = -(-width * depth * _PNG_CHANNELS.get(colour, 1) // 8) + 1
    _need(source, width, height, row * height // _DEFLATE)


def check_gif(source: Source) -> None:
    head = source.read_at(0, 13)
    if len(head) == 13:
        width, height = struct.unpack("<HH", head[6:10])
        if width * height > _GIF_FREE_PX:  # its frames may be far smaller than its canvas
            _refuse_bomb(source, width, height, _GIF_PX)


def check_jpeg(source: Source, width: int, height: int) -> None:
    if _is_arithmetic(source):  # its symbols may take almost nothing
        check_whole(source, width, height)
    else:
        _need(source, width, height, width * height // _JPEG_PX)


def check_bmp(source: Source) -> tuple[int, int] | None:
    """Check, and return width and height in px; None if the header is too short."""
    head = source.read_at(0, 54)
    if len(head) >= 26 and head[14:18] == struct.pack("<I", 12):
        width, height, _, bits = struct.unpack("<HHHH", head[18:26])
        packing = 0
    elif len(head) >= 34:
        width, height, _, bits, packing = struct.unpack("<iiHHI", head[18:34])
    else:
        return None
    height = abs(height)
    if width < 1 or height < 1:
        raise UnreadablePictureError(f"{source.name} is damaged or incomplete: its header says {width}x{height} px")
    if packing in (1, 2):
        _refuse_bomb(source, width, height, 8 * _RLE_PX)  # rows may be left out
    else:
        _need(source, width, height, (width * bits + 31) // 32 * 4 * height)
    return width, height


def check_ppm(source: Source, width: int, height: int) -> None:
    """Check by its kind (PBM, PGM, PPM; text and binary); a 16-bit sample is counted as one of 8."""
    samples = width * height * (3 if source.read_at(1, 1) in b"36" else 1)
    _need(source, width, height, -(-width // 8) * height if source.read_at(1, 1) == b"4" else samples)


def check_tiff(source: Source, width: int, height: int, bits: int, method: int) -> None:
    """`bits` per px as stored, all channels together; `method` is the tag Compression."""
    ratio = {1: 1, 5: _GIF_PX, 8: _DEFLATE, 32773: 64, 32946: _DEFLATE, 34925: _FLAT_PX, 50000: _ZSTD}.get(method)
    if method == 7:
        _need(source, width, height, width * height // _JPEG_PX)
    elif method in (2, 3, 4):
        _need(source, width, height, height // _FAX_ROWS)
    elif ratio is not None:
        _need(source, width, height, width * height * bits // 8 // ratio)
    else:
        check_whole(source, width, height)


def check_whole(source: Source, width: int, height: int) -> None:
    """For codecs without a maximum ratio, most of whose decoders hold the whole picture."""
    _refuse_bomb(source, width, height, _FLAT_PX if width * height <= _LARGE else _LARGE_PX)


def _need(source: Source, width: int, height: int, least: int) -> None:
    if source.size < least:
        raise UnreadablePictureError(
            f"{source.name} is damaged or incomplete: its header says {width}x{height} px, which take at least "
            f"{least} bytes, and it has {source.size}"
        )


def _refuse_bomb(source: Source, width: int, height: int, max_px: int) -> None:
    if width * height > max_px * source.size + _SPARE_PX:
        raise UnreadablePictureError(
            f"{source.name} says that it is {width}x{height} px but has only {source.size} bytes: an empty picture, or "
            "a file made to exhaust this machine. Crop it, or save it as PNG, if you need it"
        )


def _is_arithmetic(source: Source) -> bool:
    """Whether a JPEG's first frame header specifies arithmetic coding."""
    at = 2
    for _ in range(2000):
        filled = source.read_at(at, 80)
        head = filled[max(0, len(filled) - len(filled.lstrip(b"\xff")) - 1) :]  # after fill bytes
        at += len(filled) - len(head)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if 0xC0 <= head[1] <= 0xCF and head[1] not in (0xC4, 0xC8, 0xCC):
            return head[1] >= 0xC9
        at += 2 + int.from_bytes(head[2:4], "big")
    return False
