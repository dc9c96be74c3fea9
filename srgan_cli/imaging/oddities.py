"""Harmless oddities of JPEG files: recognised by libjpeg's warnings, and removed from the file's head.

libjpeg reports only the first problem. So a file is decoded again without its oddities, because damage after them would
otherwise go unnoticed.
"""

from __future__ import annotations

import re

# libjpeg warnings that mean no loss. But "extraneous bytes" before a restart marker are lost data.
HARMLESS = re.compile(
    r"extraneous bytes before marker 0x(?!d[0-7])"
    r"|unknown JFIF revision|Unknown Adobe color transform|Inconsistent progression sequence"
    r"|tables are too coarse|Invalid SOS parameters for sequential JPEG"
)

_SCAN, _END, _FRAMES = 0xDA, 0xD9, (0xC0, 0xC1, 0xC2)
_MAX_SEGMENTS = 4000


def tidied(data: bytes) -> bytes:
    """The same picture without bytes between the segments of its head, with a known revision of JFIF, and with an Adobe
    colour transform that matches what libjpeg uses anyway."""
    parts, colours = [data[:2]], 3
    at = 2
    for _ in range(_MAX_SEGMENTS):
        begin = _next_marker(data, at)
        if begin < 0 or data[begin + 1] in (_SCAN, _END):
            break
        at = begin + 2 + max(2, int.from_bytes(data[begin + 2 : begin + 4], "big"))
        segment = data[begin:at]
        if segment[1] in _FRAMES and len(segment) > 9:
            colours = segment[9]
        parts.append(_known(segment))
    else:
        return data
    parts.append(data[begin if begin >= 0 else at :])
    return _with_transform(parts, colours)


def _next_marker(data: bytes, at: int) -> int:
    """The offset of the next marker as libjpeg finds it; -1 if there is none."""
    while (at := data.find(b"\xff", at)) >= 0 and at + 1 < len(data):
        if data[at + 1] not in (0x00, 0xFF):
            return at
        at += 1
    return -1


def _known(segment: bytes) -> bytes:
    is_jfif = segment[1] == 0xE0 and segment[4:9] == b"JFIF\0"
    return segment[:9] + b"\1" + segment[10:] if is_jfif else segment


def _with_transform(parts: list[bytes], colours: int) -> bytes:
    for number, part in enumerate(parts):
        if part[1:2] == b"\xee" and part[4:9] == b"Adobe" and len(part) > 15 and part[15] > 2:
            parts[number] = part[:15] + (b"\2" if colours == 4 else b"\1") + part[16:]
    return b"".join(parts)
