"""Checks whether a JPEG's scans contain everything its header announces, and whether there are suspiciously many.

A progressive JPEG stores its coefficients in several scans: the first bits of some, then one more bit of those at a
time (ITU-T T.81, section G.1.1.1). libjpeg silently treats what is missing as zero: a file whose first scan is lost
comes out grey, and one whose last is lost comes out blurred.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.sources import Source
from srgan_cli.wording import are

_SOS, _EOI = 0xDA, 0xD9
_SEQUENTIAL, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")  # no restart markers and no entropy-coded data
_HEAD_BYTES = 1 << 20
_MAX_SCANS, _MAX_PASSED_PX = 100, 2_000_000_000  # ordinary progressive files have about ten; this many take a second


@dataclass(frozen=True)
class _Frame:
    is_progressive: bool
    px: int
    components: tuple[int, ...]


@dataclass(frozen=True)
class _Scan:
    """Coefficients `first` to `last`; `before` is the last bit stored previously, `bit` the one in this scan (0: all
    bits)."""

    components: tuple[int, ...]
    first: int
    last: int
    before: int
    bit: int


def lost(source: Source) -> str:
    """What is missing; empty if nothing is, or if the decoder reports it itself.

    Raises `UnreadablePictureError` for a large picture with hundreds of scans, since each scan is a pass over all px.
    """
    found = _read(source.read_at(0, _HEAD_BYTES), 1)
    if found is not None and _is_in_one(*found):
        return ""
    found = _read(source.read_all())
    if found is None:
        return ""
    frame, scans = found
    if len(scans) > _MAX_SCANS and len(scans) * frame.px > _MAX_PASSED_PX:
        raise UnreadablePictureError(
            f"{source.name} is a JPEG of {len(scans)} scans, while ordinary ones have about ten: it may have "
            "been made to keep this machine busy. If you trust it, save it as a JPEG that is not progressive"
        )
    if frame.is_progressive:
        return _lost_bits(frame, scans)
    missing = set(frame.components).difference(*(scan.components for scan in scans))
    if not missing:
        return ""
    return f"{len(missing)} of its {len(frame.components)} colour channels {are(len(missing))} missing"


def _is_in_one(frame: _Frame, scans: list[_Scan]) -> bool:
    return not frame.is_progressive and bool(scans) and len(scans[0].components) == len(frame.components)


def _read(data: bytes, most: int | None = None) -> tuple[_Frame, list[_Scan]] | None:
    """The frame and its first `most` scans; None if the end is missing, or the frame is of an unknown kind."""
    frame, scans = None, []
    for marker, contents in _segments(data):
        if marker in (*_SEQUENTIAL, *_PROGRESSIVE) and len(contents) > 5:
            height, width = int.from_bytes(contents[1:3], "big"), int.from_bytes(contents[3:5], "big")
            frame = _Frame(marker in _PROGRESSIVE, width * height, tuple(contents[6 : 6 + 3 * contents[5] : 3]))
        elif marker == _SOS and frame is not None and (scan := _scan(contents)) is not None:
            scans.append(scan)
            if len(scans) == most:
                return frame, scans
        elif marker == _EOI:
            return None if frame is None else (frame, scans)
    return None


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers with the contents of their segments, from the first to the last scan and the end of the picture."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        size = int.from_bytes(data[found.end() : found.end() + 2], "big")
        yield found[1][0], data[found.end() + 2 : found.end() + size]
        if found[1][0] == _EOI:
            return
        at = found.end() + max(size, 2)


def _scan(contents: bytes) -> _Scan | None:
    count = contents[0] if contents else 0
    if len(contents) < 4 + 2 * count:
        return None
    first, last, bits = contents[1 + 2 * count : 4 + 2 * count]
    return _Scan(tuple(contents[1 : 1 + 2 * count : 2]), first, min(last, 63), bits >> 4, bits & 15)


def _lost_bits(frame: _Frame, scans: list[_Scan]) -> str:
    last_bits: dict[tuple[int, int], int] = {}  # the last bit stored of a component's coefficient
    for scan in scans:
        for place in ((one, index) for one in scan.components for index in range(scan.first, scan.last + 1)):
            if scan.before and last_bits.get(place) != scan.before:
                return "a scan is missing, repeated or misplaced"
            last_bits[place] = scan.bit
    needed = [(one, 0) for one in frame.components] + [(frame.components[0], index) for index in range(1, 64)]
    if any(place not in last_bits for place in needed) or any(last_bits.values()):
        return "some of its scans are missing"
    return ""
