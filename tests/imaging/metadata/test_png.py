"""PNG's text and colour chunks, and what becomes of them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageCms

from srgan_cli.config import WriteOptions
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.metadata.colour import hdr_of, profile_of
from srgan_cli.imaging.metadata.iptc import app13, records
from srgan_cli.imaging.output import Output
from srgan_cli.imaging.reading import read_header, read_image
from srgan_cli.imaging.writing import write_picture
from tests.imaging import samples

PIXELS = samples.pixels(30, 40, 3)
SUFFIX = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "tiff": "TIFF", "avif": "AVIF"}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*before: bytes, behind: tuple[bytes, ...] = ()) -> bytes:
    data = samples.encoded(Pillow.fromarray(PIXELS), "PNG")
    end = data.rindex(b"IEND") - 4
    return data[:33] + b"".join(before) + data[33:end] + b"".join(behind) + data[end:]


def raw(name: str, block: bytes) -> bytes:
    text = f"\n{name}\n{len(block):8}\n" + "\n".join(block.hex()[at : at + 72] for at in range(0, 2 * len(block), 72))
    return chunk(b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text.encode()))


def header(data: bytes) -> Header:
    return read_header(data, max_pixels=samples.MANY)


def again(data: bytes, format: str, **options: Any) -> tuple[bytes, Header, tuple[str, ...]]:  # noqa: A002
    """The file that a result of `data` is, what is read of it, and the notes."""
    image = read_image(data, max_pixels=samples.MANY)
    stream = io.BytesIO()
    output = Output(format, image.header.depth, image.header.width, image.header.height)
    notes = write_picture(stream, image.pixels, image.header, output, WriteOptions(**options))
    return stream.getvalue(), header(stream.getvalue()), notes


IIM = b"\x1c\x02\x78\x00\x05Hello"


@pytest.mark.parametrize("where", ["before", "behind"])
@pytest.mark.parametrize(
    ("made", "field", "expected"),
    [
        (chunk(b"eXIf", samples.exif(">", 6)), "exif", samples.exif(">", 6)),
        (raw("exif", b"Exif\0\0" + samples.exif("<", 6)), "exif", samples.exif("<", 6)),
        (raw("APP1", b"Exif\0\0" + samples.exif("<", 6)), "exif", samples.exif("<", 6)),
        (raw("xmp", samples.XMP), "xmp", samples.XMP),
        (raw("APP1", b"http://ns.adobe.com/xap/1.0/\0" + samples.XMP), "xmp", samples.XMP),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + samples.XMP), "xmp", samples.XMP),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(samples.XMP)), "xmp", samples.XMP),
        (raw("iptc", IIM), "iptc", app13(IIM)),
        (raw("8bim", (app13(IIM) or b"")[14:]), "iptc", app13(IIM)),
    ],
)
def test_blocks_are_found_wherever_they_are(where: str, made: bytes, field: str, expected: bytes) -> None:
    data = png(made) if where == "before" else png(behind=(made,))
    found = header(data)
    assert getattr(found.metadata, field) == expected
    if field == "exif":
        assert (found.width, found.height, found.orientation) == (30, 40, 6)


def test_blocks_behind_thousands_of_pixel_chunks_are_found() -> None:
    data = png(behind=(chunk(b"eXIf", samples.exif("<", 6)),))
    at = data.index(b"IDAT") - 4
    assert header(data[:at] + chunk(b"IDAT", b"") * 6000 + data[at:]).orientation == 6


PARAMETERS = ("parameters", "a cat, schöner Himmel 猫\nSteps: 20")
WORKFLOW = ("workflow", '{"nodes": []}')


def with_text() -> bytes:
    key, value = PARAMETERS
    return png(
        chunk(b"iTXt", key.encode() + b"\0\0\0\0\0" + value.encode()),
        behind=(chunk(b"tEXt", WORKFLOW[0].encode() + b"\0" + WORKFLOW[1].encode()),),
    )


def test_text_travels_from_png_to_png() -> None:
    data, read, notes = again(with_text(), "png")
    assert read.metadata.text == (PARAMETERS, WORKFLOW)
    assert Pillow.open(io.BytesIO(data)).info["parameters"] == PARAMETERS[1]  # as those programs look for it
    assert notes == ()
    assert again(with_text(), "png", strip="all")[1].metadata.text == ()


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff", "avif"])
def test_text_elsewhere_is_told_of_or_becomes_a_comment(format: str) -> None:  # noqa: A002
    _, _, notes = again(with_text(), format)
    assert "parameters, workflow" in " ".join(notes)
    assert "--keep-text" in " ".join(notes)
    data, _, notes = again(with_text(), format, keep_text=True)
    assert notes == ()
    comment = Pillow.open(io.BytesIO(data)).getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    assert comment[8:].decode("utf-16-be") == f"parameters: {PARAMETERS[1]}\nworkflow: {WORKFLOW[1]}"


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_comment_moves_nothing_of_a_block_that_is_there(order: str) -> None:
    key, value = PARAMETERS
    text = chunk(b"iTXt", key.encode() + b"\0\0\0\0\0" + value.encode())
    _, read, _ = again(png(chunk(b"eXIf", samples.exif(order, 1)), text), "jpeg", keep_text=True)
    exif = Pillow.Exif()
    exif.load(b"Exif\0\0" + (read.metadata.exif or b""))
    details = exif.get_ifd(0x8769)
    assert details[0x9286][8:].decode("utf-16-be") == value
    assert details[0x927C] == samples.MAKER_NOTE
    assert (read.metadata.exif or b"")[samples.MAKER_AT :].startswith(samples.MAKER_NOTE)
    assert exif[0x010F] == "Tester"
    assert exif.get_ifd(0x8825)


@pytest.mark.parametrize("format", ["png", "jpeg", "tiff"])
def test_iptc_travels(format: str) -> None:  # noqa: A002
    _, read, notes = again(png(raw("iptc", IIM)), format)
    assert records(read.metadata.iptc or b"") == IIM
    assert notes == ()
    assert "IPTC" in " ".join(again(png(raw("iptc", IIM)), "webp")[2])


# Colour

P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB_CHRM = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def gama(value: int) -> bytes:
    return struct.pack(">I", value)


@pytest.mark.parametrize(
    "chunks",
    [{"gAMA": gama(100_000)}, {"sRGB": b"\0"}, {"cHRM": P3}, {"cICP": bytes([12, 13, 0, 1])},
     {"gAMA": gama(45_455), "cHRM": SRGB_CHRM}, {"cICP": bytes([9, 16, 0, 1])}],
)  # fmt: skip
def test_colour_chunks_are_copied_from_png_to_png(chunks: dict[str, bytes]) -> None:
    data = png(*(chunk(kind.encode(), value) for kind, value in chunks.items()))
    result, read, notes = again(data, "png")
    assert dict(read.metadata.colour) == chunks
    assert notes == ()
    assert read.metadata.icc is None
    assert result.index(next(iter(chunks)).encode()) < result.index(b"IDAT")


def test_a_profile_and_srgb_are_not_both_written() -> None:
    data = samples.encoded(Pillow.fromarray(PIXELS), "PNG", icc_profile=samples.srgb())
    result, read, _ = again(data[:33] + chunk(b"gAMA", gama(45_455)) + data[33:], "png")
    assert b"iCCP" in result
    assert b"sRGB" not in result[:100]
    assert dict(read.metadata.colour) == {"gAMA": gama(45_455)}


def shown_as_srgb(data: bytes) -> Any:
    """The picture's colours as a viewer that honours its profile shows them."""
    picture = Pillow.open(io.BytesIO(data)).convert("RGB")
    profile = picture.info.get("icc_profile")
    if profile is None:
        return np.asarray(picture).astype(int)
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return np.asarray(
        ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), renderingIntent=relative)
    ).astype(int)


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff"])
def test_colour_becomes_a_profile_elsewhere(format: str) -> None:  # noqa: A002
    linear = png(chunk(b"gAMA", gama(100_000)))
    data, read, _ = again(linear, format, quality=100) if format != "tiff" else again(linear, format)
    assert read.metadata.icc is not None
    expected = np.where(PIXELS / 255 <= 0.0031308, PIXELS / 255 * 12.92, 1.055 * (PIXELS / 255) ** (1 / 2.4) - 0.055)
    assert np.abs(shown_as_srgb(data) - expected * 255).mean() < 2.5
    for plain in ({"sRGB": b"\0"}, {"gAMA": gama(45_455), "cHRM": SRGB_CHRM}, {"cICP": bytes([1, 13, 0, 1])}):
        made = png(*(chunk(kind.encode(), value) for kind, value in plain.items()))
        assert again(made, format)[1].metadata.icc is None  # sRGB is what is taken for granted


def test_p3_is_the_same_by_any_name() -> None:
    by_numbers = profile_of({"cICP": bytes([12, 13, 0, 1])}, grey=False)
    by_chunks = profile_of({"cHRM": P3}, grey=False)
    assert by_numbers is not None
    assert by_chunks is not None
    # Apple's Display P3: the colorants of red, green and blue in D50, to four digits.
    for name, expected in ((b"rXYZ", (0.5151, 0.2412, -0.0011)), (b"gXYZ", (0.2920, 0.6922, 0.0419)),
                           (b"bXYZ", (0.1571, 0.0666, 0.7841))):  # fmt: skip
        for profile in (by_numbers, by_chunks):
            at = int.from_bytes(profile[profile.index(name) + 4 :][:4], "big")
            found = [value / 65536 for value in struct.unpack(">3i", profile[at + 8 : at + 20])]
            assert found == pytest.approx(expected, abs=3e-4)
    assert ImageCms.getOpenProfile(io.BytesIO(by_numbers)).profile.xcolor_space == "RGB "


def test_precedence_and_nonsense() -> None:
    assert profile_of({"sRGB": b"\0", "gAMA": gama(100_000)}, grey=False) is None
    assert profile_of({"cICP": bytes([9, 8, 0, 1]), "sRGB": b"\0"}, grey=False) is not None
    for odd in (
        {"gAMA": b""},
        {"gAMA": gama(0)},
        {"cHRM": bytes(32)},
        {"cICP": b"\1"},
        {"cICP": bytes([99, 99, 0, 1])},
        {},
    ):
        assert profile_of(odd, grey=False) is None
    assert (profile_of({"gAMA": gama(100_000)}, grey=True) or b"")[16:20] == b"GRAY"
    assert hdr_of({"cICP": bytes([9, 18, 0, 1])}) == "HLG"


@pytest.mark.parametrize("format", ["jpeg", "webp", "tiff"])
def test_hdr_is_told(format: str) -> None:  # noqa: A002
    assert "HDR (PQ)" in " ".join(again(png(chunk(b"cICP", bytes([9, 16, 0, 1]))), format)[2])


@pytest.mark.parametrize("numbers", [(9, 16), (9, 18), (12, 13)])
def test_avif_says_by_numbers_what_its_colours_are(numbers: tuple[int, int]) -> None:
    colours = bytes([*numbers, 0, 1])
    data, back, notes = again(png(chunk(b"cICP", colours)), "avif")
    assert notes == ()
    assert dict(back.metadata.colour) == {"cICP": colours}
    assert (back.metadata.icc is None) is (numbers[1] != 13)  # no profile can say PQ or HLG
    assert data[data.index(b"colrnclx") + 8 :][:4] == struct.pack(">HH", *numbers)
    plain, _, _ = again(png(), "avif")  # to other readers the pixels are the same
    for one in (lambda d: np.asarray(Pillow.open(io.BytesIO(d))), lambda d: read_image(d, max_pixels=99_999).pixels):
        np.testing.assert_array_equal(one(data), one(plain))


def test_the_numbers_of_an_avif_file_are_read() -> None:
    stream = io.BytesIO()
    Pillow.fromarray(PIXELS).save(stream, "AVIF", quality=90)
    data = stream.getvalue()
    at = data.index(b"colrnclx") + 8
    for primaries, transfer, expected in ((12, 13, True), (9, 16, True), (1, 13, False), (2, 2, False)):
        found = header(data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]).metadata.colour
        assert found == ((("cICP", bytes([primaries, transfer, 0, 1])),) if expected else ())
    p3 = data[:at] + struct.pack(">HH", 12, 13) + data[at + 4 :]
    assert again(p3, "avif")[1].metadata.icc is not None
    assert dict(again(p3, "png")[1].metadata.colour) == {"cICP": bytes([12, 13, 0, 1])}


def test_the_profile_of_a_bitmap_of_version_5(tmp_path: Path) -> None:
    profile, body = samples.srgb(), bytes(3 * 4 * 4)
    head = struct.pack("<IiiHHIIiiII", 124, 4, 4, 1, 24, 0, len(body), 0, 0, 0, 0) + bytes(16)
    head += b"DEBM" + bytes(36 + 12) + struct.pack("<IIII", 4, 124 + len(body), len(profile), 0)
    data = b"BM" + struct.pack("<IHHI", 14 + 124 + len(body) + len(profile), 0, 0, 14 + 124) + head + body + profile
    assert header(data).metadata.icc == profile
    (tmp_path / "a.bmp").write_bytes(data[:-100])
    assert read_header(tmp_path / "a.bmp", max_pixels=samples.MANY).metadata.icc is None


def test_compressed_text_is_bounded() -> None:
    bomb = zlib.compress(bytes(40 << 20), 9)
    found = header(png(*(chunk(b"zTXt", b"a%d\0\0" % number + bomb) for number in range(3))))
    assert sum(len(value) for _, value in found.metadata.text) <= 16 << 20


def test_text_is_bounded_where_nothing_else_fits() -> None:
    bomb = b"a\0\0" + zlib.compress(bytes(40 << 20), 9)
    filling = b"II*\0".ljust((16 << 20) - len(bomb), b"\0")  # exactly what is left is as long as the next chunk
    found = header(png(chunk(b"eXIf", filling), chunk(b"zTXt", bomb)))
    assert found.metadata.text == ()
