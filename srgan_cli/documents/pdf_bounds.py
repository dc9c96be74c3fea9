"""Limits on the decompressed size of a PDF's streams: for pictures what their size requires, for others a fixed limit.

qpdf decompresses into memory, and a few kilobytes may become gigabytes. It has its own limits for most filters, but not
for LZW, so the size of LZW data is computed here.
"""

from __future__ import annotations

import zlib
from typing import Any

from srgan_cli.documents.pdf_objects import colours, filters, library, size_of
from srgan_cli.errors import UnreadablePictureError

_STRUCTURE_BYTES = 64 << 20  # for one stream that is not a picture: a million references take 10 MB
_SPARE_BYTES = 1 << 20  # some programs write a few more rows than declared
_PART_BYTES = 1 << 16
_CLEAR, _END, _MAX_CODES = 256, 257, 4096  # of LZW, ISO 32000-1, section 7.4.4.2


def limit_structure() -> None:
    """Set qpdf's limits before a file is opened. They apply to the whole process; a larger one, set for a picture,
    stays."""
    settings = library().settings
    if settings.get_qpdf_limits()["flate_max_memory"] == 0:
        _set_limit(_STRUCTURE_BYTES)


def check_unpacked(obj: Any, name: str) -> None:
    """Raises `UnreadablePictureError` for a picture that decompresses to far more than its px require."""
    width, height = size_of(obj)
    channels = (colours(obj) or (1, ""))[0]
    # of 8 bits each: pictures with other depths are not enlarged
    allowed = 2 * (width * channels + 2) * height + _SPARE_BYTES
    raw = obj.read_raw_bytes()
    names = filters(obj)
    if names == ["/FlateDecode"]:
        size = _inflated_bytes(raw, allowed)
    elif names == ["/LZWDecode"]:
        size = _lzw_bytes(raw, allowed)
    else:  # RunLength: 2 bytes become at most 128; other filters shrink the data
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
    """Size of deflated data after decompression, counted up to `most`."""
    unpacker, count, left = zlib.decompressobj(), 0, data
    try:
        while left and not unpacker.eof and count <= most:
            count += len(unpacker.decompress(left, _PART_BYTES))
            left = unpacker.unconsumed_tail
    except zlib.error:
        pass  # the decoder reports the error
    return count


def _lzw_bytes(data: bytes, most: int) -> int:
    """The same for LZW. Assumes the usual early change of code size; otherwise the count differs only slightly."""
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
