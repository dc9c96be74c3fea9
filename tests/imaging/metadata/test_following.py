"""Metadata in px, or with positions in the picture, follows it: each at x2, with orientation 6 (rotated to the
right)."""

from __future__ import annotations

import struct
import time
from typing import Any

import pytest
from PIL import Image as Pillow

from srgan_cli.imaging.metadata import exif, xmp
from srgan_cli.imaging.metadata.geometry import Geometry
from srgan_cli.imaging.metadata.ifd import Field, Structure, table_bytes
from srgan_cli.imaging.metadata.markup import elements

# Stored as 400 × 300; upright 300 × 400; enlarged 600 × 800.
TURNED = Geometry(600, 800, 300, 400, 6)
UPRIGHT = Geometry(800, 600, 400, 300, 1)


def block(main: list[Field], details: list[Field]) -> bytes:
    structure = Structure(lambda at, count: b"II*\0\x08\0\0\0"[at : at + count], 8)
    return exif.block(structure, main, [(0x8769, details)])


def doubles(tag: int, *values: float) -> Field:
    return Field(tag, 12, len(values), struct.pack(f"<{len(values)}d", *values))


def shorts(tag: int, *values: int) -> Field:
    return Field(tag, 3, len(values), struct.pack(f"<{len(values)}H", *values))


def ratio(tag: int, top: int, bottom: int) -> Field:
    return Field(tag, 5, 1, struct.pack("<II", top, bottom))


MATRIX = [2.0, 0.5, 0, 100, 0.25, -2.0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1]
ROW = tuple[str, Field, int, Any, Any]
# name, the field, the table it is in, what it must be upright, what it must be when turned
EXIF_TABLE: list[ROW] = [
    ("SubjectArea of a rectangle", shorts(0x9214, 100, 30, 40, 20), 0x8769, (200, 60, 80, 40), (540, 200, 40, 80)),
    ("SubjectArea of a circle", shorts(0x9214, 100, 30, 40), 0x8769, (200, 60, 80), (540, 200, 80)),
    ("SubjectLocation", shorts(0xA214, 100, 30), 0x8769, (200, 60), (540, 200)),
    ("ModelPixelScale", doubles(33550, 10, 20, 0), 0, (5, 10, 0), (0, 0, 0)),
    ("ModelTiepoint", doubles(33922, 3, 4, 0, 500, 600, 0), 0, (6, 8, 0, 500, 600, 0), (0,) * 6),
    (
        "ModelTransformation", doubles(34264, *MATRIX), 0,
        (1.0, 0.25, 0, 100, 0.125, -1.0, 0, 200, 0, 0, 0, 0, 0, 0, 0, 1), (0,) * 16,
    ),
]  # fmt: skip


@pytest.mark.parametrize("row", EXIF_TABLE, ids=[row[0] for row in EXIF_TABLE])
@pytest.mark.parametrize("turned", [False, True])
def test_exif(row: ROW, turned: bool) -> None:
    _, field, table, upright, expected = row
    data = block([field] if table == 0 else [], [field] if table else [])
    after = exif.patched(data, TURNED if turned else UPRIGHT)
    assert after is not None
    read = Pillow.Exif()
    read.load(b"Exif\0\0" + after)
    found = (read if table == 0 else read.get_ifd(table))[field.tag]
    assert tuple(found) == pytest.approx(expected if turned else upright)


def test_focal_plane_resolutions_change_places() -> None:
    data = block([], [ratio(0xA20E, 3000, 1), ratio(0xA20F, 2000, 1)])
    for geometry, expected in ((UPRIGHT, (6000, 4000)), (TURNED, (4000, 6000))):
        read = Pillow.Exif()
        read.load(b"Exif\0\0" + (exif.patched(data, geometry) or b""))
        details = read.get_ifd(0x8769)
        assert (details[0xA20E], details[0xA20F]) == expected


PACKET = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" xmlns:mwg-rs="http://www.metadataworkinggroup.com/schemas/regions/"
 xmlns:stDim="http://ns.adobe.com/xap/1.0/sType/Dimensions#" xmlns:stArea="http://ns.adobe.com/xmp/sType/Area#"
 xmlns:MP="http://ns.microsoft.com/photo/1.2/" xmlns:MPReg="http://ns.microsoft.com/photo/1.2/t/Region#"
 xmlns:GCamera="http://ns.google.com/photos/1.0/camera/" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"
 GPano:FullPanoWidthPixels="400" GPano:CroppedAreaTopPixels="30" GPano:PoseHeadingDegrees="350.0"
 GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" hdrgm:Version="1.0"
 exif:FocalPlaneXResolution="3000/1" exif:FocalPlaneYResolution="2000/1">
<exif:SubjectArea><rdf:Seq><rdf:li>100</rdf:li><rdf:li>30</rdf:li><rdf:li>40</rdf:li><rdf:li>20</rdf:li></rdf:Seq></exif:SubjectArea>
<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions stDim:w="400" stDim:h="300" stDim:unit="pixel"/>
<mwg-rs:RegionList><rdf:Bag><rdf:li rdf:parseType="Resource"><mwg-rs:Name>Ann &amp; Bo</mwg-rs:Name>
<mwg-rs:Area stArea:x="0.25" stArea:y="0.1" stArea:w="0.1" stArea:h="0.2" stArea:unit="normalized"/></rdf:li></rdf:Bag></mwg-rs:RegionList>
</mwg-rs:Regions>
<MPReg:Rectangle>0.2, 0.0, 0.1, 0.2</MPReg:Rectangle>
</rdf:Description></rdf:RDF></x:xmpmeta>"""  # noqa: E501
XMP_TABLE = [
    ('GPano:FullPanoWidthPixels="800"', 'GPano:FullPanoWidthPixels="800"'),
    ('GPano:CroppedAreaTopPixels="60"', 'GPano:CroppedAreaTopPixels="60"'),
    ('GPano:PoseHeadingDegrees="350.0"', 'GPano:PoseHeadingDegrees="350.0"'),
    ('exif:FocalPlaneXResolution="6000000/1000"', 'exif:FocalPlaneXResolution="4000000/1000"'),
    ('exif:FocalPlaneYResolution="4000000/1000"', 'exif:FocalPlaneYResolution="6000000/1000"'),
    ("<rdf:li>200</rdf:li><rdf:li>60</rdf:li><rdf:li>80</rdf:li><rdf:li>40</rdf:li>",
     "<rdf:li>540</rdf:li><rdf:li>200</rdf:li><rdf:li>40</rdf:li><rdf:li>80</rdf:li>"),
    ('stDim:w="800" stDim:h="600"', 'stDim:w="600" stDim:h="800"'),
    ('stArea:x="0.25" stArea:y="0.1" stArea:w="0.1" stArea:h="0.2"',
     'stArea:x="0.9" stArea:y="0.25" stArea:w="0.2" stArea:h="0.1"'),
    (">0.2, 0.0, 0.1, 0.2<", ">0.8, 0.2, 0.2, 0.1<"),
    ("Ann &amp; Bo", "Ann &amp; Bo"),
]  # fmt: skip


@pytest.mark.parametrize("row", XMP_TABLE)
@pytest.mark.parametrize("turned", [False, True])
def test_xmp(row: tuple[str, str], turned: bool) -> None:
    after = xmp.patched(PACKET.encode(), TURNED if turned else UPRIGHT)
    assert after is not None
    assert row[turned] in after.decode()


def test_what_does_not_travel_is_not_announced() -> None:
    after = (xmp.patched(PACKET.encode(), UPRIGHT) or b"").decode()
    assert "MotionPhoto" not in after
    assert "hdrgm:Version" not in after
    assert xmp.losses(PACKET.encode()) == ("its HDR gain map", "the video of a motion photo")
    assert xmp.losses(after.encode()) == ()
    elements(after)  # it is still well-formed


# Time


def _exif_bomb(rows: int, size: int) -> bytes:
    """Thousands of fields whose values all lie at the same place, in the main table and in IFD1."""
    body = b"".join(struct.pack("<HHII", 0xC000 + index % 4000, 7, size, 200_000) for index in range(rows))
    table = struct.pack("<H", rows) + body
    first = table + struct.pack("<I", 8 + len(table) + 4)
    return (b"II*\0" + struct.pack("<I", 8) + first + table + bytes(4)).ljust(200_000, b"\0") + b"\1" * size


def test_overlapping_values_cost_no_more_than_the_block() -> None:
    bomb = _exif_bomb(4000, 256_000)
    started = time.process_time()
    structure = Structure(lambda at, count: bomb[at : at + count], len(bomb))
    main = structure.table(structure.first)
    assert main is not None
    read = structure.fields(main)
    assert sum(len(field.value) for field in read) <= 10 * len(bomb)
    after = exif.patched(bomb, UPRIGHT, drop_gps=True)
    assert after is not None
    assert len(exif.from_tiff(structure) or b"") <= 9 << 20
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "packet",
    [
        b"<xmp:Thumbnails>" * 4000,
        b"<a " + b" ".join(b"xmlns:p%d='http://ns.adobe.com/xap/1.0/'" % i for i in range(5000)) + b"/>",
        b"<a " + b" ".join(b"x:gps%d='1'" % i for i in range(5000)) + b"/>",
        b"<a" + b" " * 60_000,
        b"<a b" + b"=" * 60_000,
        b"<" * 60_000,
        b"<a>" * 20_000 + b"</a>" * 20_000,
        b"<a b='" + b"x" * 60_000,
        b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>",
        b"<!--" + b"-" * 60_000,
        b"<a>" + b"0," * 30_000 + b"</a>",
    ],
)
def test_hostile_packets_take_linear_time(packet: bytes) -> None:
    started = time.process_time()
    xmp.patched(packet, TURNED, drop_gps=True)
    assert time.process_time() - started < 2


def test_entities_are_not_resolved() -> None:
    assert xmp.patched(b"<!DOCTYPE a [<!ENTITY b 'bbbb'>]><a>&b;</a>", UPRIGHT) is None


def test_table_bytes_are_read_again() -> None:
    fields = [doubles(33550, 1, 2, 3), shorts(0x9214, 1, 2, 3)]
    data = b"II*\0\x08\0\0\0" + table_bytes("<", fields, 8)
    structure = Structure(lambda at, count: data[at : at + count], len(data))
    table = structure.table(structure.first)
    assert table is not None
    assert structure.fields(table) == fields
