"""Reading pictures for training, with the usual readers (`imaging.rgb`), by several threads, in order."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from srgan_cli.errors import PictureError, UnreadablePictureError, shown
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.rgb import RGB, glance, read_rgb
from srgan_cli.imaging.signs import file_signs

T = TypeVar("T")
R = TypeVar("R")

Bytes = RGB
SUFFIXES = PICTURE_SUFFIXES
"""Lower-case suffixes of files that a folder walk treats as pictures."""

_MAX_PIXELS = 180_000_000  # pictures are decoded whole, and several at a time
_GLANCE_PX = 256  # the minimum shorter side of a JPEG that is decoded at reduced size for examination


@dataclass(frozen=True)
class Facts:
    """What is known of a picture after examination.

    `width` and `height` are of the whole picture, upright. `digest` (hex) is equal for equal pictures: of its size and
    its pixels as examined. `std` is the standard deviation of its grey levels (of 255), without the finest grain.
    `jpeg_quality` is on libjpeg's scale of 1 to 100, None for other formats.
    """

    width: int
    height: int
    digest: str
    std: float
    jpeg_quality: int | None


def read_pixels(path: Path) -> Bytes:
    """The whole picture, (H, W, 3) uint8.

    Raises `UnreadablePictureError`: missing, damaged, truncated, of an unknown format, above 180 megapixels. Its
    message is the reason, without the file's name.
    """
    with _nameless(path):
        return read_rgb(path, max_pixels=_MAX_PIXELS)


def is_grey(pixels: Bytes) -> bool:
    """Whether a picture, (H, W, 3), is grey, with a tolerance of one level for codecs."""
    levels = pixels.astype(np.int16)
    return bool(np.abs(levels[..., :2] - levels[..., 1:]).mean() <= 1.0)


def without_colours(pixels: Bytes) -> Bytes:
    """(H, W, 3) -> the same, grey: the luma of BT.601 in all channels."""
    grey: Bytes = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return grey


def examine(path: Path) -> Facts:
    """Facts about a picture. JPEGs are decoded at reduced size, which is much faster. Raises as `read_pixels`."""
    with _nameless(path):
        pixels, header = glance(path, max_pixels=_MAX_PIXELS, side_px=_GLANCE_PX)
        codec, quality = file_signs(path)
    width, height = header.width, header.height
    digest = hashlib.blake2b(f"{width}x{height};".encode(), digest_size=16)
    digest.update(pixels.data)
    return Facts(width, height, digest.hexdigest(), _grey_std(pixels), quality if codec == "JPEG" else None)


@contextmanager
def _nameless(path: Path) -> Iterator[None]:
    """The message without the file's name, which the caller adds."""
    try:
        yield
    except PictureError as err:
        reason = str(err).removeprefix(f"{shown(path)} ").removeprefix("is ")
        if "--max-pixels" in reason:  # an option of `srgan upscale`
            reason = f"more than {_MAX_PIXELS / 1e6:.0f} megapixels; cut it into parts"
        raise UnreadablePictureError(reason) from err


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` applied to each item, in order, by threads that are only a few items ahead, so that memory stays small.

    Threads are sufficient: Pillow and OpenCV release Python's lock while they decode and resize.
    """
    threads = cores()
    waiting: deque[Future[R]] = deque()
    rest = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="srgan-pictures")
    with _patient_pillow():
        try:
            waiting.extend(pool.submit(work, item) for item in islice(rest, threads + 2))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """Number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _patient_pillow() -> Iterator[None]:
    """Without Pillow's warnings about unusual EXIF, which are irrelevant here.

    The filters apply to the whole process, not to a thread, so they are set once around all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif")
        yield


def _grey_std(pixels: Bytes) -> float:
    height, width = pixels.shape[:2]
    factor = min(1.0, _GLANCE_PX / min(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if factor < 1 else pixels
    return float(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).std())
