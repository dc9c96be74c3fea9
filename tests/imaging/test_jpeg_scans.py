"""JPEGs with several scans: missing scans are damage, although libjpeg does not report them."""

from __future__ import annotations

import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging import whole
from srgan_cli.imaging.reading import open_picture, read_header, read_image
from srgan_cli.imaging.rgb import glance
from srgan_cli.imaging.sources import Source
from srgan_cli.wording import are
from tests.imaging import samples

MANY = 180_000_000
END = b"\xff\xd9"
NOISE = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def scans(data: bytes) -> list[bytes]:
    """The head, and each scan with the tables before it."""
    starts = [found.start() for found in re.finditer(rb"\xff[\xc2\xc4\xda]", data)]
    cuts, was = [0], 0xC2
    for start in starts:
        if data[start + 1] != 0xC2 and was in (0xC2, 0xDA):
            cuts.append(start)
        was = data[start + 1]
    return [data[begin:end] for begin, end in pairwise([*cuts, len(data) - 2])]


def made(mode: str = "RGB") -> bytes:
    return samples.encoded(Pillow.fromarray(NOISE).convert(mode), "JPEG", progressive=True, quality=85)


def read(data: bytes) -> Any:
    return read_image(data, max_pixels=MANY).pixels


def test_a_scan_that_is_missing_is_damage() -> None:
    head, *parts = scans(made())
    assert len(parts) == 10
    whole_picture = read(head + b"".join(parts) + END)
    for lost in range(len(parts)):
        without = head + b"".join(parts[:lost] + parts[lost + 1 :]) + END
        with pytest.raises(UnreadablePictureError, match=r"damaged or incomplete.*: .*scan"):
            read(without)
        with open_picture(without, max_pixels=MANY, accept_damaged=True) as picture:
            assert picture.read_rows(60).shape == whole_picture.shape
            assert picture.damage is not None
    for kept in range(1, len(parts)):
        with pytest.raises(UnreadablePictureError, match="scan"):
            read(head + b"".join(parts[:kept]) + END)


def test_scans_that_change_places_without_harm_are_none() -> None:
    head, *parts = scans(made())
    expected = read(head + b"".join(parts) + END)
    chroma = [head, parts[0], parts[2], parts[3], parts[1], *parts[4:], END]
    np.testing.assert_array_equal(read(b"".join(chroma)), expected)
    twice = [head, parts[0], *parts, END]
    np.testing.assert_array_equal(read(b"".join(twice)), expected)
    with pytest.raises(UnreadablePictureError, match="repeated or misplaced"):
        read(b"".join([head, *parts[:4], parts[5], parts[4], *parts[6:], END]))
    assert read(made("L")).shape == (60, 90, 1)
    assert read(made("CMYK")).shape == (60, 90, 3)


def one_after_another(count: int) -> bytes:
    """The first `count` channels of a sequential JPEG, each in a scan of its own: three files of one channel."""
    alone = [samples.encoded(Pillow.fromarray(NOISE[:, :, channel]), "JPEG", quality=85) for channel in range(3)]
    start = alone[0].index(b"\xff\xc0")
    after = start + 2 + int.from_bytes(alone[0][start + 2 : start + 4], "big")
    frame = alone[0][start : start + 9]
    head = alone[0][:start] + frame[:2] + b"\0\x11" + frame[4:9] + b"\3" + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    parts = []
    for channel, data in enumerate(alone[:count]):
        scan = data.index(b"\xff\xda")
        tables = data[after:scan] if channel == 0 else b""
        parts.append(tables + data[scan : scan + 5] + bytes([channel + 1]) + data[scan + 6 : -2])
    return head + b"".join(parts) + END


def test_channels_that_come_one_by_one_must_all_come() -> None:
    assert read(one_after_another(3)).shape == (60, 90, 3)
    for count in (1, 2):
        with pytest.raises(
            UnreadablePictureError, match=f"{3 - count} of its 3 colour channels {are(3 - count)} missing"
        ):
            read(one_after_another(count))


def test_all_readers_notice(tmp_path: Path) -> None:
    head, *parts = scans(made())
    broken = head + b"".join(parts[:4]) + END
    with pytest.raises(UnreadablePictureError, match="scan"):
        glance(broken, max_pixels=MANY, side_px=20)
    (tmp_path / "a.jpg").write_bytes(broken)
    with pytest.raises(UnreadablePictureError, match="scan"):
        read_image(tmp_path / "a.jpg", max_pixels=MANY)
    without_vips = whole.WholePicture(Source(broken), "jpeg", MANY)
    with pytest.raises(ValueError, match="scan"):
        without_vips.decode()


def patient(side: int, passes: int) -> bytes:
    """A JPEG of one colour whose scans change nothing: each coefficient a bit at a time, as the standard allows."""
    data = samples.encoded(Pillow.new("L", (side, side)), "JPEG", progressive=True, quality=50)
    head, first, scan, *_ = scans(data)
    at = scan.index(b"\xff\xda")
    table, start, rest = scan[:at], scan[at : at + 7], scan[at + 10 :]
    steps = [(place, bit) for bit in range(passes - 1, -1, -1) for place in range(1, 64)]
    more = [
        start + bytes([place, place, (0 if bit == passes - 1 else bit + 1) << 4 | bit]) + rest for place, bit in steps
    ]
    dc = first.replace(b"\0\0\1", b"\0\0\0")  # all bits of the mean at once
    return head + dc + table + b"".join(more) + END


def test_a_jpeg_of_hundreds_of_scans_is_refused_where_it_is_large() -> None:
    large = patient(7000, 14)
    began = time.process_time()
    with pytest.raises(UnreadablePictureError, match="of 883 scans"):
        read(large)
    assert time.process_time() - began < 5
    assert len(np.unique(read(patient(200, 14)))) == 1
    assert len(np.unique(read(patient(2000, 1)))) == 1
    assert read_header(large, max_pixels=MANY).width == 7000
