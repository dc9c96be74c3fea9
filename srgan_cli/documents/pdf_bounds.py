"""What the streams of a PDF may unpack to: a picture to what its size takes, all else to no more than a fixed size.

qpdf unpacks into memory, and a few kilobytes may become gigabytes. It has limits of its own for most of its filters;
LZW has none, so that what it would become is counted here.
"""

from __future__ import annotations

import zlib
from typing import Any

from srgan_cli.documents.pdf_objects import colours, filters, library, size_of
from srgan_cli.errors import UnreadablePictureError

_STRUCTURE_BYTES = 64 << 20  # of one stream that is no picture: a million references take 10 MB
_SPARE_BYTES = 1 << 20  # some programs write a few rows more than there are
_PART_BYTES = 1 << 16
_CLEAR, _END, _MAX_CODES = 256, 257, 4096  # of LZW, ISO 32000-1, section 7.4.4.2


def limit_structure() -> None:
    """Before a file is opened. The limits are of the whole process; a larger one, set for a picture, stays."""
    settings = library().settings
    if settings.get_qpdf_limits()["flate_max_memory"] == 0:
        _set_limit(_STRUCTURE_BYTES)


def check_unpacked(obj: Any, name: str) -> None:
    """Raises `UnreadablePictureError` for a picture that unpacks to far more than its px take."""
    width, height = size_of(obj)
    channels = (colours(obj) or (1, ""))[0]
    allowed = 2 * (width * channels + 2) * height + _SPARE_BYTES  # of 8 bits each: others are kept
    raw = obj.read_raw_bytes()
    names = filters(obj)
    if names == ["/FlateDecode"]:
        size = _inflated_bytes(raw, allowed)
    elif names == ["/LZWDecode"]:
        size = _lzw_bytes(raw, allowed)
    else:  # RunLength: 2 bytes become 128 at most; the rest become fewer
        size = 64 * len(raw) if names == ["/RunLengthDecode"] else len(raw)
        allowed = max(allowed, _STRUCTURE_BYTES)
    if size > allowed:
        raise UnreadablePictureError(
            f"{name} is refused: its {len(raw)} bytes would become more than its {width}x{height} px take, as in a "
            "decompression bomb"
        )
    if allowed > library().settings.get_qpdf_limits()["flate_max_memory"]:
        _set_limit(allowed)


def _set_limit(size: int) -> None:
    library().settings.set_qpdf_limits(
        flate_max_memory=size, png_max_memory=size, tiff_max_memory=size, run_length_max_memory=size
    )


def _inflated_bytes(data: bytes, most: int) -> int:
    """How many bytes deflated data become, counted until they are more than `most`."""
    unpacker, count, left = zlib.decompressobj(), 0, data
    try:
        while left and not unpacker.eof and count <= most:
            count += len(unpacker.decompress(left, _PART_BYTES))
            left = unpacker.unconsumed_tail
    except zlib.error:
        pass  # whoever decodes it says so
    return count


def _lzw_bytes(data: bytes, most: int) -> int:
    """The same of LZW. Codes grow a step earlier than they must, as is usual; that changes the count by little."""
    lengths = [1] * 258
    count, width, bits, held, last = 0, 9, 0, 0, 0
    for byte in data:
        bits, held = bits << 8 | byte, held + 8
        if held < width:
            continue
        held -= width
        code, bits = bits >> held, bits & (1 << held) - 1
        if code == _CLEAR:
            del lengths[258:]
            width, last = 9, 0
            continue
        if code == _END or code > len(lengths) or count > most:
            break
        if last and len(lengths) < _MAX_CODES:
            lengths.append(last + 1)
        last = lengths[min(code, len(lengths) - 1)]
        count += last
        width = min(12, max(9, (len(lengths) + 1).bit_length()))
    return count
