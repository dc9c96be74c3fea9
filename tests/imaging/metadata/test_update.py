from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import exif, xmp
from srgan_cli.imaging.metadata.geometry import Geometry
from srgan_cli.imaging.metadata.update import profile_fits, updated
from tests.imaging import samples

GEOMETRY = Geometry(160, 70_000, 40, 30)
SMALL = Geometry(1, 1, 1, 1)


def tags(block: bytes) -> Pillow.Exif:
    read = Pillow.Exif()
    read.load(b"Exif\0\0" + block)
    return read


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("drop_gps", [False, True])
def test_exif_is_patched_in_place(order: str, drop_gps: bool) -> None:
    before = samples.exif(order)
    after = exif.patched(before, GEOMETRY, drop_gps=drop_gps)
    assert after is not None
    read = tags(after)
    assert read[0x0112] == 1
    assert read[0x010F] == "Tester"
    details = read.get_ifd(0x8769)
    assert (details[0xA002], details[0xA003]) == (160, 70_000)
    assert details[0x9003] == "2024:02:03 04:05:06"
    assert details[0x927C] == samples.MAKER_NOTE
    assert after[samples.MAKER_AT :].startswith(samples.MAKER_NOTE)
    assert b"thumbnail" not in after
    assert not read.get_ifd(1)
    assert bool(read.get_ifd(0x8825)) is not drop_gps
    assert (struct.pack(order + "II", 3456, 100) in after) is not drop_gps
    assert len(after) == 1000  # the thumbnail was the end of the block


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 5, 8])
def test_orientation_is_read(order: str, orientation: int) -> None:
    assert exif.orientation(samples.exif(order, orientation)) == orientation


@given(st.data())
def test_damaged_exif_never_crashes(data: st.DataObject) -> None:
    block = bytearray(samples.exif(data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(1, 30))):
        block[data.draw(st.integers(0, 950))] = data.draw(st.sampled_from([0, 1, 8, 12, 127, 255]))
    cut = bytes(block[: data.draw(st.integers(0, len(block)))])
    exif.orientation(cut)
    after = exif.patched(cut, SMALL, drop_gps=True)
    assert after is None or len(after) <= len(cut)


def test_a_table_that_points_to_itself_ends() -> None:
    block = bytearray(samples.exif())
    block[8 + 2 + 7 * 12 : 8 + 2 + 7 * 12 + 4] = struct.pack("<I", 8)
    after = exif.patched(bytes(block), SMALL)
    assert after is not None
    assert tags(after)[0x010F] == "Tester"


def test_xmp_is_patched_as_text() -> None:
    after = xmp.patched(samples.XMP, Geometry(160, 120, 40, 30))
    assert after is not None
    text = after.decode()
    for part in ('tiff:Orientation="1"', 'exif:PixelXDimension="160"', "<exif:PixelYDimension>120<", "Köln", "GPSLat"):
        assert part in text
    assert "Thumbnails" not in text
    stripped = xmp.patched(samples.XMP, Geometry(160, 120, 40, 30), drop_gps=True)
    assert stripped is not None
    assert b"GPS" not in stripped
    assert b'xmp:Rating="4"' in stripped


def test_xmp_in_utf16_and_garbage() -> None:
    wide = samples.XMP.decode().encode("utf-16")
    after = xmp.patched(wide, Geometry(1, 2, 1, 1))
    assert after is not None
    assert 'tiff:Orientation="1"' in after.decode("utf-16")
    assert xmp.patched(b"\xff\xfa\x80", SMALL) is None
    assert xmp.patched(b"<xmp:Thumbnails>" * 1000, SMALL) is None


def test_strip() -> None:
    full = Metadata(b"icc", samples.exif(), samples.XMP, (300.0, 300.0))
    assert updated(full, SMALL, "all") == Metadata(b"icc", None, None, (300.0, 300.0))
    kept = updated(full, SMALL, "gps")
    assert kept.exif is not None
    assert 0x8825 not in tags(kept.exif)
    assert updated(Metadata(exif=b"garbage", xmp=b"\xff"), SMALL, "none") == Metadata()
    assert updated(Metadata(), SMALL, "gps") == Metadata()


def test_profiles_fit_channels() -> None:
    assert profile_fits(samples.srgb(), 3)
    assert profile_fits(samples.srgb(), 4)
    assert not profile_fits(samples.srgb(), 1)
    assert profile_fits(samples.grey_profile(), 2)
    assert not profile_fits(b"", 3)
