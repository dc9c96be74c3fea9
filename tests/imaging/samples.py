"""Test pictures and metadata, made here or by Pillow and never by the code under test."""

from __future__ import annotations

import functools
import io
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageCms

REAL = Path(os.environ.get("SRGAN_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "real"
MANY = 10**9
SHAPE = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def pixels(height: int, width: int, channels: int, depth: int = 8) -> np.ndarray[Any, Any]:
    """Smooth, so that lossy formats stay close; every channel is different; alpha is never 0."""
    rows, columns = np.mgrid[0:height, 0:width]
    top = 255 if depth == 8 else 65535
    bands = [
        (0.2 + 0.6 * rows / height) * top,
        (0.1 + 0.8 * columns / width) * top,
        (0.9 - 0.4 * (rows + columns) / (height + width)) * top,
        (0.3 + 0.7 * columns / width) * top,
    ]
    chosen = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    return np.stack([bands[index] for index in chosen], -1).astype(np.uint8 if depth == 8 else np.uint16)


def encoded(picture: Pillow.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    stream = io.BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


@functools.cache
def srgb() -> bytes:
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + bytes(12) + made[36:]  # without the time of its making


def grey_profile() -> bytes:
    """A minimal ICC v2 grey profile of gamma 2.2."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, 563) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"grey\0" + bytes(4 + 4 + 2 + 1 + 67)
    text += b"\0" * (-len(text) % 4)
    blocks = [(b"kTRC", curve), (b"wtpt", white), (b"desc", text)]
    at = 128 + 4 + 12 * len(blocks)
    table, body = struct.pack(">I", len(blocks)), b""
    for name, data in blocks:
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + table + body


MAKER_NOTE = b"MAKER\0" + bytes(range(200))
THUMBNAIL = b"\xff\xd8" + b"thumbnail" * 20 + b"\xff\xd9"
MAKER_AT = 400


def exif(order: str = "<", orientation: int = 6) -> bytes:
    """A block with everything: descriptions, sizes, a maker note at a fixed place, GPS, and a thumbnail in IFD1."""

    def short(tag: int, value: int) -> bytes:
        return struct.pack(order + "HHIHxx", tag, 3, 1, value)

    def long(tag: int, value: int) -> bytes:
        return struct.pack(order + "HHII", tag, 4, 1, value)

    def away(tag: int, kind: int, count: int, at: int) -> bytes:
        return struct.pack(order + "HHII", tag, kind, count, at)

    def table(rows: list[bytes], following: int = 0) -> bytes:
        return struct.pack(order + "H", len(rows)) + b"".join(rows) + struct.pack(order + "I", following)

    main = table(
        [
            away(0x010F, 2, 7, 150),
            short(0x0112, orientation),
            away(0x011A, 5, 1, 158),
            away(0x011B, 5, 1, 158),
            short(0x0128, 2),
            long(0x8769, 200),
            long(0x8825, 700),
        ],
        900,
    )
    details = table(
        [away(0x9003, 2, 20, 300), away(0x927C, 7, len(MAKER_NOTE), MAKER_AT), short(0xA002, 40), short(0xA003, 30)]
    )
    gps = table([struct.pack(order + "HHI4s", 1, 2, 2, b"N\0"), away(2, 5, 3, 800)])
    small = table([short(0x0103, 6), long(0x0201, 1000), long(0x0202, len(THUMBNAIL))])
    block = bytearray(1000 + len(THUMBNAIL))
    for at, data in (
        (0, (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)),
        (8, main),
        (150, b"Tester\0"),
        (158, struct.pack(order + "II", 300, 1)),
        (200, details),
        (300, b"2024:02:03 04:05:06\0"),
        (MAKER_AT, MAKER_NOTE),
        (700, gps),
        (800, struct.pack(order + "6I", 48, 1, 12, 1, 3456, 100)),
        (900, small),
        (1000, THUMBNAIL),
    ):
        block[at : at + len(data)] = data
    return bytes(block)


XMP = b"""<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6"
 exif:PixelXDimension="40" exif:GPSLatitude="48,12.5N" xmp:Rating="4">
<exif:PixelYDimension>30</exif:PixelYDimension><exif:GPSLongitude>16,22E</exif:GPSLongitude>
<xmp:Thumbnails><rdf:Alt><rdf:li>AAAA</rdf:li></rdf:Alt></xmp:Thumbnails>
<dc:title><rdf:Alt><rdf:li xml:lang="x-default">K\xc3\xb6ln</rdf:li></rdf:Alt></dc:title>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
