"""Other readers can read the written animations: frames, times, loops, transparency, metadata."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.config import WriteOptions
from srgan_cli.documents.binding import Page
from srgan_cli.documents.document import Timing
from srgan_cli.documents.moving import ApngBinder, GifBinder, MovingBinder, WebpBinder
from srgan_cli.documents.opening import open_document
from srgan_cli.imaging.image import Header, Metadata
from srgan_cli.imaging.output import Output
from tests.documents.films import DELAYS, HEIGHT, WIDTH, frames
from tests.imaging import samples

Pixels = np.ndarray[Any, Any]
_BINDERS: dict[str, type[MovingBinder]] = {"webp": WebpBinder, "png": ApngBinder, "gif": GifBinder}


def bound(format_: str, pictures: list[Pixels], plays: int = 3, **options: Any) -> bytes:
    file = io.BytesIO()
    metadata = Metadata(icc=samples.srgb(), xmp=b"<x/>")
    numbers = tuple(range(1, len(pictures) + 1))
    timing = Timing(plays, tuple(DELAYS[: len(pictures)]))
    binder = _BINDERS[format_](file, WriteOptions(**options), timing, numbers)
    for pixels in pictures:
        height, width, channels = pixels.shape
        depth: Any = 8 if pixels.dtype == np.uint8 else 16
        output = Output(format_, depth, width, height)
        binder.add(Page(pixels, Header(width, height, channels, depth, format_), output, metadata))
    binder.finish()
    return file.getvalue()


def apng_of(pictures: list[Pixels]) -> bytes:
    return bound("png", pictures)


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize(("format_", "options"), [("webp", {"lossless": True}), ("png", {}), ("gif", {})])
def test_frames_times_and_loops_are_read_by_others(format_: str, options: dict[str, Any], clear: bool) -> None:
    pictures = [np.asarray(frame) for frame in frames(clear=clear)]
    with Pillow.open(io.BytesIO(bound(format_, pictures, **options))) as file:
        assert getattr(file, "n_frames", 1) == len(DELAYS)
        assert file.info["loop"] == (2 if format_ == "gif" else 3)
        for number, wanted in enumerate(pictures):
            file.seek(number)
            file.load()
            assert file.info["duration"] == DELAYS[number]
            shown = np.asarray(file.convert("RGBA" if clear else "RGB")).astype(int)
            if clear:
                assert np.array_equal(shown[:, :, 3], wanted[:, :, 3])
                shown, wanted = shown * (shown[:, :, 3:] > 0), wanted * (wanted[:, :, 3:] > 0)
            assert np.abs(shown - wanted).mean() <= (4 if format_ == "gif" else 0)


@pytest.mark.parametrize("plays", [0, 1])
@pytest.mark.parametrize("format_", ["webp", "png", "gif"])
def test_loops_come_back(format_: str, plays: int) -> None:
    data = bound(format_, [np.asarray(frame) for frame in frames()], plays)
    with open_document(data, max_pixels=samples.MANY) as document:
        assert document.timing == Timing(plays, tuple(DELAYS))


@pytest.mark.parametrize("format_", ["webp", "png"])
def test_metadata_are_written_once(format_: str) -> None:
    data = bound(format_, [np.asarray(frame) for frame in frames()])
    with Pillow.open(io.BytesIO(data)) as file:
        assert file.info["icc_profile"] == samples.srgb()
    assert data.count(b"<x/>") == 1


def test_what_stands_still_is_not_written_again() -> None:
    still = samples.pixels(HEIGHT, WIDTH, 3)
    moved = still.copy()
    moved[3:6, 8:12] = 255 - moved[3:6, 8:12]
    for format_ in ("webp", "png", "gif"):
        one, two = (len(bound(format_, [still, *more])) for more in ([], [moved]))
        assert two - one < one / 2, format_
        assert len(bound(format_, [still, still, still])) - one < 2000, format_


def test_a_gif_draws_nothing_for_a_little_noise() -> None:
    random = np.random.default_rng(0)
    still = samples.pixels(HEIGHT, WIDTH, 3)
    noisy = [(still + random.integers(-1, 2, still.shape)).astype(np.uint8) for _ in range(3)]
    with Pillow.open(io.BytesIO(bound("gif", noisy))) as file:
        shown = []
        for number in range(3):
            file.seek(number)
            shown.append(np.asarray(file.convert("RGB")).copy())
    assert np.array_equal(shown[0], shown[1])
    assert np.array_equal(shown[0], shown[2])
