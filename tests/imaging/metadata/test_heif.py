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


def _animation(frames: int) -> bytes:
    stream = io.BytesIO()
    first, *others = (Pillow.fromarray(samples.pixels(48, 64, 3) // (1 + turn)) for turn in range(frames))
    first.save(stream, "avif", save_all=True, append_images=others)
    return stream.getvalue()


def test_the_frames_of_an_animation_are_not_dropped_silently() -> None:
    for frames, told in ((1, ()), (5, ("only the first of 5 frames is read",))):
        assert read_header(_animation(frames), max_pixels=samples.MANY).notes == told


def _box(kind: bytes, data: bytes) -> bytes:
    return (len(data) + 8).to_bytes(4, "big") + kind + data


@pytest.mark.parametrize(
    ("sizes", "handler", "frames"),
    [
        (_box(b"stsz", bytes(8) + b"\0\0\0\5" + bytes(20)), b"pict", 5),
        (_box(b"stsz", bytes(4) + b"\0\0\1\0" + b"\0\0\0\5"), b"pict", 5),  # all of one size
        (_box(b"stz2", bytes(7) + b"\x10" + b"\0\0\0\5" + bytes(10)), b"pict", 5),
        (_box(b"stsz", bytes(8) + b"\0\0\0\5" + bytes(20)), b"soun", 1),
        (b"stsz", b"pict", 1),
    ],
)
def test_only_a_track_of_pictures_has_frames(sizes: bytes, handler: bytes, frames: int) -> None:
    media = _box(b"hdlr", bytes(8) + handler + bytes(13)) + _box(b"minf", _box(b"stbl", sizes))
    movie = _box(b"moov", _box(b"trak", _box(b"mdia", media)))
    assert heif.frames(Source(_box(b"ftyp", b"avis") + movie)) == frames
    assert heif.frames(Source(movie[:20])) == 1
