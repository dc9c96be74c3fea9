from __future__ import annotations

import errno
import io
import os
import signal
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL.TiffImagePlugin import TiffImageFile

from srgan_cli.config import WriteOptions
from srgan_cli.errors import UnwritablePictureError
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.image import Depth, Header, Metadata
from srgan_cli.imaging.output import decide
from srgan_cli.imaging.reading import read_header, read_image
from srgan_cli.imaging.resizing import resize
from srgan_cli.imaging.writing import write_picture
from tests.imaging import samples

WRITABLE = [name for name, known in FORMATS.items() if known.writable]
FULL = Metadata(samples.srgb(), samples.exif(), samples.XMP, (300.0, 150.0))


def header(channels: int = 3, depth: Depth = 8, metadata: Metadata = FULL, format: str = "png") -> Header:  # noqa: A002
    return Header(40, 30, channels, depth, format, metadata)


def write(
    target: Any, array: Any, given: Header | None = None, options: WriteOptions | None = None, **more: Any
) -> Any:
    depth: Depth = 8 if array.dtype == np.uint8 else 16
    size = {name: more.pop(name, given) for name, given in (("width", array.shape[1]), ("height", array.shape[0]))}
    given, options = given or header(array.shape[2], depth), options or WriteOptions()
    path = target if isinstance(target, Path) else None
    return write_picture(target, array, given, decide(path, given, options, **size), options, **more)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("format", WRITABLE)
def test_every_format_depth_and_kind_of_picture(format: str, depth: Depth, channels: int, tmp_path: Path) -> None:  # noqa: A002
    known = FORMATS[format]
    array = samples.pixels(120, 160, channels, depth)
    path = tmp_path / f"a{known.suffixes[0]}"
    options = WriteOptions(lossless=format == "webp", background=None if known.alpha else (255, 255, 255))
    icc = samples.srgb() if channels > 2 else samples.grey_profile()
    notes = write(
        path, array, header(channels, depth, Metadata(icc, samples.exif(">"), samples.XMP, (300.0, 300.0))), options
    )
    rounded = depth not in known.depths or (format, depth) == ("avif", 16)
    assert any("rounded" in note for note in notes) is rounded
    assert any("cannot store grey" in note for note in notes) is (channels <= 2 and not known.grey)
    back = read_image(path, max_pixels=samples.MANY)
    assert back.header.format == format
    assert back.header.depth == (depth if depth in known.depths else 8)
    alpha = known.alpha and channels in (2, 4)
    assert back.header.channels == (1 if known.grey and channels <= 2 else 3) + alpha
    if format in ("png", "tiff") or (channels == 3 and depth == 8 and known.lossless):
        np.testing.assert_array_equal(back.pixels, array)
    elif channels >= 3 and alpha == (channels == 4):
        scale = 1 if back.header.depth == depth else 257
        top = 255 if back.header.depth == 8 else 65535
        wanted = array / scale
        if format == "gif" and alpha:  # pixels are transparent or not, and the colour of transparent ones is invisible
            assert set(np.unique(back.pixels[:, :, 3])) == {0, 255}
            wanted = np.where(wanted[:, :, 3:] >= 128, [1, 1, 1, 0] * wanted + [0, 0, 0, 255], 0)
        assert np.abs(back.pixels.astype(float) - wanted).mean() < top * 0.02
    if (format, depth, channels) == ("tiff", 16, 2):
        return  # Pillow knows no such files
    with Pillow.open(path) as other:
        assert other.size == (160, 120)
        if depth == 8 and format != "avif":
            np.testing.assert_allclose(
                np.asarray(other.convert("RGBA" if alpha else "RGB"))[:, :, 0],
                back.pixels[:, :, 0],
                atol=2,
            )


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("format", [name for name in WRITABLE if name not in ("bmp", "gif")])
def test_metadata_arrives_as_an_independent_reader_sees_it(
    format: str,  # noqa: A002
    depth: Depth,
    order: str,
    tmp_path: Path,
) -> None:
    path = tmp_path / f"a{FORMATS[format].suffixes[0]}"
    array = samples.pixels(60, 80, 3, depth)
    write(path, array, header(3, depth, Metadata(samples.srgb(), samples.exif(order), samples.XMP, (300.0, 150.0))))
    with Pillow.open(path) as other:
        other.load()
        read = other.getexif()
        assert read[0x010F] == "Tester"
        assert read.get(0x0112, 1) == 1
        details = read.get_ifd(0x8769)
        assert (details[0xA002], details[0xA003]) == (80, 60)
        assert details[0x927C] == samples.MAKER_NOTE
        assert read.get_ifd(0x8825)[2] == (48.0, 12.0, 34.56)
        assert other.info.get("icc_profile") == samples.srgb()
        packet = other.info.get("xmp") or other.info.get("XML:com.adobe.xmp") or b""
        packet = packet if isinstance(packet, bytes) else packet.encode()
        assert b'tiff:Orientation="1"' in packet
        assert b'exif:PixelXDimension="80"' in packet
        if "dpi" in FORMATS[format].carries:
            assert tuple(round(float(value)) for value in other.info["dpi"]) == (300, 150)
    data = path.read_bytes()
    assert b"thumbnail" not in data
    back = read_image(path, max_pixels=samples.MANY)
    if format in ("png", "tiff"):
        np.testing.assert_array_equal(back.pixels, array)
    again = back.header.metadata
    assert again.icc == samples.srgb()
    assert again.exif is not None
    assert again.xmp is not None


def test_maker_note_stays_at_its_offset_in_tiff(tmp_path: Path) -> None:
    """Offsets inside it count from the start of the block, which in a TIFF file is the start of the file."""
    path = tmp_path / "a.tif"
    write(path, samples.pixels(20, 30, 3))
    assert path.read_bytes()[samples.MAKER_AT :].startswith(samples.MAKER_NOTE)


def test_bigtiff_carries_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.imaging.encoding.CLASSIC_TIFF_BYTES", 1000)
    path = tmp_path / "a.tif"
    array = samples.pixels(60, 80, 3, 16)
    write(path, array, header(3, 16, Metadata(samples.srgb(), samples.exif(">"), samples.XMP)))
    assert path.read_bytes()[:4] == b"II+\0"
    back = read_image(path, max_pixels=samples.MANY)
    np.testing.assert_array_equal(back.pixels, array)
    assert (back.header.metadata.icc, back.header.metadata.dpi) == (samples.srgb(), None)
    assert back.header.metadata.xmp is not None
    with Pillow.open(path) as other:
        assert other.getexif()[0x010F] == "Tester"
        assert other.getexif().get_ifd(0x8769)[0x927C] == samples.MAKER_NOTE
        assert other.getexif().get_ifd(0x8825)[2] == (48.0, 12.0, 34.56)


@pytest.mark.parametrize("format", WRITABLE)
def test_without_metadata_nothing_is_invented(format: str, tmp_path: Path) -> None:  # noqa: A002
    path = tmp_path / f"a{FORMATS[format].suffixes[0]}"
    write(path, samples.pixels(20, 30, 3), header(metadata=Metadata()))
    found = read_image(path, max_pixels=samples.MANY).header.metadata
    assert (found.icc, found.exif, found.xmp) == (None, None, None)
    assert found.dpi is None or format == "bmp"


def test_strip_all_keeps_only_the_profile(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", samples.pixels(20, 30, 3), options=WriteOptions(strip="all"))
    found = read_image(tmp_path / "a.jpg", max_pixels=samples.MANY).header.metadata
    assert (found.icc, found.exif, found.xmp) == (samples.srgb(), None, None)


def test_blocks_too_large_for_jpeg_are_noted(tmp_path: Path) -> None:
    exif = samples.exif()[:1000].ljust(70_000, b"x")
    large = Metadata(samples.srgb().ljust(150_000, b"\0"), exif, samples.XMP)
    notes = write(tmp_path / "a.jpg", samples.pixels(20, 30, 3), header(metadata=large))
    assert "EXIF" in notes[0]
    assert read_image(tmp_path / "a.jpg", max_pixels=samples.MANY).header.metadata.icc == large.icc
    assert write(tmp_path / "a.png", samples.pixels(20, 30, 3), header(metadata=large)) == ()


def test_a_profile_for_other_channels_is_left_out(tmp_path: Path) -> None:
    notes = write(tmp_path / "a.png", samples.pixels(20, 30, 1))
    assert "ICC" in notes[0]
    assert read_image(tmp_path / "a.png", max_pixels=samples.MANY).header.metadata.icc is None


def test_depths_convert_exactly(tmp_path: Path) -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    write(tmp_path / "a.png", wide, header(1, 16, Metadata()), WriteOptions(bit_depth=8))
    narrow = read_image(tmp_path / "a.png", max_pixels=samples.MANY).pixels
    np.testing.assert_array_equal(narrow, (wide.astype(int) + 128) // 257)
    write(tmp_path / "b.png", narrow, header(1, 8, Metadata()), WriteOptions(bit_depth=16))
    np.testing.assert_array_equal(
        read_image(tmp_path / "b.png", max_pixels=samples.MANY).pixels, narrow.astype(np.uint16) * 257
    )


def test_resampling_on_the_way(tmp_path: Path) -> None:
    array = samples.pixels(60, 80, 4)
    write(tmp_path / "a.png", array, width=50, height=37)
    back = read_image(tmp_path / "a.png", max_pixels=samples.MANY).pixels
    np.testing.assert_array_equal(back, resize(array, 50, 37))


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_colour_does_not_bleed(depth: Depth) -> None:
    top = 255 if depth == 8 else 65535
    array = np.zeros((40, 40, 4), np.uint8 if depth == 8 else np.uint16)
    array[:, :20] = (top, top // 2, 0, top)
    array[:, 20:] = (0, 0, top, 0)  # invisible blue
    small = resize(array, 27, 31)
    visible = small[small[:, :, 3] > top // 50]
    assert visible[:, 2].max() <= top // 100
    assert visible[:, 0].min() >= top - top // 50


def test_flattening(tmp_path: Path) -> None:
    array = samples.pixels(20, 30, 2)
    array[:, :, 1] = 0
    write(tmp_path / "a.bmp", array, header(2, metadata=Metadata()), WriteOptions(background=(10, 200, 30)))
    back = read_image(tmp_path / "a.bmp", max_pixels=samples.MANY).pixels
    assert (back == (10, 200, 30)).all()


@pytest.mark.parametrize("format", WRITABLE)
def test_a_stream_gets_the_same_bytes(format: str, tmp_path: Path) -> None:  # noqa: A002
    class Pipe(io.RawIOBase):
        """Behaves like standard output: accepts bytes and cannot seek."""

        def __init__(self) -> None:
            super().__init__()
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.data += bytes(data)
            return len(data)

    array = samples.pixels(40, 50, 3)
    path = tmp_path / f"a{FORMATS[format].suffixes[0]}"
    write(path, array)
    pipe = Pipe()
    write(pipe, array, options=WriteOptions(format=format))
    assert bytes(pipe.data) == path.read_bytes()


# Whole or not at all


def test_failures_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"before")
    for error in (OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), UnwritablePictureError("no")):

        def fail(*_: object, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr("srgan_cli.imaging.encoding.containers.HeadRewriter.write", fail)
        with pytest.raises((UnwritablePictureError, KeyboardInterrupt)) as caught:
            write(target, samples.pixels(100, 100, 3))
        assert samples.names(tmp_path) == ["a.png"]
        assert target.read_bytes() == b"before"
        if isinstance(error, OSError):
            assert "disk is full" in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_ctrl_c_stops_the_encoder(suffix: str, tmp_path: Path) -> None:
    noise = np.tile(np.random.default_rng(0).integers(0, 256, (500, 1000, 3), dtype=np.uint8), (18, 1, 1))
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / f"a{suffix}", noise, options=WriteOptions(png_level=9 if suffix == ".png" else 1))
    timer.join()
    assert not samples.names(tmp_path)


@pytest.mark.parametrize("format", WRITABLE)
def test_a_full_disk_is_one_sentence(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: A002
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnwritablePictureError, match="disk is full"):
        write(tmp_path / f"a{FORMATS[format].suffixes[0]}", samples.pixels(30, 30, 3))
    assert not samples.names(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("format", WRITABLE)
def test_dev_full(format: str) -> None:  # noqa: A002
    with pytest.raises(UnwritablePictureError, match="disk is full"), Path("/dev/full").open("wb", buffering=0) as full:
        write(full, samples.pixels(300, 300, 3), options=WriteOptions(format=format))


def test_mode_and_time(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "a.png", samples.pixels(20, 30, 3), modified_ns=1_500_000_000_123_456_789)
    finally:
        os.umask(before)
    status = (tmp_path / "a.png").stat()
    assert status.st_mtime_ns == 1_500_000_000_123_456_789
    if os.name == "posix":
        assert status.st_mode & 0o777 == 0o640


def test_missing_folder_and_long_name(tmp_path: Path) -> None:
    with pytest.raises(UnwritablePictureError, match="folder does not exist"):
        write(tmp_path / "none" / "a.png", samples.pixels(20, 30, 3))
    write(tmp_path / ("n" * 251 + ".png"), samples.pixels(20, 30, 3))
    write(tmp_path / "a[x=1].png", samples.pixels(20, 30, 3))
    write(tmp_path / os.fsdecode(b"\xff\xfe.tif"), samples.pixels(20, 30, 3))
    assert len(samples.names(tmp_path)) == 3


# Before any work


@pytest.fixture(scope="module")
def with_maker_notes() -> list[tuple[Path, np.ndarray, Header, bytes]]:
    """Real photographs: a corner of each, its header, and the note."""
    found = []
    for path in sorted((samples.REAL / "camera").iterdir()):
        with Pillow.open(path) as other:
            note = other.getexif().get_ifd(0x8769).get(0x927C)
        if note:
            image = read_image(path, max_pixels=samples.MANY)
            found.append((path, np.ascontiguousarray(image.pixels[:48, :64]), image.header, note))
    return found


@pytest.mark.skipif(not samples.REAL.is_dir(), reason="the real photographs are not here")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_real_maker_notes_survive(
    suffix: str, tmp_path: Path, with_maker_notes: list[tuple[Path, np.ndarray, Header, bytes]]
) -> None:
    assert len(with_maker_notes) > 20
    for path, small, source, note in with_maker_notes:
        target = tmp_path / f"a{suffix}"
        write(target, small, source, width=64, height=48)
        with Pillow.open(target) as other:
            assert other.getexif().get_ifd(0x8769).get(0x927C) == note, path


def test_iptc_stays_in_jpeg_and_its_loss_is_told(tmp_path: Path) -> None:
    captions = b"Photoshop 3.0\x00" + b"8BIM\x04\x04\x00\x00\x00\x00\x00\x0e" + b"\x1c\x02\x78\x00\x09grandpa's"
    array = samples.pixels(40, 60, 3, 8)
    source = header(3, 8, Metadata(iptc=captions), "jpeg")
    assert write(tmp_path / "a.jpg", array, source, WriteOptions()) == ()
    assert captions in (tmp_path / "a.jpg").read_bytes()
    back = read_header(tmp_path / "a.jpg", max_pixels=samples.MANY)
    assert back.metadata.iptc == captions
    assert write(tmp_path / "b.jpg", array, back, WriteOptions(strip="all")) == ()
    assert b"grandpa" not in (tmp_path / "b.jpg").read_bytes()
    assert "IPTC" in write(tmp_path / "a.webp", array, back, WriteOptions())[0]


@pytest.mark.parametrize("layout", ["tile", "pyramid"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [8, 16])
def test_tiled_tiff(tmp_path: Path, layout: Literal["tile", "pyramid"], order: str, depth: Any) -> None:
    array = samples.pixels(300, 400, 3, depth)
    made = Metadata(icc=samples.srgb(), exif=samples.exif(order, 1), xmp=samples.XMP, dpi=(300.0, 300.0))
    source = header(3, depth, made, "tiff")
    write(tmp_path / "a.tif", array, source, WriteOptions(tiff_layout=layout, tiff_tile_px=64))
    back = read_image(tmp_path / "a.tif", max_pixels=samples.MANY)
    np.testing.assert_array_equal(back.pixels, array)
    assert back.header.notes == ()  # the smaller pictures of a pyramid are no frames
    assert back.header.metadata.icc == samples.srgb()
    assert "Tester" in str(back.header.metadata.exif)
    with Pillow.open(tmp_path / "a.tif") as other:
        assert isinstance(other, TiffImageFile)
        assert other.tag_v2[322] == 64
        assert other.tag_v2[0x010F] == "Tester"
        assert other.tag_v2.get_ifd(0x8769) if hasattr(other.tag_v2, "get_ifd") else True
        sizes = []
        for frame in range(getattr(other, "n_frames", 1)):
            other.seek(frame)
            sizes.append(other.size)
    assert sizes == ([(400, 300), (200, 150), (100, 75), (50, 37)] if layout == "pyramid" else [(400, 300)])
