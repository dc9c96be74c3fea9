"""The boundary: any exception of a decoder is one picture's error, with this file's own reason."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.config import WriteOptions
from srgan_cli.errors import DefectError, PictureError, UnreadablePictureError
from srgan_cli.imaging import decoding
from srgan_cli.imaging.decoding import WholeRows, boundary
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.image import Header, Metadata
from srgan_cli.imaging.output import Output
from srgan_cli.imaging.reading import OpenPicture, open_picture, read_header, read_image
from srgan_cli.imaging.resizing import resize
from srgan_cli.imaging.sources import Source
from tests.imaging import samples
from tests.imaging.tiffs import tiff

NOISE = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)


def jpeg(**options: Any) -> bytes:
    return samples.encoded(Pillow.fromarray(NOISE), "JPEG", quality=80, **options)


def read(data: bytes, **options: Any) -> Any:
    return read_image(data, max_pixels=samples.MANY, **options)


def raising(err: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise err

    return fail


@pytest.mark.parametrize(
    "err",
    [ZeroDivisionError("division by zero"), IndexError("list index"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
     RecursionError("too deep"), OSError("image file is truncated"), SyntaxError("not a BMP"), RuntimeError("odd"),
     KeyError("mode"), struct.error("unpack"), MemoryError(), OSError(5, "Input/output error"), Exception()],
)  # fmt: skip
def test_whatever_is_raised_becomes_a_picture_error(err: Exception) -> None:
    with pytest.raises(UnreadablePictureError, match=r"a\.png") as caught, boundary("a.png"):
        raise err
    assert caught.value.__cause__ is err
    assert "\n" not in str(caught.value)


def test_a_fault_of_our_own_says_so_and_where() -> None:
    with pytest.raises(PictureError) as caught, boundary("a.png"):
        read_header(b"", max_pixels=1)
    assert not isinstance(caught.value, DefectError)
    place = r"defect in srgan.*AssertionError at srgan_cli/imaging/writing\.py:\d+"
    with pytest.raises(DefectError, match=place), boundary("a.png"):
        _assert_in_the_package()
    with pytest.raises(UnreadablePictureError), boundary("a.png"):
        raise AssertionError("of a decoder: it was not raised in the package")


def _assert_in_the_package() -> None:
    from srgan_cli.config import WriteOptions
    from srgan_cli.imaging.output import Output
    from srgan_cli.imaging.writing import write_picture

    header = read_header(jpeg(), max_pixels=samples.MANY)
    write_picture(io.BytesIO(), NOISE[0], header, Output("png", 8, 3, 3), WriteOptions())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_a_program_passes(kind: type[BaseException]) -> None:
    with pytest.raises(kind), boundary("a.png"):
        raise kind


# The samples of fuzzed and public files


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_latin_1_keyword_is_no_obstacle() -> None:
    data = samples.encoded(Pillow.fromarray(NOISE), "PNG")
    odd = data[:33] + _chunk(b"tEXt", "Größe\0Übersicht".encode("latin-1")) + data[33:]
    np.testing.assert_array_equal(read(odd).pixels, NOISE)


def _bmp(bits: int, packing: int, body: bytes, *, colours: int = 0, width: int = 300, height: int = 400) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, packing, len(body), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + head + body


@pytest.mark.parametrize(
    "data",
    [
        _bmp(8, 0, bytes(200), colours=256),  # not even the palette is there
        _bmp(8, 1, bytes(1024) + b"\xff\x01" * 10, colours=256),
        _bmp(4, 2, bytes(64) + b"\0\2", colours=16),
        _bmp(24, 0, bytes(1000)),
        _bmp(1, 0, bytes(8), width=60_000, height=60_000),
        _bmp(8, 1, bytes(1024) + b"\0\1", colours=256, width=60_000, height=30_000),
        _bmp(24, 7, bytes(1000)),
        _bmp(24, 0, bytes(1000), width=-5),
        _bmp(24, 0, bytes(1000), height=-(2**31)),
        _bmp(17, 0, bytes(1000)),
        samples.encoded(Pillow.fromarray(NOISE), "BMP")[:5000],
    ],
)
def test_odd_bitmaps(data: bytes) -> None:
    with pytest.raises(UnreadablePictureError):
        read(data)


def _mutants(data: bytes, count: int, seed: int) -> list[bytes]:
    """Bytes changed in the first part, where structures are; cut; and spliced."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 9))):
            at = int(rng.integers(4, min(len(changed), 1200)))
            changed[at] = int(rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))]))
        if index % 5 == 0:
            changed = changed[: int(rng.integers(12, len(changed)))]
        made.append(bytes(changed))
    return made


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF"])
def test_mutants_are_pictures_or_picture_errors(format: str) -> None:  # noqa: A002
    picture = Pillow.fromarray(samples.pixels(40, 60, 3))
    if format == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        stream = io.BytesIO()
        pillow_heif.from_pillow(picture).save(stream)
        data = stream.getvalue()
    else:
        exif = {"exif": b"Exif\0\0" + samples.exif("<", 6)} if format in ("JPEG", "WEBP", "PNG") else {}
        data = samples.encoded(picture, format, **exif)
    for mutant in _mutants(data, 60, seed=3):
        try:
            read_image(mutant, max_pixels=1_000_000)
        except UnreadablePictureError:
            continue


# Lost picture


def _restarts(data: bytes) -> list[int]:
    return [found.start() for found in re.finditer(b"\xff[\xd0-\xd7]", data)]


def _damaged_jpegs() -> dict[str, bytes]:
    plain, steps, progressive = jpeg(), jpeg(restart_marker_rows=1), jpeg(progressive=True)
    places = _restarts(steps)
    return {
        "cut": plain[: len(plain) // 2],
        "cut, with an end": plain[: len(plain) // 2] + b"\xff\xd9",
        "progressive, cut, with an end": progressive[: len(progressive) // 2] + b"\xff\xd9",
        "a restart marker lost": steps[: places[10]] + steps[places[10] + 2 :],
        "a piece lost": steps[: places[10]] + steps[places[12] :],
        "garbled": plain[: len(plain) // 2] + bytes(200) + b"\xff\x13" * 30 + plain[len(plain) // 2 + 300 :],
    }


@pytest.mark.parametrize("name", _damaged_jpegs())
def test_lost_picture_fails_and_can_be_accepted(name: str) -> None:
    data = _damaged_jpegs()[name]
    with pytest.raises(UnreadablePictureError, match=r"damaged or incomplete.*: "):
        read(data)
    with open_picture(data, max_pixels=samples.MANY, accept_damaged=True) as picture:
        before = picture.damage
        whole = np.concatenate([picture.read_rows(64) for _ in range(7)])
        assert before is None
        assert picture.damage is not None
        assert "damaged" in picture.damage
    good = read(jpeg()).pixels
    assert whole.shape == good.shape
    if "progressive" not in name:  # what came before the damage is there
        np.testing.assert_array_equal(whole[:100], good[:100])


@pytest.mark.parametrize("tail", [b"junk behind the end" * 9, b"\0" * 4000])
def test_harmless_oddities_pass(tail: bytes) -> None:
    data = jpeg()
    np.testing.assert_array_equal(read(data + tail).pixels, read(data).pixels)
    extra = data[:-2] + bytes(100) + b"\xff\xd9"  # extraneous bytes before the end, as many cameras have
    np.testing.assert_array_equal(read(extra).pixels, read(data).pixels)


def _odd_jpegs(data: bytes) -> dict[str, bytes]:
    """Oddities that lose nothing: an unknown revision of JFIF, bytes between segments, an unknown colour transform."""
    version, scan = data.index(b"JFIF\0") + 5, data.index(b"\xff\xda")
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x07"
    return {
        "revision": data[:version] + b"\x03" + data[version + 1 :],
        "bytes between": data[:scan] + bytes(4) + data[scan:],
        "transform": data[: data.index(b"\xff\xe0")] + adobe + data[data.index(b"\xff\xdb") :],
    }


@pytest.mark.parametrize("name", _odd_jpegs(jpeg()))
@pytest.mark.parametrize("rows", [64, 400])
def test_no_damage_hides_behind_an_oddity(name: str, rows: int) -> None:
    """libjpeg reports only the first problem that it finds."""
    whole = read(jpeg()).pixels
    sound = _odd_jpegs(jpeg())[name]
    np.testing.assert_array_equal(_in_parts(sound, rows)[0], whole)
    broken = sound[:-3000] + b"\xff\xd9"
    with pytest.raises(UnreadablePictureError, match="premature end of data segment"):
        _in_parts(broken, rows)
    pixels, damage = _in_parts(broken, rows, accept_damaged=True)
    assert damage is not None
    np.testing.assert_array_equal(pixels[:300], whole[:300])


def _in_parts(data: bytes, rows: int, **options: Any) -> tuple[Any, str | None]:
    with open_picture(data, max_pixels=samples.MANY, **options) as picture:
        parts = []
        while len(part := picture.read_rows(rows)):
            parts.append(part)
        return np.concatenate(parts), picture.damage


@pytest.mark.parametrize("busy", ["resize", "encode"])
def test_damage_is_found_while_others_use_libvips(busy: str) -> None:
    """libvips' error buffer is cleared when another thread looks up a method of an image."""
    broken = _damaged_jpegs()["cut, with an end"]
    over = threading.Event()
    small = np.ascontiguousarray(NOISE[:60, :60])
    output = Output("png", 8, 60, 60)

    def work() -> None:
        while not over.is_set():
            if busy == "resize":
                resize(small, 31, 30)
            else:
                encode(small, io.BytesIO(), output, Metadata(), WriteOptions())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            with pytest.raises(UnreadablePictureError, match="premature end of data segment"):
                read(broken)
    finally:
        over.set()
        for thread in threads:
            thread.join()


_PYVIPS_FIRST = """
import gc, sys, threading
import pyvips
from pathlib import Path
from srgan_cli.errors import PictureError
from srgan_cli.imaging.reading import read_image

assert pyvips._log_handler_id
def work():
    for _ in range(10):
        try:
            read_image(Path(sys.argv[1]), max_pixels=10**6)
        except PictureError:
            pass
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert pyvips._log_handler_id is None
"""


def test_a_program_that_imported_pyvips_first_lives_on(tmp_path: Path) -> None:
    """GLib ends a process whose handler of warnings, which is pyvips' and Python, leads to another warning."""
    (tmp_path / "a.jpg").write_bytes(_damaged_jpegs()["cut, with an end"])
    ran = subprocess.run([sys.executable, "-c", _PYVIPS_FIRST, str(tmp_path / "a.jpg")], capture_output=True)
    assert ran.returncode == 0, ran.stderr


def test_each_file_has_its_own_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """libvips has one buffer for all threads; a damaged JPEG's words must not become a PNG's."""
    broken_jpeg = _damaged_jpegs()["cut, with an end"]
    png = bytearray(samples.encoded(Pillow.fromarray(NOISE), "PNG"))
    png[len(png) // 2] ^= 0xFF
    reasons: dict[str, set[str]] = {"jpeg": set(), "png": set()}

    def work(name: str, data: bytes) -> None:
        for _ in range(12):
            try:
                read(data)
            except UnreadablePictureError as err:
                reasons[name].add(str(err))

    threads = [threading.Thread(target=work, args=one) for one in (("jpeg", broken_jpeg), ("png", bytes(png)))] * 1
    threads += [threading.Thread(target=work, args=("jpeg", broken_jpeg))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reasons["jpeg"]) == 1
    assert len(reasons["png"]) == 1
    assert "premature end of data segment" in next(iter(reasons["jpeg"]))
    assert "premature" not in next(iter(reasons["png"]))


def test_what_a_decoder_cannot_do_is_not_damage() -> None:
    for words in (
        ": tiled separate planes not supported",
        ": Unsupported bit depth",
        ": LERC support is not configured",
    ):
        assert "It does not seem to be damaged" in str(decoding.damaged("a.tif", words))
    assert "is damaged" in str(decoding.damaged("a.tif", ": out of data"))


# No more than the bytes can hold


def _png_of(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def test_headers_without_data_cost_nothing() -> None:
    jpeg_head = jpeg(progressive=True)
    at = jpeg_head.index(b"\xff\xc2")
    giant_jpeg = jpeg_head[: at + 5] + struct.pack(">HH", 40_000, 40_000) + jpeg_head[at + 9 :]
    gif = b"GIF89a" + struct.pack("<HH", 40_000, 40_000) + b"\x80\0\0" + bytes(6)
    gif += b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0;"
    for data in (_png_of(40_000, 40_000, 8, 2, zlib.compress(bytes(5000))), giant_jpeg, gif):
        with pytest.raises(UnreadablePictureError, match=r"has only|take at least"):
            read_header(data, max_pixels=2 * samples.MANY)


def test_a_tiff_of_colours_for_several_px_takes_some_bytes_too() -> None:
    plain = tiff(8_388_631, 17, [8, 8, 8], 6, bytes(1173))
    with pytest.raises(UnreadablePictureError, match="take at least"):
        read_header(plain, max_pixels=samples.MANY * 2)
    packed = tiff(20_000, 20_000, [8, 8, 8], 6, bytes(1173), compression=7)
    with pytest.raises(UnreadablePictureError):
        read_header(packed, max_pixels=samples.MANY * 2)


def test_the_emptiest_honest_pictures_pass() -> None:
    blank = Pillow.new("1", (9000, 6000), 1)
    assert read(samples.encoded(blank, "PNG", optimize=True)).pixels.min() == 255
    assert read_header(samples.encoded(Pillow.new("L", (9000, 6000)), "JPEG"), max_pixels=samples.MANY).width == 9000
    assert read_header(samples.encoded(Pillow.new("P", (9000, 6000)), "GIF"), max_pixels=samples.MANY).width == 9000


def test_pixels_of_another_size_than_the_header_says_are_damage() -> None:
    """HEIC and JPEG 2000 may only show it when they are decoded."""
    header = Header(8, 6, 1, 8, "heic")
    with (
        OpenPicture(Source(b"x"), header, WholeRows(lambda: (np.zeros((5, 8), np.uint8), None))) as picture,
        pytest.raises(UnreadablePictureError, match="damaged"),
    ):
        picture.read_rows(6)
