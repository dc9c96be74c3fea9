"""JPEG 2000: all of its tiles are present, or the picture is damaged."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.reading import read_image
from tests.imaging import samples

PIXELS = samples.pixels(70, 90, 3)
KINDS: list[dict[str, Any]] = [{"no_jp2": True}, {"progression": "RPCL"}, {"plt": True}, {}]


def made(**options: Any) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(PIXELS).save(stream, "JPEG2000", tile_size=(32, 32), **options)
    return stream.getvalue()


def parts(data: bytes) -> list[int]:
    """Where the parts of tiles begin: Isot follows a length of ten."""
    return [at for at in range(len(data)) if data[at : at + 4] == b"\xff\x90\0\x0a"]


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_missing_tile_is_damage_and_no_flat_area(options: dict[str, Any]) -> None:
    data = made(**options)
    np.testing.assert_array_equal(read_image(data, max_pixels=samples.MANY).pixels, PIXELS)
    starts = parts(data)
    assert len(starts) == 9
    for lost in (0, 4, 7):
        without = data[: starts[lost]] + data[starts[lost + 1] :]
        with pytest.raises(UnreadablePictureError, match="1 of its 9 tiles is missing"):
            read_image(without, max_pixels=samples.MANY)
    twice = data[: starts[1]] + data[starts[0] : starts[1]] + data[starts[2] :]
    with pytest.raises(UnreadablePictureError, match="damaged"):
        read_image(twice, max_pixels=samples.MANY)


@pytest.mark.parametrize("cut", [0.3, 0.9, 0.99])
def test_a_file_that_is_cut_is_damaged(cut: float) -> None:
    for options in KINDS:
        data = made(**options)
        with pytest.raises(UnreadablePictureError, match="damaged"):
            read_image(data[: int(cut * len(data))], max_pixels=samples.MANY)


def test_the_last_tile_may_leave_its_length_open() -> None:
    """0: as far as the end of the picture."""
    data = bytearray(made(no_jp2=True))
    at = parts(bytes(data))[-1]
    data[at + 6 : at + 10] = bytes(4)
    np.testing.assert_array_equal(read_image(bytes(data), max_pixels=samples.MANY).pixels, PIXELS)
