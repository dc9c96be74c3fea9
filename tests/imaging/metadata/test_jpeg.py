"""Extended XMP, and further pictures in a JPEG file."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import pytest
from PIL import Image as Pillow

from srgan_cli.config import WriteOptions
from srgan_cli.imaging.image import Header, Metadata
from srgan_cli.imaging.metadata import jpeg, xmp
from srgan_cli.imaging.metadata.geometry import Geometry
from srgan_cli.imaging.output import Output
from srgan_cli.imaging.reading import read_header
from srgan_cli.imaging.sources import Source
from srgan_cli.imaging.writing import write_picture
from tests.imaging import samples

PIXELS = samples.pixels(30, 40, 3)
LONG = samples.XMP.replace(b"K\xc3\xb6ln", b"K\xc3\xb6ln " + b"am Rhein " * 20_000)


def written(packet: bytes) -> bytes:
    stream = io.BytesIO()
    header = Header(40, 30, 3, 8, "jpeg", Metadata(xmp=packet))
    assert write_picture(stream, PIXELS, header, Output("jpeg", 8, 40, 30), WriteOptions()) == ()
    return stream.getvalue()


def test_a_packet_that_is_too_large_for_a_segment_travels() -> None:
    data = written(LONG)
    back = read_header(data, max_pixels=samples.MANY).metadata.xmp or b""
    assert b"am Rhein " * 20_000 in back
    again = xmp.patched(back, Geometry(80, 60, 40, 30)) or b""
    assert b"HasExtendedXMP" not in again
    assert b'exif:PixelXDimension="80"' in again
    assert b"am Rhein " * 20_000 in (read_header(written(again), max_pixels=samples.MANY).metadata.xmp or b"")
    assert b"HasExtendedXMP" not in written(samples.XMP)


def test_an_extension_that_is_not_the_one_announced_is_left_alone() -> None:
    data = written(LONG)
    at = data.index(b"am Rhein am")
    broken = data[:at] + b"AM" + data[at + 2 :]
    assert b"am Rhein" not in (read_header(broken, max_pixels=samples.MANY).metadata.xmp or b"")


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def test_further_pictures_are_told_of() -> None:
    data = samples.encoded(Pillow.fromarray(PIXELS), "JPEG")
    table = struct.pack("<HHHII", 1, 0xB001, 4, 1, 3) + bytes(4)
    several = data[:2] + _segment(0xE2, b"MPF\0II*\0" + struct.pack("<I", 8) + table) + data[2:]
    assert "first of the 3 pictures" in " ".join(read_header(several, max_pixels=samples.MANY).notes)
    assert read_header(data, max_pixels=samples.MANY).notes == ()


def test_the_parts_of_an_extension_fit_into_segments() -> None:
    assert max(map(len, jpeg.extended(LONG))) <= 65_533


def _with(*segments: bytes, tail: bytes = b"") -> bytes:
    plain = samples.encoded(Pillow.new("RGB", (40, 30)), "JPEG")
    return plain[:2] + b"".join(segments) + plain[2:] + tail


def _notes(data: bytes) -> str:
    header = read_header(data, max_pixels=samples.MANY)
    return "; ".join((*header.notes, *header.left_out))


def test_extensions_cannot_announce_more_than_a_file_may_hold() -> None:
    packet = b"<x HasExtendedXMP/>" + bytes(range(33, 127))
    names = [packet[at : at + 32] for at in range(64)]
    sizes = struct.pack(">II", 16 << 20, 0)
    data = _with(*(_segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + name + sizes + b"x") for name in names))
    began = time.thread_time()
    assert jpeg.whole_xmp(Source(data), packet) == packet
    assert time.thread_time() - began < 2.0


def test_unknown_segments_are_named_once() -> None:
    known = (_segment(0xEC, b"Ducky\0\1\0\4\0\0\0\x3c"), _segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"), _segment(0xE9, b""))
    assert _notes(_with(*known)) == ""
    kodak, boxes = _segment(0xE3, b"Meta\0\0II*\0" + bytes(40)), _segment(0xEB, b"JP\0\1\0\0\0\1")
    told = _notes(_with(kodak, kodak, boxes, boxes, _segment(0xE5, b"RICOH\1"), _segment(0xE7, b"\0\1\2")))
    assert told.count("APP3 (Kodak's)") == told.count("APP11 (content credentials or other boxes)") == 1
    assert "APP5 (RICOH), APP7" in told
    assert "\0" not in told


@pytest.mark.parametrize(("strip", "told"), [("none", True), ("gps", True), ("all", False)])
def test_who_leaves_metadata_out_is_not_told_of_it(strip: Any, told: bool) -> None:
    data = _with(_segment(0xE5, b"RICOH\1"), _segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)))
    header = read_header(data, max_pixels=samples.MANY)
    notes = write_picture(io.BytesIO(), samples.pixels(60, 80, 3), header, Output("png", 8, 80, 60),
                          WriteOptions(strip=strip))  # fmt: skip
    assert ("RICOH" in "; ".join(notes)) is ("gain map" in "; ".join(notes)) is told


def test_what_a_file_holds_behind_its_picture_is_told() -> None:
    assert "gain map" in _notes(_with(_segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))))
    for kind, has_video in ((0x0A30, True), (0x0A01, False)):  # a film; the time in UTC
        table = b"SEFH" + struct.pack("<IIHHII", 107, 1, 0, kind, 400, 400)
        tail = bytes(400) + table + struct.pack("<I4s", len(table), b"SEFT")
        assert ("motion photo" in _notes(_with(tail=tail))) is has_video
    assert _notes(_with(tail=b"\xff\xff\xff\xffSEFT")) == ""


def test_comments_travel() -> None:
    header = read_header(
        _with(_segment(0xFE, "an öre".encode()), _segment(0xFE, b"caf\xe9\0")), max_pixels=samples.MANY
    )
    assert header.metadata.text == (("Comment", "an öre"), ("Comment", "café"))
    pixels = samples.pixels(60, 80, 3)
    for format in ("jpeg", "png", "webp"):  # noqa: A001
        stream = io.BytesIO()
        notes = write_picture(stream, pixels, header, Output(format, 8, 80, 60), WriteOptions())
        again = read_header(stream.getvalue(), max_pixels=samples.MANY).metadata
        assert again.text == (() if format == "webp" else header.metadata.text)
        assert ("Comment" in "; ".join(notes)) is (format == "webp")
