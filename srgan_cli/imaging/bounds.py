"""Whether a file can hold the picture that its header promises: time and memory follow the bytes that are there.

A header is a few bytes; what decoders set aside for it may be gigabytes. Each codec has a largest ratio, though:
deflate makes at most 1032 bytes of one (zlib's own figure), and a Huffman code has at least one bit a symbol. A file
that is smaller than even that is cut short, whatever else it is, and no decoder need be asked.
"""

from __future__ import annotations

import struct

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.metadata.ifd import Structure
from srgan_cli.imaging.sources import Source

_DEFLATE = 1032
_GIF_PX = 2731  # a code of at least 9 bits stands for at most 4096 px; 12 bits once the table is that full
_JPEG_PX = 512  # a block of 64 px takes at least one bit
_RLE_PX = 128  # two bytes for a run of up to 255 px
# Of codecs whose flat pictures take next to nothing. What is decoded whole is let pass up to this many px.
_FLAT_PX, _FREE_PX = 3000, 128_000_000
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def check_png(source: Source) -> None:
    """By its IHDR. Raises `UnreadablePictureError`, as all of these do."""
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
        if width * height > _FREE_PX // 8:  # its frames may be far smaller than its canvas
            _refuse_bomb(source, width, height, _GIF_PX)


def check_jpeg(source: Source, width: int, height: int) -> None:
    _need(source, width, height, 0 if _is_arithmetic(source) else width * height // _JPEG_PX)


def check_bmp(source: Source) -> tuple[int, int] | None:
    """Also width and height in px; None where the header is too short."""
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


def check_tiff(source: Source, width: int, height: int) -> None:
    """By the compression of the first table."""
    try:
        structure = Structure(source.read_at, source.size)
    except ValueError:
        return
    table = structure.table(structure.first)
    if table is None:
        return
    bits = max(structure.numbers(table.find(258)), default=1) * (structure.number(table, 277) or 1)
    method = structure.number(table, 259) or 1
    if structure.number(table, 262) == 6 and method != 7:
        bits = _subsampled_bits(structure.numbers(table.find(530)), bits)
    ratio = {1: 1, 5: _GIF_PX, 8: _DEFLATE, 32773: 64, 32946: _DEFLATE}.get(method)
    if method == 7:
        _need(source, width, height, width * height // _JPEG_PX)
    elif ratio is not None:
        _need(source, width, height, width * height * bits // 8 // ratio)


def _subsampled_bits(subsampling: tuple[int, ...], bits: int) -> int:
    """Of a px of YCbCr whose colours stand for several px (TIFF 6.0 section 21: 2 by 2 where nothing is said)."""
    across, down = subsampling[:2] if len(subsampling) > 1 else (2, 2)
    return bits if across * down <= 1 else (bits + 2 * bits // (across * down)) // 3


def check_whole(source: Source, width: int, height: int) -> None:
    """For decoders that hold the whole picture, of codecs without a largest ratio."""
    if width * height > _FREE_PX:
        _refuse_bomb(source, width, height, _FLAT_PX)


def _need(source: Source, width: int, height: int, least: int) -> None:
    if source.size < least:
        raise UnreadablePictureError(
            f"{source.name} is damaged or incomplete: its header says {width}x{height} px, which take at least "
            f"{least} bytes, and it has {source.size}"
        )


def _refuse_bomb(source: Source, width: int, height: int, max_px: int) -> None:
    if width * height > max_px * source.size + 1_000_000:
        raise UnreadablePictureError(
            f"{source.name} says that it is {width}x{height} px and has only {source.size} bytes: an empty picture, or "
            "a file made to exhaust this machine. Crop it, or save it as PNG, if you do need it"
        )


def _is_arithmetic(source: Source) -> bool:
    """Whether a JPEG's first frame header is of arithmetic coding, whose symbols may take next to nothing."""
    at = 2
    for _ in range(2000):
        head = source.read_at(at, 4)
        if len(head) < 4 or head[0] != 0xFF:
            return False
        if 0xC0 <= head[1] <= 0xCF and head[1] not in (0xC4, 0xC8, 0xCC):
            return head[1] >= 0xC9
        at += 2 + int.from_bytes(head[2:], "big")
    return False
