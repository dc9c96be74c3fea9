"""Training sees the same pixels as `srgan upscale`: one reader, with libvips and without it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.config import UpscaleOptions
from srgan_cli.dataset.pictures import read_pixels
from srgan_cli.errors import SettingsError, UnreadablePictureError
from srgan_cli.imaging import reading, rgb, sources
from srgan_cli.imaging.reading import read_image
from srgan_cli.imaging.rgb import as_8_bit, as_rgb, glance, read_rgb
from srgan_cli.upscaling.session import prepare
from tests.imaging import samples, tiffs

Make = Callable[[], bytes]

HEIGHT, WIDTH = 37, 58


def noisy(channels: int = 3, depth: int = 8) -> np.ndarray[Any, Any]:
    dtype = np.uint8 if depth == 8 else np.uint16
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (HEIGHT, WIDTH, channels), dtype=dtype)


def pillow(format: str, mode: str = "RGB", **options: Any) -> Make:  # noqa: A002
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}.get(mode, 3)
    array = noisy(channels)
    picture = Pillow.fromarray(array[..., 0] if channels == 1 else array)
    return lambda: samples.encoded(picture if picture.mode == mode else picture.convert(mode), format, **options)


def turned(format: str, orientation: int, **options: Any) -> Make:  # noqa: A002
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    return pillow(format, exif=exif, **options)


def opencv(suffix: str, channels: int) -> Make:
    array = noisy(channels, 16)

    def make() -> bytes:
        done, data = cv2.imencode(suffix, array)
        assert done
        return data.tobytes()

    return make


def sixteen_bit_png(colour: int, channels: int) -> Make:
    """Written here: no library at hand writes grey with alpha of 16 bits."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in noisy(channels, 16))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, colour, 0, 0, 0)
    return lambda: (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def min_is_white(depth: int) -> Make:
    data = noisy(1, depth).astype("<u2" if depth == 16 else "u1").tobytes()
    return lambda: tiffs.tiff(WIDTH, HEIGHT, [depth], 0, data)


def gif_on_a_larger_canvas() -> bytes:
    data = bytearray(pillow("GIF", "P")())
    data[6:10] = (WIDTH + 10).to_bytes(2, "little") + (HEIGHT + 5).to_bytes(2, "little")
    return bytes(data)


# Each with whether Pillow alone gives the same pixels; what it would not is refused where pyvips is missing.
FILES: dict[str, tuple[Make, bool]] = {
    **{f"png {mode}": (pillow("PNG", mode), True) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")},
    "png transparent palette": (pillow("PNG", "P", transparency=3), True),
    "png transparent colour": (pillow("PNG", "RGB", transparency=(1, 2, 3)), True),
    "png 16 grey": (opencv(".png", 1), True),
    "png 16 rgb": (opencv(".png", 3), True),
    "png 16 rgba": (opencv(".png", 4), True),
    "png 16 grey, alpha": (sixteen_bit_png(4, 2), True),
    "jpeg": (pillow("JPEG", quality=90), True),
    "jpeg grey": (pillow("JPEG", "L"), True),
    "jpeg progressive": (pillow("JPEG", progressive=True, quality=40), True),
    "jpeg cmyk": (pillow("JPEG", "CMYK"), False),
    "webp": (pillow("WEBP", quality=70), True),
    "webp lossless alpha": (pillow("WEBP", "RGBA", lossless=True), True),
    "webp alpha": (pillow("WEBP", "RGBA", quality=70), True),
    "gif": (pillow("GIF", "P"), True),
    "gif on a larger canvas": (gif_on_a_larger_canvas, False),
    "bmp": (pillow("BMP"), True),
    "bmp grey": (pillow("BMP", "L"), True),
    "avif": (pillow("AVIF"), False),
    "avif alpha": (pillow("AVIF", "RGBA"), False),
    "ppm": (pillow("PPM"), True),
    "pgm": (pillow("PPM", "L"), True),
    "pgm 16": (opencv(".pgm", 1), True),
    "jpeg 2000": (pillow("JPEG2000"), True),
    **{f"tiff {mode}": (pillow("TIFF", mode), True) for mode in ("1", "L", "P", "RGB", "RGBA")},
    "tiff lzw": (pillow("TIFF", compression="tiff_lzw"), True),
    "tiff jpeg": (pillow("TIFF", compression="jpeg"), True),
    "tiff cmyk": (pillow("TIFF", "CMYK"), False),
    "tiff lab": (pillow("TIFF", "LAB"), False),
    "tiff 16 grey": (opencv(".tif", 1), True),
    "tiff 16 rgb": (opencv(".tif", 3), True),
    "tiff min is white": (min_is_white(8), True),
    "tiff 16 min is white": (min_is_white(16), False),
    **{f"jpeg turned {n}": (turned("JPEG", n), True) for n in range(1, 9)},
    **{f"png turned {n}": (turned("PNG", n), True) for n in (2, 6, 7)},
    **{f"webp turned {n}": (turned("WEBP", n, lossless=True), True) for n in (3, 8)},
    **{f"tiff turned {n}": (turned("TIFF", n), True) for n in (2, 3, 5, 6)},
}


def composited(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The pixels that `upscale` sees, composited over white by the plain formula."""
    values = np.rint(pixels / (257.0 if pixels.dtype == np.uint16 else 1.0))
    if pixels.shape[2] in (2, 4):
        alpha = values[..., -1:] / 255
        values = np.floor(values[..., :-1] * alpha + 255 * (1 - alpha) + 0.5)
    return np.broadcast_to(values, (*values.shape[:2], 3)).astype(np.uint8)


@pytest.fixture
def no_vips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without pyvips."""
    monkeypatch.setitem(sys.modules, "pyvips", None)
    sources.has_vips.cache_clear()
    monkeypatch.setattr(reading, "has_vips", sources.has_vips.__wrapped__)


@pytest.mark.parametrize("kind", FILES)
def test_training_sees_what_upscale_sees(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(FILES[kind][0]())
    seen = read_image(path, max_pixels=samples.MANY)
    learned = read_pixels(path)
    np.testing.assert_array_equal(learned, composited(seen.pixels))
    assert learned.shape == (seen.header.height, seen.header.width, 3)
    assert learned.dtype == np.uint8
    assert learned.flags.c_contiguous


@pytest.mark.parametrize("kind", FILES)
def test_without_libvips_it_is_the_same_or_a_sentence(kind: str, request: pytest.FixtureRequest) -> None:
    make, same = FILES[kind]
    data = make()
    expected = read_rgb(data, max_pixels=samples.MANY)
    request.getfixturevalue("no_vips")
    if not same:
        with pytest.raises(UnreadablePictureError, match=r"pip install 'pyvips\[binary\]'"):
            read_rgb(data, max_pixels=samples.MANY)
        return
    np.testing.assert_array_equal(read_rgb(data, max_pixels=samples.MANY), expected)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(1030, 2050), (517, 900), (300, 300)])
def test_a_glance_is_a_part_of_the_size_and_the_same_without_libvips(
    size: tuple[int, int], orientation: int, request: pytest.FixtureRequest
) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    picture = Pillow.fromarray(samples.pixels(*size, 3))
    data = samples.encoded(picture, "JPEG", exif=exif)
    pixels, header = glance(data, max_pixels=samples.MANY, side_px=256)
    assert {header.width, header.height} == set(size)
    assert 256 <= min(pixels.shape[:2]) < 512
    assert (pixels.shape[0] < pixels.shape[1]) == (header.height < header.width)
    request.getfixturevalue("no_vips")
    np.testing.assert_array_equal(glance(data, max_pixels=samples.MANY, side_px=256)[0], pixels)


def test_sixteen_bits_are_rounded() -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1)
    np.testing.assert_array_equal(as_8_bit(wide), np.rint(wide / 257.0))
    assert as_8_bit(as_8_bit(wide)) is not None
    assert rgb.as_rgb(wide).shape == (256, 256, 3)


def test_what_is_transparent_lies_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0], rgba[0, :, 3] = 100, (0, 51, 255)
    # 0, a fifth and all of (100, 0, 0), the rest white.
    assert as_rgb(rgba)[0].tolist() == [[255, 255, 255], [224, 204, 204], [100, 0, 0]]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_files_cut_short_are_errors_without_libvips(format: str, no_vips: None) -> None:  # noqa: A002
    noise = np.random.default_rng(0).integers(0, 256, (200, 150, 3), dtype=np.uint8)
    data = samples.encoded(Pillow.fromarray(noise), format)
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_rgb(data[: len(data) * 2 // 3], max_pixels=samples.MANY)


@pytest.mark.skipif(not samples.REAL.is_dir(), reason="the real photographs are not here")
def test_real_photographs_are_the_same_without_libvips(request: pytest.FixtureRequest) -> None:
    paths = sorted(path for path in samples.REAL.rglob("*") if path.suffix in (".jpg", ".png"))[::7]
    with_vips = [read_rgb(path, max_pixels=samples.MANY) for path in paths]
    request.getfixturevalue("no_vips")
    for path, expected in zip(paths, with_vips, strict=True):
        np.testing.assert_array_equal(read_rgb(path, max_pixels=samples.MANY), expected)


def test_upscale_without_libvips_is_refused_at_once(tmp_path: Path, no_vips: None) -> None:
    (tmp_path / "a.bmp").write_bytes(FILES["bmp"][0]())
    with pytest.raises(SettingsError, match=r"pip install 'pyvips\[binary\]'"):
        prepare(UpscaleOptions((tmp_path / "a.bmp",)))
