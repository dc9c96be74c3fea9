"""No file takes more time or memory than its size justifies: small files with large headers, and long ones with
repeated content."""

from __future__ import annotations

import struct
import zlib

import pytest
from PIL import Image as Pillow

from srgan_cli.documents.opening import open_document
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.metadata import png
from srgan_cli.imaging.reading import read_header, read_image
from srgan_cli.imaging.sources import Source
from tests.imaging import samples
from tests.imaging.tiffs import OFFSETS, page, pages, tiff

MANY = 180_000_000


def codestream(width: int, height: int, tile: tuple[int, int] | None = None, channels: int = 3) -> bytes:
    """A JPEG 2000 of 64 by 48 px whose header says it is larger; its decoder reports little of what is missing."""
    made = samples.encoded(Pillow.new("RGB", (64, 48), (200, 10, 10)), "JPEG2000", no_jp2=True)
    size = int.from_bytes(made[4:6], "big")
    head = struct.pack(">HIIIIIIII", 0, width, height, 0, 0, *(tile or (width, height)), 0, 0)
    head += struct.pack(">H", channels) + b"\7\1\1" * channels
    return made[:4] + struct.pack(">H", 2 + len(head)) + head + made[4 + size :]


@pytest.mark.parametrize(
    "data",
    [
        codestream(10_000, 10_000),
        codestream(2_000_000, 60),
        codestream(60, 2_000_000),
        codestream(10_000, 10_000, channels=4),
        codestream(1000, 1000, channels=16_384),
        codestream(255, 255, (1, 1)),
        codestream(5000, 5000, (40, 40)),
        *(f"{kind} 12000 12000 255\n".encode() + b"0 " * 100 for kind in ("P2", "P3", "P5", "P6")),
        *(f"{kind} 12000 12000\n".encode() + b"0 " * 100 for kind in ("P1", "P4")),
        b"P5 12000 12000 65535\n" + bytes(100),
    ],
    ids=lambda data: f"{data[:12]!r} of {len(data)}",
)
def test_what_is_decoded_whole_needs_some_bytes(data: bytes) -> None:
    with pytest.raises(UnreadablePictureError, match=r"has only|take at least|mode"):
        read_header(data, max_pixels=MANY)


_TIFF_METHODS = {"none": 1, "fax 3": 3, "fax 4": 4, "LZW": 5, "JPEG": 7, "deflate": 8, "PackBits": 32773,
                 "LZMA": 34925, "Zstandard": 50000, "WebP": 50001}  # fmt: skip


@pytest.mark.parametrize("method", _TIFF_METHODS.values(), ids=_TIFF_METHODS)
def test_a_tiff_needs_bytes_whatever_packs_it(method: int) -> None:
    bits, photometric = ([1], 0) if method in (3, 4) else ([8, 8, 8], 2)
    with pytest.raises(UnreadablePictureError, match=r"has only|take at least|damaged"):
        read_header(tiff(12_000, 12_000, bits, photometric, bytes(200), compression=method), max_pixels=MANY)


@pytest.mark.parametrize(
    ("width", "height", "bits", "photometric"),
    [(8_388_608, 17, [8] * 3, 8), (9999, 9999, [8] * 3, 9), (12_000, 12_000, [12], 1), (12_000, 12_000, [8] * 3, 6)],
    ids=["CIE Lab", "ICCLab", "12 bits", "YCbCr"],
)  # fmt: skip
def test_a_tiff_of_a_rare_kind_needs_bytes_too(width: int, height: int, bits: list[int], photometric: int) -> None:
    """Of these, libvips is shown another table; the file's own says what they take."""
    data = tiff(width, height, bits, photometric, bytes(200))
    with pytest.raises(UnreadablePictureError, match="take at least"):
        read_header(data, max_pixels=MANY)
    preview = page(8, 8, [8], 1, bytes(64), more={254: (4, [1])})
    with pytest.raises(UnreadablePictureError, match="take at least"):
        read_header(pages([preview, page(width, height, bits, photometric, bytes(200))]), max_pixels=MANY)


def test_pages_that_share_their_data_are_refused() -> None:
    inside = zlib.compress(bytes(1200 * 1200), 9)
    tags, data = page(1200, 1200, [8], 1, inside, compression=8)
    chain = pages([(tags, data), *((dict(tags), b"") for _ in range(60))])
    at = struct.pack("<HHII", OFFSETS, 4, 1, 8)
    shared = b"".join(part if number == 0 else at + part[12:] for number, part in enumerate(_at_each(chain)))
    with (
        pytest.raises(UnreadablePictureError, match="share their data"),
        open_document(shared, max_pixels=MANY),
    ):
        pass


def _at_each(chain: bytes) -> list[bytes]:
    """Cut before each entry that says where a page's data are."""
    first, *others = chain.split(struct.pack("<HHI", OFFSETS, 4, 1))
    return [first, *(struct.pack("<HHI", OFFSETS, 4, 1) + other for other in others)]


def test_text_that_unpacks_to_nothing_useful_is_unpacked_so_far_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All chunks together, also those that are left out for what they would become."""
    packed = zlib.compress(bytes(20 << 20), 9)
    chunk = b"zTXt" + b"a\0\0" + packed
    plain = samples.encoded(Pillow.new("L", (8, 8)), "PNG")
    one = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    asked: list[int] = []
    real = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self._real = real()

        def decompress(self, data: bytes, room: int) -> bytes:
            made = self._real.decompress(data, room)
            asked.append(len(made))
            return made

        @property
        def eof(self) -> bool:
            return self._real.eof

    monkeypatch.setattr(zlib, "decompressobj", Counting)
    assert png.read(Source(plain[:33] + one * 40 + plain[33:])).text == ()
    assert sum(asked) <= 32 << 20


@pytest.mark.parametrize("format", ["JPEG2000", "WEBP", "AVIF", "HEIF"])
def test_the_emptiest_honest_pictures_of_these_pass(format: str) -> None:  # noqa: A002
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    options = {"lossless": True} if format == "WEBP" else {}
    blank = samples.encoded(Pillow.new("RGB", (2000, 1500), (250, 250, 249)), format, **options)
    assert read_image(blank, max_pixels=MANY).pixels.min() >= 245
