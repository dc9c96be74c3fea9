"""Truncated files: refused, or with `accept_damaged` decoded as far as possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image as Pillow

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.reading import open_picture, read_image
from tests.imaging import samples

H, W = 180, 200
RANDOM = np.random.default_rng(2)
PICTURE = samples.pixels(H, W, 3) // 2 + RANDOM.integers(0, 100, (H, W, 3), dtype=np.uint8)


def _pillow(format: str, mode: str = "RGB", **options: Any) -> Callable[[], bytes]:  # noqa: A002
    return lambda: samples.encoded(Pillow.fromarray(PICTURE).convert(mode), format, **options)


def _deep_ppm() -> bytes:
    return f"P6 # deep\n{W} {H}\n65535\n".encode() + (PICTURE.astype(">u2") * 257).tobytes()


def _gif() -> bytes:
    image = pyvips.Image.new_from_array(PICTURE).copy(interpretation="srgb")
    return bytes(image.gifsave_buffer())


# Which rows are there, to the level, of a file of which six tenths are.
CUT: dict[str, tuple[Callable[[], bytes], slice]] = {
    "bmp": (_pillow("BMP"), slice(80, H)),  # from below
    "bmp with a palette": (_pillow("BMP", "P"), slice(80, H)),
    "gif": (_gif, slice(0, 90)),
    "pbm": (_pillow("PPM", "1"), slice(0, 100)),
    "pgm": (_pillow("PPM", "L"), slice(0, 100)),
    "ppm": (_pillow("PPM"), slice(0, 100)),
    "ppm of 16 bits": (_deep_ppm, slice(0, 100)),
    "png": (_pillow("PNG"), slice(0, 90)),
    "jpeg": (_pillow("JPEG", quality=90), slice(0, 80)),
    "tiff": (_pillow("TIFF"), slice(0, 100)),
    "webp": (_pillow("WEBP", quality=90), slice(0, 64)),
    "webp without loss": (_pillow("WEBP", lossless=True), slice(0, 90)),
    "webp with alpha": (_pillow("WEBP", "RGBA", quality=90), slice(0, 64)),
    "jpeg 2000 in tiles": (_pillow("JPEG2000", tile_size=(64, 64)), slice(0, 64)),
}


def accepted(data: bytes) -> tuple[Any, str | None]:
    with open_picture(data, max_pixels=samples.MANY, accept_damaged=True) as picture:
        parts = []
        while len(part := picture.read_rows(64)):
            parts.append(part)
        return np.concatenate(parts), picture.damage


@pytest.mark.parametrize("name", CUT)
def test_of_a_file_that_is_cut_what_is_there_can_be_accepted(name: str) -> None:
    make, there = CUT[name]
    data = make()
    whole = read_image(data, max_pixels=samples.MANY).pixels
    pixels, damage = accepted(data)
    np.testing.assert_array_equal(pixels, whole)
    assert damage is None, "a sound file is none the worse for it"
    short = data[: int(0.6 * len(data))]
    with pytest.raises(UnreadablePictureError, match="damaged or incomplete"):
        read_image(short, max_pixels=samples.MANY)
    pixels, damage = accepted(short)
    assert pixels.shape == whole.shape
    assert damage is not None
    assert damage.startswith("it is damaged: ")
    assert np.abs(pixels[there].astype(int) - whole[there]).max() <= 1


@pytest.mark.parametrize("options", [{}, {"no_jp2": True, "progression": "RPCL"}, {"quality_layers": [40, 20, 10],
                                     "irreversible": True}], ids=str)  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_jpeg_2000_that_is_cut_is_all_there_but_less_sharp(options: dict[str, Any], share: float) -> None:
    data = _pillow("JPEG2000", **options)()
    short = data[: int(share * len(data))]
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_image(short, max_pixels=samples.MANY)
    pixels, damage = accepted(short)
    assert damage == "it is damaged: it ends too early; the part that could be decoded was used"
    off = np.abs(pixels.astype(int) - PICTURE)
    assert max(off[:20].mean(), off[-20:].mean()) < 35, "the noise alone has a standard deviation of 29"


def test_a_jpeg_2000_without_some_of_its_tiles_can_be_accepted() -> None:
    data = _pillow("JPEG2000", tile_size=(64, 64))()
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"\xff\x90\0\x0a"]
    without = data[: starts[0]] + data[starts[1] :]
    with pytest.raises(UnreadablePictureError, match="1 of its 12 tiles is missing"):
        read_image(without, max_pixels=samples.MANY)
    pixels, damage = accepted(without)
    assert damage is not None
    assert "1 of its 12 tiles is missing" in damage
    np.testing.assert_array_equal(pixels[:, 64:], PICTURE[:, 64:])


def test_what_a_decoder_had_before_it_failed_can_be_accepted() -> None:
    """The third tile's data are none; those before it are there."""
    data = bytearray(_pillow("JPEG2000", tile_size=(64, 64))())
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"\xff\x90\0\x0a"]
    begin, end = starts[2] + 14, starts[3]
    data[begin:end] = (b"\xff\x7f" * (end - begin))[: end - begin]
    with pytest.raises(UnreadablePictureError, match="broken data stream"):
        read_image(bytes(data), max_pixels=samples.MANY)
    pixels, damage = accepted(bytes(data))
    said = "broken data stream when reading image file"
    assert damage == f"it is damaged: {said}; the part that could be decoded was used"
    np.testing.assert_array_equal(pixels[:64, :128], PICTURE[:64, :128])


def test_a_heic_that_is_cut_can_be_accepted() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = _pillow("HEIF", quality=90)()
    whole = read_image(data, max_pixels=samples.MANY).pixels
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_image(data[: int(0.8 * len(data))], max_pixels=samples.MANY)
    pixels, damage = accepted(data[: int(0.8 * len(data))])
    assert damage is not None
    np.testing.assert_array_equal(pixels[:32], whole[:32])


@pytest.mark.parametrize("kind", ["avif", "png, interlaced", "tiff whose table is last"])
def test_where_nothing_can_be_had_it_is_said_in_one_sentence(kind: str) -> None:
    image = pyvips.Image.new_from_array(PICTURE).copy(interpretation="srgb")
    data = {
        "avif": lambda: image.heifsave_buffer(compression="av1"),
        "png, interlaced": lambda: image.pngsave_buffer(interlace=True),
        "tiff whose table is last": lambda: image.tiffsave_buffer(compression="lzw"),
    }[kind]()
    with pytest.raises(UnreadablePictureError) as caught:
        accepted(data[: int(0.6 * len(data))])
    assert str(caught.value).startswith("the input is damaged or incomplete")
    assert str(caught.value).endswith("; no part of it can be decoded, even with --accept-damaged")


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
def test_what_is_hardly_begun_is_no_picture(share: float) -> None:
    """Nor is memory set aside for it."""
    for name in ("bmp", "ppm", "tiff", "webp"):
        data = CUT[name][0]()
        with pytest.raises(UnreadablePictureError):
            accepted(data[: max(1, int(share * len(data)))])
