"""TIFF by its tags: each kind is read correctly, or refused for the right reason; never misread, and never called
damaged."""

from __future__ import annotations

import contextlib
import io
import lzma
import random
import zlib
from typing import Any

import numpy as np
import pytest
import pyvips
from PIL import Image as Pillow

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.image import Image
from srgan_cli.imaging.metadata.ifd import Structure
from srgan_cli.imaging.reading import open_picture, read_image
from tests.imaging import samples
from tests.imaging.tiffs import (
    BITS,
    COUNTS,
    EXTRA,
    OFFSETS,
    PLANAR,
    ROWS,
    SUBSAMPLING,
    gradient,
    page,
    pages,
    tiff,
)

W, H = 64, 48
RGB, GREY, DATA = gradient(H, W, 3), gradient(H, W, 1), gradient(H, W, 4)[:, :, 3:]
WIDE, WIDE_GREY = gradient(H, W, 3, 65535), gradient(H, W, 1, 65535)
FLAT = np.full_like(GREY, 128)


def read(data: bytes) -> Image:
    return read_image(data, max_pixels=samples.MANY)


def tiled(array: Any, photometric: int, *, planar: int = 1, more: Any = None, compression: int = 1) -> bytes:
    """Tiles of 32 × 16 px; `planar` 2: all those of one channel, then the next's. `compression` is only said."""
    channels = array.shape[2]

    def cut(part: Any) -> bytes:
        return b"".join(part[t : t + 16, x : x + 32].tobytes() for t in range(0, H, 16) for x in range(0, W, 32))

    data = cut(array) if planar == 1 else b"".join(cut(array[:, :, [index]]) for index in range(channels))
    count = 6 * (1 if planar == 1 else channels)
    bits = [8 * array.itemsize] * channels
    tags, _ = page(W, H, bits, photometric, data, compression=compression, more=more)
    tags |= {322: (4, [32]), 323: (4, [16]), PLANAR: (3, [planar]), 325: (4, [len(data) // count] * count)}
    tags[324] = (4, [8 + index * (len(data) // count) for index in range(count)])
    for tag in (OFFSETS, COUNTS, ROWS):
        del tags[tag]
    return pages([(tags, data)])


def packed(array: Any, bits: int) -> bytes:
    flat = array.reshape(len(array), -1).astype(np.uint16)
    ones = (flat[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(array), -1).astype(np.uint8), 1).tobytes()


PLANES = b"".join(np.ascontiguousarray(RGB[:, :, index]).tobytes() for index in range(3))
LOW_10 = gradient(H, W, 1, 1023)
LOW_12 = gradient(H, W, 3, 4095)
CHROMA = np.dstack([GREY, FLAT, FLAT])
PAIRS = GREY[:, :, 0].reshape(H // 2, 2, W // 2, 2).transpose(0, 2, 1, 3).reshape(H // 2, W // 2, 4)
CASES: dict[str, tuple[bytes, Any]] = {
    "rgb": (tiff(W, H, [8] * 3, 2, RGB.tobytes()), RGB),
    "rgb big-endian 16": (tiff(W, H, [16] * 3, 2, WIDE.astype(">u2").tobytes(), order=">"), WIDE),
    "min is white": (tiff(W, H, [8], 0, GREY.tobytes()), 255 - GREY),
    "min is white 16": (tiff(W, H, [16], 0, WIDE_GREY.tobytes()), 65535 - WIDE_GREY),
    "min is white 1": (tiff(W, H, [1], 0, np.packbits(GREY[:, :, 0] > 99, 1).tobytes()), np.where(GREY > 99, 0, 255)),
    "one bit": (tiff(W, H, [1], 1, np.packbits(GREY[:, :, 0] > 99, 1).tobytes()), np.where(GREY > 99, 255, 0)),
    "four bits": (tiff(W, H, [4], 1, packed(GREY >> 4, 4)), (GREY >> 4) * 17),
    "two bits": (tiff(W, H, [2], 1, packed(GREY >> 6, 2)), (GREY >> 6) * 85),
    "four bits of colour": (tiff(W, H, [4] * 3, 2, packed(RGB >> 4, 4)), (RGB >> 4).astype(int) * 4369),
    "two bits of colour": (tiff(W, H, [2] * 3, 2, packed(RGB >> 6, 2)), (RGB >> 6).astype(int) * 21845),
    "ten bits": (tiff(W, H, [10], 1, packed(LOW_10, 10)), np.round(LOW_10 * (65535 / 1023))),
    "ten bits, white first": (tiff(W, H, [10], 0, packed(LOW_10, 10)), np.round((1023 - LOW_10) * (65535 / 1023))),
    "twelve bits": (tiff(W, H, [12] * 3, 2, packed(LOW_12, 12)), np.round(LOW_12 * (65535 / 4095))),
    "twelve bits, deflate": (
        tiff(W, H, [12] * 3, 2, zlib.compress(packed(LOW_12, 12)), compression=8),
        np.round(LOW_12 * (65535 / 4095)),
    ),
    "no extra tag": (tiff(W, H, [8] * 4, 2, np.dstack([RGB, DATA]).tobytes()), RGB),
    "data": (tiff(W, H, [8] * 4, 2, np.dstack([RGB, DATA]).tobytes(), more={EXTRA: (3, [0])}), RGB),
    "grey and data": (tiff(W, H, [8] * 2, 1, np.dstack([GREY, DATA]).tobytes(), more={EXTRA: (3, [0])}), GREY),
    "alpha": (
        tiff(W, H, [8] * 4, 2, np.dstack([RGB, DATA]).tobytes(), more={EXTRA: (3, [2])}),
        np.dstack([RGB, DATA]),
    ),
    "alpha, data": (
        tiff(W, H, [8] * 5, 2, np.dstack([RGB, DATA, GREY]).tobytes(), more={EXTRA: (3, [2, 0])}),
        np.dstack([RGB, DATA]),
    ),
    "data, alpha": (
        tiff(W, H, [8] * 5, 2, np.dstack([RGB, GREY, DATA]).tobytes(), more={EXTRA: (3, [0, 2])}),
        np.dstack([RGB, DATA]),
    ),
    "ycbcr 1x1": (tiff(W, H, [8] * 3, 6, CHROMA.tobytes(), more={SUBSAMPLING: (3, [1, 1])}), np.dstack([GREY] * 3)),
    "ycbcr 1x1, deflate": (
        tiff(W, H, [8] * 3, 6, zlib.compress(CHROMA.tobytes()), compression=8, more={SUBSAMPLING: (3, [1, 1])}),
        np.dstack([GREY] * 3),
    ),
    "ycbcr 2x2": (
        tiff(
            W, H, [8] * 3, 6, np.dstack([PAIRS, np.full((H // 2, W // 2, 2), 128, np.uint8)]).tobytes(),
            more={SUBSAMPLING: (3, [2, 2])},
        ),
        np.dstack([GREY] * 3),
    ),
    "planes": (
        tiff(W, H, [8] * 3, 2, PLANES, more={PLANAR: (3, [2]), OFFSETS: (4, [0] * 3), COUNTS: (4, [W * H] * 3)}),
        RGB,
    ),
    "tiles": (tiled(RGB, 2), RGB),
    "tiles of planes": (tiled(RGB, 2, planar=2), RGB),
    "tiles of planes 16": (tiled(WIDE, 2, planar=2), WIDE),
    "tiles of planes with alpha": (
        tiled(np.dstack([RGB, DATA]), 2, planar=2, more={EXTRA: (3, [2])}),
        np.dstack([RGB, DATA]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_kind_is_right(name: str) -> None:
    data, expected = CASES[name]
    image = read(data)
    assert image.pixels.shape == expected.shape
    assert image.header.depth == (16 if expected.max() > 255 else 8)
    assert np.abs(image.pixels.astype(int) - expected.astype(int)).max() <= 1


def test_orientation_of_packed_samples() -> None:
    data = tiff(W, H, [12], 1, packed(gradient(H, W, 1, 4095), 12), more={274: (3, [6])})
    image = read(data)
    upright = np.rot90(np.round(gradient(H, W, 1, 4095) * (65535 / 4095)), -1)
    assert (image.header.width, image.header.height) == (H, W)
    assert np.abs(image.pixels.astype(int) - upright).max() <= 1


def test_data_beside_the_colours_is_told() -> None:
    assert "other data" in " ".join(read(CASES["data"][0]).header.notes)
    assert read(CASES["alpha"][0]).header.notes == ()


def lab(light: float, a: float, b: float, kind: str) -> tuple[int, int, int]:
    """One colour, as the two 8-bit codings hold it."""
    level = round(light * 255 / 100)
    return (level, round(a) % 256, round(b) % 256) if kind == "cie" else (level, round(a) + 128, round(b) + 128)


@pytest.mark.parametrize(("kind", "photometric"), [("cie", 8), ("icc", 9)])
@pytest.mark.parametrize("depth", [8, 16])
def test_both_codings_of_lab(kind: str, photometric: int, depth: int) -> None:
    # sRGB's red and blue are L*a*b* (D50) 54.3 80.8 69.9 and 29.6 68.3 -112.0; of D65, as libvips has it, 53.2 80.1
    # 67.2 and 32.3 79.2 -107.9.
    for colour, rgb in (((53.2, 80.1, 67.2), (255, 0, 0)), ((32.3, 79.2, -107.9), (0, 0, 255))):
        values = np.array(lab(*colour, kind), np.uint16)
        if depth == 16 and kind == "cie":
            values[0] *= 257
        flat = np.tile(values * (1 if depth == 8 else np.array([1 if kind == "cie" else 256, 256, 256])), (H, W, 1))
        data = tiff(W, H, [depth] * 3, photometric, flat.astype(np.uint8 if depth == 8 else np.uint16).tobytes())
        image = read(data)
        assert image.header.depth == depth
        assert np.abs(image.pixels[5, 5] / (1 if depth == 8 else 257) - rgb).max() < 6
        assert "converted to sRGB" in " ".join(image.header.notes)


PLAIN = RGB.tobytes()
# In tiles, libvips gives black for what it cannot decode, unless it is asked to be strict.
RARE = {34712: "JPEG 2000", 50002: "JPEG XL", 34887: "LERC", 34933: "PNG", 60001: "method 60001"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(W, H, [8] * 3, 2, PLAIN, compression=34712), "JPEG 2000"),
        (tiff(W, H, [8] * 3, 2, PLAIN, compression=50002), "JPEG XL"),
        (tiff(W, H, [8] * 3, 6, PLAIN, compression=6), "old-style JPEG"),
        (tiff(W, H, [8] * 3, 2, PLAIN, compression=34887), "LERC"),
        (tiff(W, H, [8] * 3, 2, PLAIN, compression=60001), "method 60001"),
        *((tiled(RGB, 2, compression=each), words) for each, words in RARE.items()),
        (tiled(RGB, 2, compression=34712, planar=2), "JPEG 2000"),
        (tiff(W, H, [8] * 3, 10, PLAIN), "ITULAB"),
        (tiff(W, H, [16], 3, WIDE_GREY.tobytes(), more={320: (3, [0] * (3 << 16))}), "palette of 16 bits"),
        (tiff(W, H, [64], 1, bytes(W * H * 8)), "8- and 16-bit"),
        (tiff(W, H, [64], 1, bytes(W * H * 8), more={339: (3, [3])}), "8- and 16-bit"),
        (tiff(W, H, [64], 1, bytes(W * H * 8), more={339: (3, [6])}), "complex"),
        (tiff(W, H, [16] * 3, 32845, WIDE.tobytes()), "LogLuv"),
        (tiff(W, H, [8, 8, 16], 2, PLAIN * 2), "differ in depth"),
        (tiff(W, H, [12] * 3, 2, packed(LOW_12, 12), compression=8, more={317: (3, [2])}), "12 bits"),
        (tiff(W, H, [32], 1, GREY.astype(np.float32).tobytes(), more={339: (3, [3])}), "8- and 16-bit"),
        (tiff(W, H, [16], 1, WIDE_GREY.tobytes(), more={339: (3, [2])}), "8- and 16-bit"),
        (tiff(W, H, [8], 32803, GREY.tobytes()), "raw file"),
    ],
)
def test_what_cannot_be_read_is_refused_for_what_it_is(data: bytes, words: str) -> None:
    with pytest.raises(UnreadablePictureError, match=words) as caught:
        read(data)
    assert "is damaged or" not in str(caught.value)


@pytest.mark.parametrize("compression", [34925, 50000])
@pytest.mark.parametrize("in_tiles", [False, True])
def test_what_some_builds_can_unpack_is_right_or_refused_by_name(compression: int, in_tiles: bool) -> None:
    """LZMA; and Zstandard, as one block that is stored (RFC 8878, section 3.1.1)."""
    parts = [RGB[t : t + 16, x : x + 32].tobytes() for t in range(0, H, 16) for x in range(0, W, 32)]
    whole = RGB.tobytes()

    def stored(data: bytes) -> bytes:
        head = b"\x28\xb5\x2f\xfd\x60" + (len(data) - 256).to_bytes(2, "little")
        return head + (len(data) << 3 | 1).to_bytes(3, "little") + data

    pack = lzma.compress if compression == 34925 else stored
    if in_tiles:
        tags, _ = page(W, H, [8] * 3, 2, b"", compression=compression)
        packed_parts = [pack(part) for part in parts]
        places = np.cumsum([8, *map(len, packed_parts)])[:-1]
        tags |= {322: (4, [32]), 323: (4, [16]), 324: (4, [*map(int, places)]), 325: (4, [*map(len, packed_parts)])}
        for tag in (OFFSETS, COUNTS, ROWS):
            del tags[tag]
        data = pages([(tags, b"".join(packed_parts))])
    else:
        data = tiff(W, H, [8] * 3, 2, pack(whole), compression=compression)
    name = "LZMA" if compression == 34925 else "Zstandard"
    with contextlib.suppress(UnreadablePictureError):
        np.testing.assert_array_equal(read(data).pixels, RGB)
        return
    with pytest.raises(UnreadablePictureError, match=f"{name}.*It does not seem to be damaged"):
        read(data)


@pytest.mark.parametrize("layout", [{"tile_height": 16}, {"tile": True, "tile_width": 16, "tile_height": 16}])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "jpeg", "webp"])
def test_a_lost_tile_or_strip_is_no_black_one(compression: str, layout: dict[str, Any]) -> None:
    """What is left of the file is made where that is asked for."""
    image = pyvips.Image.new_from_array(RGB).copy(interpretation="srgb")
    data = bytearray(image.tiffsave_buffer(compression=compression, **layout))
    read(bytes(data))
    opened: Any = Pillow.open(io.BytesIO(data))
    last, size = (opened.tag_v2[tag][-1] for tag in ((324, 325) if "tile" in layout else (OFFSETS, COUNTS)))
    noise = {"packbits": b"\x80" * size, "webp": bytes(size)}.get(compression, random.Random(1).randbytes(size))
    begin = size // 3 if compression in ("lzw", "deflate", "jpeg") else 0  # of the others only this much is seen
    data[last + begin : last + size] = noise[begin:]
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read(bytes(data))
    if compression == "jpeg":  # of which nothing may be left
        return
    with open_picture(bytes(data), max_pixels=samples.MANY, accept_damaged=True) as picture:
        kept = picture.read_rows(H)
        assert picture.damage is not None
    assert np.abs(kept[:8].astype(int) - RGB[:8]).mean() < 60


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("how", ["short", "ended too early"])
def test_a_jpeg_tile_that_is_cut_is_damage_and_not_grey(photometric: str, how: str) -> None:
    """libvips decodes JPEG tiles itself, and says nothing of what is missing at their end."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    image = pyvips.Image.new_from_array(noise).copy(interpretation="srgb")
    quality = 95 if photometric == "rgb" else 60  # libvips stores RGB from 90 on
    data = bytearray(image.tiffsave_buffer(compression="jpeg", Q=quality, tile=True, tile_width=32, tile_height=32))
    whole = read(bytes(data)).pixels
    structure = Structure(lambda at, count: bytes(data[at : at + count]), len(data))
    table = structure.table(structure.first)
    assert table is not None
    offsets, counts = (structure.numbers(table.find(tag)) for tag in (324, 325))
    at, size = offsets[5], counts[5]
    if how == "short":
        entry = table.find(325)
        assert entry is not None
        width = entry.size // entry.count
        place = entry.value_at + 5 * width
        data[place : place + width] = (size // 2).to_bytes(width, "little")
    else:
        data[at + size // 2 : at + size // 2 + 2] = b"\xff\xd9"
    with pytest.raises(UnreadablePictureError, match=r"damaged or incomplete.*: tile 6: "):
        read(bytes(data))
    with open_picture(bytes(data), max_pixels=samples.MANY, accept_damaged=True) as picture:
        kept = picture.read_rows(96)
        assert picture.damage is not None
    np.testing.assert_array_equal(kept[:32], whole[:32])


SMALL = gradient(H // 4, W // 4, 3)
FULL_PAGE = page(W, H, [8] * 3, 2, RGB.tobytes())
PREVIEW = page(W // 4, H // 4, [8] * 3, 2, SMALL.tobytes(), more={254: (4, [1])})


def test_the_full_picture_and_never_its_preview() -> None:
    unsaid = page(W // 4, H // 4, [8] * 3, 2, SMALL.tobytes())
    middle = page(W // 2, H // 2, [8] * 3, 2, gradient(H // 2, W // 2, 3).tobytes(), more={254: (4, [1])})
    turned_round = pages([PREVIEW, middle, FULL_PAGE]), pages([PREVIEW, middle, FULL_PAGE], sub=2)  # of a pyramid
    for data in (pages([PREVIEW, FULL_PAGE]), pages([PREVIEW, FULL_PAGE], sub=1), *turned_round,
                 pages([unsaid, FULL_PAGE], sub=1)):  # fmt: skip
        image = read(data)
        np.testing.assert_array_equal(image.pixels, RGB)
        assert "preview" in " ".join(image.header.notes)
        assert "frames" not in " ".join(image.header.notes)


def test_the_levels_of_a_pyramid_are_no_frames() -> None:
    for data in (pages([FULL_PAGE, PREVIEW]), pages([FULL_PAGE, PREVIEW], sub=1)):
        image = read(data)
        np.testing.assert_array_equal(image.pixels, RGB)
        assert image.header.notes == ()
    assert "first of 2" in read(pages([FULL_PAGE, FULL_PAGE])).header.notes[0]


def test_raw_files_are_refused_by_name() -> None:
    sensor = page(W, H, [16], 32803, WIDE_GREY.tobytes())
    dng = page(W // 4, H // 4, [8] * 3, 2, SMALL.tobytes(), more={254: (4, [1]), 0xC612: (1, [1, 4, 0, 0])})
    for data, words in ((pages([dng, sensor], sub=1), "DNG"), (pages([PREVIEW, sensor], sub=1), "CFA")):
        with pytest.raises(UnreadablePictureError, match=f"raw file .{words}"):
            read(data)


def test_a_loop_of_pages_ends() -> None:
    data = bytearray(pages([FULL_PAGE, PREVIEW]))
    first = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[first : first + 2], "little")
    data[first + 2 + 12 * count :][:4]
    data[first + 2 + 12 * count : first + 6 + 12 * count] = data[4:8]
    np.testing.assert_array_equal(read(bytes(data)).pixels, RGB)


assert BITS == 258
