"""Animations are composited as in browsers, and keep their timing."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.config import PageRange
from srgan_cli.documents.opening import open_document, read_contents
from srgan_cli.errors import UnreadablePictureError
from tests.documents.films import DELAYS, HEIGHT, WIDTH, film, frames
from tests.imaging import samples


def shown(data: bytes) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    with open_document(data, max_pixels=samples.MANY) as document:
        found = []
        for number in range(document.count):
            with document.open(number) as frame:
                found.append(frame.read_rows(HEIGHT))
        return found


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("options", [{}, {"disposal": 2, "blend": 1}, {"disposal": 1, "blend": 1}])
def test_every_frame_is_what_was_drawn(format_: str, clear: bool, options: dict[str, int]) -> None:
    if options and format_ != "PNG":
        pytest.skip("of PNG only")
    if options.get("disposal") == 2 and not clear:
        pytest.skip("Pillow writes what no browser shows as it was meant")
    for made, wanted in zip(shown(film(format_, clear=clear, **options)), frames(clear=clear), strict=True):
        drawn = np.asarray(wanted.convert("RGBA" if made.shape[2] == 4 else "RGB")).astype(int)
        seen = drawn[:, :, 3:] > 0 if made.shape[2] == 4 else np.ones((HEIGHT, WIDTH, 1), bool)
        assert np.abs((made - drawn) * seen).max() <= (60 if format_ == "GIF" else 0)  # its palette
        if made.shape[2] == 4:
            assert np.array_equal(made[:, :, 3], drawn[:, :, 3])


@pytest.mark.parametrize("plays", [0, 1, 4])
@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_times_are_read(format_: str, plays: int) -> None:
    with open_document(film(format_, plays=plays), max_pixels=samples.MANY) as document:
        assert document.timing is not None
        assert (document.timing.plays, list(document.timing.delays_ms)) == (plays, DELAYS)


def test_frames_may_be_opened_in_any_order() -> None:
    inside = shown(film("GIF"))
    with open_document(film("GIF"), max_pixels=samples.MANY) as document:
        for number in (4, 1, 5, 0):
            with document.open(number) as frame:
                assert np.array_equal(frame.read_rows(HEIGHT), inside[number])


def test_sixteen_bits_and_grey_stay() -> None:
    from tests.documents.test_moving import apng_of  # made by hand: Pillow writes none

    for channels, depth in ((1, 8), (3, 16), (2, 8), (4, 16)):
        pictures = [samples.pixels(9, 12, channels, depth), samples.pixels(9, 12, channels, depth)[::-1].copy()]
        with open_document(apng_of(pictures), max_pixels=samples.MANY) as document:
            assert (document.header(0).channels, document.header(0).depth) == (channels, depth)
            for number, wanted in enumerate(pictures):
                with document.open(number) as frame:
                    assert np.array_equal(frame.read_rows(9), wanted)


def test_a_partial_first_frame_leaves_the_rest_clear() -> None:
    data = bytearray(film("GIF"))
    data[6:10] = struct.pack("<HH", WIDTH + 4, HEIGHT + 2)
    with open_document(bytes(data), max_pixels=samples.MANY) as document, document.open(0) as frame:
        pixels = frame.read_rows(HEIGHT + 2)
    assert pixels.shape == (HEIGHT + 2, WIDTH + 4, 4)
    assert (pixels[HEIGHT:, :, 3].max(), pixels[:HEIGHT, :WIDTH, 3].min()) == (0, 255)


def test_soft_edges_are_composited() -> None:
    first = Pillow.new("RGBA", (8, 8), (200, 0, 0, 255))
    second = Pillow.new("RGBA", (8, 8), (0, 0, 200, 128))
    data = samples.encoded(first, "PNG", save_all=True, append_images=[second], blend=1)
    with open_document(data, max_pixels=samples.MANY) as document, document.open(1) as frame:
        assert np.abs(frame.read_rows(8)[0, 0].astype(int) - [100, 0, 100, 255]).max() <= 1


@pytest.mark.parametrize("format_", ["GIF", "PNG"])
def test_a_frame_that_is_cut_short_is_named(format_: str) -> None:
    data = film(format_)
    with open_document(data[: len(data) - 40], max_pixels=samples.MANY) as document:
        with document.open(0) as frame:
            frame.read_rows(HEIGHT)
        with pytest.raises(UnreadablePictureError, match="frame 6 of the input"):  # noqa: SIM117
            with document.open(5) as frame:
                frame.read_rows(HEIGHT)


def test_ten_thousand_frames_of_a_huge_canvas_are_refused() -> None:
    frame = b"!\xf9\4\0\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    table = b"\0\0\0\xff\xff\xff"
    big = b"GIF89a" + struct.pack("<HH", 3000, 3000) + b"\x80\0\0" + table + frame * 9_000 + b";"
    with pytest.raises(UnreadablePictureError, match="raise --max-pixels"):
        read_contents(big, PageRange(), max_pixels=10**9)
    many = b"GIF89a" + struct.pack("<HH", 1, 1) + b"\x80\0\0" + table + frame * 10_001 + b";"
    with pytest.raises(UnreadablePictureError, match="more than 10000"):
        read_contents(many, PageRange(), max_pixels=10**9)
