"""Pictures as 8-bit RGB for training, from the same decoders as `srgan upscale`.

When enlarging, a network gets the numbers in the file, in any colour space, since `upscale` keeps the profile and
converts only CMYK and CIE Lab. The same applies here. Grey becomes three equal channels, 16 bits are rounded to 8, and
transparency is composited over white.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.image import Header, Pixels
from srgan_cli.imaging.reading import open_picture, read_image

RGB: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3)


def read_rgb(source: Path | bytes, *, max_pixels: int) -> RGB:
    """The whole picture, (H, W, 3) uint8, upright. Raises `UnreadablePictureError` as `read_image` does."""
    return as_rgb(read_image(source, max_pixels=max_pixels).pixels)


def glance(source: Path | bytes, *, max_pixels: int, side_px: int) -> tuple[RGB, Header]:
    """A picture at reduced size, for callers that do not need full resolution, and its header; much faster for JPEGs.

    The shorter side has at least `side_px`. All of the file is still read, so damage is found. Raises as `read_rgb`.
    """
    with open_picture(source, max_pixels=max_pixels) as picture:
        header = picture.header
        shrink = _shrink(header, side_px)
        if shrink == 1:
            return as_rgb(picture.read_rows(header.height)), header
    with open_picture(source, max_pixels=max_pixels, shrink=shrink) as picture:
        return as_rgb(picture.read_rows(picture.header.height)), header


def _shrink(header: Header, side_px: int) -> int:
    if header.format != "jpeg":
        return 1
    return next((factor for factor in (8, 4, 2) if min(header.width, header.height) // factor >= side_px), 1)


def as_8_bit(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """uint8 unchanged; uint16 rounded to the nearest 8-bit value: 65535 = 255 × 257."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def as_rgb(pixels: Pixels) -> RGB:
    """(H, W, 1 to 4) of uint8 or uint16 as (H, W, 3) uint8, with transparency composited over white."""
    pixels = as_8_bit(pixels)
    alpha = pixels[..., -1:] if pixels.shape[2] in (2, 4) else None
    colour = pixels if alpha is None else pixels[..., :-1]
    if alpha is not None and alpha.min() < 255:
        over, wide = alpha.astype(np.uint16), colour.astype(np.uint16)
        colour = ((wide * over + 255 * (255 - over) + 127) // 255).astype(np.uint8)
    return np.repeat(colour, 3, axis=2) if colour.shape[2] == 1 else np.ascontiguousarray(colour)
