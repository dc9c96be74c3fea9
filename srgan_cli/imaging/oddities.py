"""What is odd about a JPEG and loses nothing: known by libjpeg's words, and taken out where it stands in the head.

libjpeg tells only of the first thing that it does not like. So a file is decoded again without its oddities, or what
is damaged behind them would pass for sound.
"""

from __future__ import annotations

import re

# What libjpeg warns of without any loss. "Extraneous bytes" are lost picture where a restart marker follows them.
HARMLESS = re.compile(
    r"extraneous bytes before marker 0x(?!d[0-7])"
    r"|unknown JFIF revision|Unknown Adobe color transform|Inconsistent progression sequence"
    r"|tables are too coarse|Invalid SOS parameters for sequential JPEG"
)

_SCAN, _END, _FRAMES = 0xDA, 0xD9, (0xC0, 0xC1, 0xC2)
_MAX_SEGMENTS = 4000


def tidied(data: bytes) -> bytes:
    """The same picture, without bytes between the segments of its head, in a known revision of JFIF, and with a colour
    transform of Adobe's that libjpeg would take anyway."""
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
    parts.append(data[max(begin, at) if begin < 0 else begin :])
    return _with_transform(parts, colours)


def _next_marker(data: bytes, at: int) -> int:
    """Where the next marker begins, as libjpeg finds it; -1: nowhere."""
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
