from __future__ import annotations

import errno
import io
import os
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.documents.opening import open_document
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.decoding import damaged
from srgan_cli.imaging.reading import open_picture, read_header, read_image
from srgan_cli.imaging.sources import Source
from tests.imaging import samples
from tests.imaging.tiffs import tiff


def rgb(height: int = 40, width: int = 60) -> Pillow.Image:
    return Pillow.fromarray(samples.pixels(height, width, 3))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_channels_stay_what_they_are(channels: int, format: str) -> None:  # noqa: A002
    array = samples.pixels(20, 30, channels)
    picture = Pillow.fromarray(array[:, :, 0] if channels == 1 else array)
    image = read_image(samples.encoded(picture, format), max_pixels=samples.MANY)
    np.testing.assert_array_equal(image.pixels, array)
    assert (image.header.width, image.header.height, image.header.depth) == (30, 20, 8)


def test_a_16_bit_file_of_small_values_stays_16_bit() -> None:
    array = np.arange(200, dtype=np.uint16).reshape(10, 20)
    image = read_image(samples.encoded(Pillow.fromarray(array), "PNG"), max_pixels=samples.MANY)
    assert image.header.depth == 16
    np.testing.assert_array_equal(image.pixels[:, :, 0], array)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_become_rgb(format: str) -> None:  # noqa: A002
    palette = rgb().quantize(8)
    image = read_image(samples.encoded(palette, format), max_pixels=samples.MANY)
    np.testing.assert_array_equal(image.pixels[:, :, :3], np.asarray(palette.convert("RGB")))


def test_palette_with_transparency_and_one_bit() -> None:
    image = read_image(samples.encoded(rgb().quantize(8), "PNG", transparency=0), max_pixels=samples.MANY)
    assert image.header.channels == 4
    image = read_image(samples.encoded(rgb().convert("1"), "PNG"), max_pixels=samples.MANY)
    assert (image.header.channels, image.header.depth, image.pixels.max()) == (1, 8, 255)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb(format: str) -> None:  # noqa: A002
    flat = Pillow.new("CMYK", (16, 16), (0, 255, 255, 0))
    image = read_image(samples.encoded(flat, format), max_pixels=samples.MANY)
    assert image.header.channels == 3
    assert image.pixels[8, 8, 0] > 180 > 90 > image.pixels[8, 8, 1]
    assert image.header.metadata.icc is not None
    assert image.header.metadata.icc[16:20] == b"RGB "
    assert "CMYK" in " ".join(image.header.notes)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientations(orientation: int, format: str) -> None:  # noqa: A002
    from PIL import ImageOps

    data = samples.encoded(
        rgb(), format, exif=_orientation(orientation), **({"lossless": True} if format == "WEBP" else {})
    )
    stored = Pillow.open(io.BytesIO(data))
    expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB")).astype(int)
    with open_picture(data, max_pixels=samples.MANY) as picture:
        header = picture.header
        assert (header.height, header.width) == expected.shape[:2]
        bands = []
        while len(band := picture.read_rows(7)):
            bands.append(band)
    assert np.abs(np.concatenate(bands) - expected).max() <= (2 if format == "JPEG" else 0)


def _orientation(value: int) -> bytes:
    block = Pillow.Exif()
    block[0x0112] = value
    return block.tobytes()


def test_frames_and_names_are_noted(tmp_path: Path) -> None:
    several = samples.encoded(rgb(), "TIFF", save_all=True, append_images=[rgb(), rgb()])
    assert "first of 3 frames" in read_header(several, max_pixels=samples.MANY).notes[0]
    path = tmp_path / "photo.jpg"
    path.write_bytes(samples.encoded(rgb(), "PNG"))
    header = read_header(path, max_pixels=samples.MANY)
    assert header.format == "png"
    assert "PNG file, although its name says otherwise" in header.notes[0]


def test_associated_alpha_is_undone() -> None:
    import pyvips

    array = samples.pixels(20, 30, 4)
    image = pyvips.Image.new_from_memory(array.tobytes(), 30, 20, 4, "uchar").copy(interpretation="srgb")
    read = read_image(image.tiffsave_buffer(premultiply=True), max_pixels=samples.MANY).pixels
    assert np.abs(read.astype(int) - array).max() <= 4  # what premultiplying in 8 bits loses
    np.testing.assert_array_equal(read[:, :, 3], array[:, :, 3])


def test_rows_may_be_read_by_another_thread(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(samples.encoded(rgb(400, 300), "JPEG"))
    whole = read_image(path, max_pixels=samples.MANY).pixels
    with open_picture(path, max_pixels=samples.MANY) as picture:
        bands = [picture.read_rows(33)]

        def more() -> None:
            bands.append(picture.read_rows(50))

        for _ in range(10):
            thread = threading.Thread(target=more)
            thread.start()
            thread.join()
    np.testing.assert_array_equal(np.concatenate(bands), whole)


def test_unusual_names(tmp_path: Path) -> None:
    data = samples.encoded(rgb(), "PNG")
    names = [b"-dash.png", b"a[page=3].png", b"sp ace.png"] + ([b"\xff\xfe.png"] if sys.platform == "linux" else [])
    for name in names:
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
        path.write_bytes(data)
        assert read_image(path, max_pixels=samples.MANY).header.width == 60


def _bomb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 2_000_000, 2_000_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\0" * 100, "zeros"),
        (b"just some text in a file", "looks like text"),
        (b"<!doctype html>", "HTML"),
        (b"BM is how this text begins, it is no bitmap", "text"),
        (b"%PDF-1.7 \xe2\xe3", "not a picture"),
        (b"\xff\x0a" + bytes(30), "is a JPEG XL picture, which srgan cannot read"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30), "is a JPEG XL picture"),
        (b"8BPS\0\1" + bytes(30), "is a Photoshop document"),
        (b"\0\0\0\x18ftypcrx " + bytes(30), "raw file"),
        (b"\0\0\0\x18ftypisom" + bytes(30), "is a video"),
        (b"\x76\x2f\x31\x01" + bytes(30), "is an OpenEXR picture"),
        (_bomb(), "--max-pixels"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (b"II*\0\x08\0\0\0", "damaged"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "damaged"),
        (b"GIF89a\x10\0\x10\0", "damaged"),
    ],
)
def test_hostile_bytes_are_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(UnreadablePictureError, match=words) as caught:
        read_image(data, max_pixels=samples.MANY)
    assert "\n" not in str(caught.value)


def test_hostile_files(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    with pytest.raises(UnreadablePictureError, match="folder"):
        read_header(tmp_path / "x.png", max_pixels=1)
    with pytest.raises(UnreadablePictureError, match="no such file"):
        read_header(tmp_path / "none.png", max_pixels=1)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(UnreadablePictureError, match="pipe"):
            read_header(tmp_path / "pipe.png", max_pixels=1)


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("srgan_cli.imaging.sources.os.open", refuse)
    with pytest.raises(UnreadablePictureError, match="no permission"):
        read_header(tmp_path / "a.png", max_pixels=1)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
def test_more_pixels_than_allowed_are_refused(format: str) -> None:  # noqa: A002
    data = samples.encoded(rgb(), format)
    assert read_header(data, max_pixels=2400).width == 60
    with pytest.raises(UnreadablePictureError, match=r"60x40 px.*--max-pixels"):
        read_header(data, max_pixels=2399)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF"])
@pytest.mark.parametrize("fraction", [0.3, 0.9])
def test_truncated_files_are_errors_and_not_grey_rows(format: str, fraction: float) -> None:  # noqa: A002
    noise = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    data = samples.encoded(Pillow.fromarray(noise), format)
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_image(data[: int(len(data) * fraction)], max_pixels=samples.MANY)


def test_damage_inside_a_png_is_an_error() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    data = bytearray(samples.encoded(Pillow.fromarray(noise), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_image(bytes(data), max_pixels=samples.MANY)


def test_floating_point_is_refused() -> None:
    data = samples.encoded(Pillow.fromarray(np.zeros((8, 8), np.float32)), "TIFF")
    with pytest.raises(UnreadablePictureError, match="16-bit"):
        read_header(data, max_pixels=samples.MANY)


def test_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    heif = pillow_heif.from_pillow(rgb(64, 96))
    stream = io.BytesIO()
    heif.save(stream)
    image = read_image(stream.getvalue(), max_pixels=samples.MANY)
    assert image.header.format == "heic"
    assert np.abs(image.pixels.astype(int) - samples.pixels(64, 96, 3)).mean() < 6


def test_heic_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnreadablePictureError, match=r"pip install '.*\[heic\]'"):
        read_header(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", max_pixels=samples.MANY)


@pytest.mark.skipif(not samples.REAL.is_dir(), reason="the real photographs are not here")
def test_every_real_photograph_opens() -> None:
    paths = sorted(path for path in samples.REAL.rglob("*") if path.suffix in (".jpg", ".png"))
    assert len(paths) > 60
    for path in paths:
        with Pillow.open(path) as other:
            turned = other.getexif().get(0x0112, 1) >= 5 and other.format == "JPEG"
            size = other.size[::-1] if turned else other.size
        image = read_image(path, max_pixels=samples.MANY)
        assert (image.header.width, image.header.height) == size, path


def _gif_at(left: int, top: int, canvas: tuple[int, int]) -> bytes:
    """One frame of 20 x 10 px, all red, on a larger canvas."""
    frame = Pillow.new("P", (20, 10), 1)
    frame.putpalette([0, 0, 255, 255, 0, 0])
    data = samples.encoded(frame, "GIF")
    at = data.index(b",")
    head = data[:6] + struct.pack("<HH", *canvas) + data[10:at]
    return head + b"," + struct.pack("<HHHH", left, top, 20, 10) + data[at + 9 :]


def test_a_canvas_is_transparent_where_its_first_frame_is_not() -> None:
    image = read_image(_gif_at(5, 3, (40, 30)), max_pixels=samples.MANY)
    assert image.pixels.shape == (30, 40, 4)
    alpha = np.zeros((30, 40), np.uint8)
    alpha[3:13, 5:25] = 255
    np.testing.assert_array_equal(image.pixels[:, :, 3], alpha)
    assert (image.pixels[3:13, 5:25, :3] == [255, 0, 0]).all()
    assert read_header(_gif_at(0, 0, (20, 10)), max_pixels=samples.MANY).channels == 3


def test_a_file_is_read_from_many_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is decoded for its next page while another thread copies from it."""
    data = bytes(range(256)) * 1000
    (tmp_path / "a").write_bytes(data)
    seek = os.lseek

    def slow_seek(*arguments: int) -> int:
        at = seek(*arguments)
        time.sleep(0.001)  # for another thread
        return at

    monkeypatch.setattr(os, "lseek", slow_seek)
    with Source(tmp_path / "a") as source, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda at: source.read_at(at, 500) == data[at : at + 500], range(0, 200_000, 7919)))


@pytest.mark.parametrize("kind", ["pages", "CIE Lab"])
@pytest.mark.parametrize("many", [1, 10**9])
def test_a_drive_that_fails_is_not_taken_for_damage(
    kind: str, many: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even where libvips reads through Python, and sees no more than an end of the file."""
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    page = Pillow.fromarray(noise)
    path = tmp_path / "a.tif"
    if kind == "pages":
        page.save(path, save_all=True, append_images=[page])
    else:
        path.write_bytes(tiff(300, 200, [8] * 3, 8, noise.tobytes()))
    real, calls, fails = os.pread, 0, range(0)

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls in fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, count, offset)

    def everything() -> None:
        if kind == "CIE Lab":
            read_image(path, max_pixels=samples.MANY)
            return
        with open_document(path, max_pixels=samples.MANY) as document, document.open(1) as opened:
            opened.read_rows(200)

    monkeypatch.setattr(os, "pread", pread)
    everything()
    for first in sorted({1, 3, *range(1, calls, 11), calls - 1, calls}):
        calls, fails = 0, range(first, first + many)
        with pytest.raises(UnreadablePictureError, match="cannot be read: input/output error"):
            everything()
    assert "cffi" not in capfd.readouterr().err
    assert "is damaged" not in str(damaged("a.png", ": source: read error"))


def _blocks(data: bytes) -> tuple[bytes, list[bytes]]:
    """A GIF of one frame: what comes before its codes, and the blocks of those."""
    start = data.index(b",\0\0\0\0")
    at = start + 11 + (3 * (2 << (data[start + 9] & 7)) if data[start + 9] & 128 else 0)
    head, blocks = data[:at], []
    while data[at]:
        blocks.append(data[at : at + 1 + data[at]])
        at += 1 + data[at]
    return head, blocks


@pytest.mark.parametrize("animated", [False, True])
def test_a_gif_that_ends_too_early_is_damaged_and_not_clear(animated: bool, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), dtype=np.uint8)
    head, blocks = _blocks(samples.encoded(Pillow.fromarray(noise), "GIF"))
    whole = head + b"".join(blocks) + b"\0;"
    assert read_image(whole, max_pixels=samples.MANY).pixels.shape == (60, 80, 3)
    last = blocks[-1]
    for left in (
        blocks[: len(blocks) // 2],
        blocks[:1],
        [*blocks[:-1], bytes([len(last) // 3]) + last[1 : 1 + len(last) // 3]],
    ):
        short = head + b"".join(left) + b"\0" + (whole[whole.index(b",\0\0\0\0") :] if animated else b";")
        with pytest.raises(UnreadablePictureError, match="some of its pixels are missing"):
            read_image(short, max_pixels=samples.MANY)
        with open_picture(short, max_pixels=samples.MANY, accept_damaged=True) as picture:
            assert picture.read_rows(60).shape[:2] == (60, 80)
            assert picture.damage is not None
    if animated:
        (tmp_path / "a.gif").write_bytes(head + b"".join(blocks[:3]) + b"\0" + whole[whole.index(b",\0\0\0\0") :])
        with (
            pytest.raises(UnreadablePictureError, match="some of its pixels are missing"),
            open_document(tmp_path / "a.gif", max_pixels=samples.MANY) as document,
            document.open(0) as page,
        ):
            page.read_rows(60)
