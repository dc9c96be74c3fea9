"""The effect of saving a crop as JPEG or WebP: encoded and decoded again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

# The plugins by name: otherwise Pillow loads them on first use, which is not thread-safe.
from PIL import Image, JpegImagePlugin, WebPImagePlugin  # noqa: F401

BLOCK_PX = 16  # block sizes of JPEG with halved chroma, and of WebP

Mapper: TypeAlias = Callable[..., Iterable[Any]]  # `map`, or that of a thread pool


@dataclass(frozen=True)
class Compression:
    """Encoding and decoding by a codec. `grid_px`: the crop's offset in the grid of blocks, x and y.

    Without the offset, a network that sees the border of its crop would learn to expect blocks that start there.
    """

    codec: Literal["JPEG", "WEBP"]
    quality: int
    halved_chroma: bool  # 4:2:0 instead of 4:4:4; WebP has no choice
    grid_px: tuple[int, int]


def through_codec(pixels: npt.NDArray[np.uint8], values: Compression) -> npt.NDArray[np.uint8]:
    """(H, W, 3) -> (H, W, 3). The grid is shifted by repeating the first row and column, which are removed
    afterwards."""
    x, y = values.grid_px
    shifted = np.pad(pixels, ((y, 0), (x, 0), (0, 0)), mode="edge")
    file = io.BytesIO()
    if values.codec == "JPEG":
        subsampling = "4:2:0" if values.halved_chroma else "4:4:4"
        Image.fromarray(shifted).save(file, "JPEG", quality=values.quality, subsampling=subsampling)
    else:
        # 4, the default, takes twice as long
        Image.fromarray(shifted).save(file, "WEBP", quality=values.quality, method=2)
    with Image.open(file, formats=[values.codec]) as picture:
        return np.array(picture.convert("RGB"))[y:, x:]


@contextmanager
def mapper(jobs: int) -> Iterator[Mapper]:
    """`map`, in threads if that helps. The threads end with this block, so that a process that forks later is not
    affected."""
    threads = min(jobs, torch.get_num_threads())
    if threads < 2:
        yield map
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool.map


def all_through_codecs(
    pictures: Sequence[npt.NDArray[np.uint8]], values: Sequence[Compression], mapped: Mapper
) -> list[npt.NDArray[np.uint8]]:
    """Each picture (H, W, 3) through its codec, in the same order."""
    return list(mapped(through_codec, pictures, values))
