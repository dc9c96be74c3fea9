"""Contents of an AVIF or HEIC file besides its picture."""

from __future__ import annotations

import io

import pytest
import pyvips
from PIL import Image as Pillow

from srgan_cli.config import WriteOptions
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.metadata import heif
from srgan_cli.imaging.output import Output
from srgan_cli.imaging.reading import read_header
from srgan_cli.imaging.sources import Source
from srgan_cli.imaging.writing import write_picture
from tests.imaging import samples

_DEPTH = {b":auxiliary:alpha": b":auxiliary:depth", b"hevc:2015:auxid:1": b"hevc:2015:auxid:2"}


def _avif() -> bytes:
    """With transparency, which is an auxiliary picture, too."""
    image = pyvips.Image.new_from_array(samples.pixels(48, 64, 4)).copy(interpretation="srgb")
    return bytes(image.heifsave_buffer(compression="av1"))


def _heic() -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file, stream = pillow_heif.HeifFile(), io.BytesIO()
    file.add_from_pillow(Pillow.fromarray(samples.pixels(48, 64, 4)))
    file.add_from_pillow(Pillow.fromarray(samples.pixels(48, 64, 3)))
    file.save(stream)
    return stream.getvalue()


@pytest.mark.parametrize("made", [_avif, _heic])
def test_a_depth_map_is_reported_and_transparency_is_not(made: object) -> None:
    assert callable(made)
    data = made()
    assert heif.left_out(Source(data)) == ()
    [(alpha, depth)] = [(old, new) for old, new in _DEPTH.items() if old in data]
    with_depth = data.replace(alpha, depth)
    header = read_header(with_depth, max_pixels=samples.MANY)
    assert header.left_out == ("its depth map cannot be carried over",)
    assert ("main one of the 2 pictures" in "; ".join(header.notes)) is (made is _heic)
    for strip, told in (("none", True), ("gps", True), ("all", False)):
        options = WriteOptions(strip=strip)  # type: ignore[arg-type]
        output = Output("png", 8, header.width * 2, header.height * 2)
        notes = write_picture(io.BytesIO(), samples.pixels(96, 128, header.channels), header, output, options)
        assert ("depth map" in "; ".join(notes)) is told


def test_other_auxiliary_pictures_have_their_names() -> None:
    apple = b"urn:com:apple:photo:2020:aux:hdrgainmap\0urn"
    matte = b"urn:com:apple:photo:2018:aux:portraiteffectsmatte\0"
    other = b"urn:a:b:thermal\0"
    meta = b"".join(b"\0\0\0\x40auxC\0\0\0\0" + urn for urn in (apple, apple, matte, other))
    meta += b"infe\2\0\0\0\0\7\0\0tmap\0"
    data = len(meta + b"....meta").to_bytes(4, "big") + b"meta" + meta
    box = b"\0\0\0\x10ftypheic\0\0\0\0"
    assert heif.left_out(Source(box + data)) == (
        "its HDR gain map cannot be carried over",
        "its mattes cannot be carried over",
        "an auxiliary picture (thermal) cannot be carried over",
    )
    assert heif.left_out(Source(box + b"\0\0\0\0")) == ()


def test_a_picture_of_no_px_is_damaged() -> None:
    data = bytearray(_heic())
    while (at := data.find(b"ispe")) >= 0:
        data[at : at + 16] = b"isp\0" + bytes(4) + bytes(4) + data[at + 12 : at + 16]
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_header(bytes(data.replace(b"isp\0", b"ispe")), max_pixels=10**6)
