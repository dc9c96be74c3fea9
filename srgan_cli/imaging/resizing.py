"""Lanczos-3 resampling, and conversion between arrays and libvips images, without needless copies. Callers that pass or
receive a libvips image hold its lock (see `vips_lock`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.sources import vips_module
from srgan_cli.imaging.vips_lock import shared


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """`pixels` (H, W, C) resized to `width` × `height` px, same type. Colours are weighted by their alpha."""
    if pixels.shape[:2] == (height, width):
        return pixels
    with shared():
        return vips_to_array(resized(array_to_vips(pixels), width, height))


def array_to_vips(pixels: Pixels) -> Any:
    """A libvips image over the array's own memory, or over its file's pages if it is an `np.memmap`."""
    pyvips = vips_module()
    pixels = np.ascontiguousarray(pixels)
    height, width, channels = pixels.shape
    wide = pixels.dtype == np.uint16
    image = pyvips.Image.new_from_memory(pixels.data, width, height, channels, "ushort" if wide else "uchar")
    return image.copy(interpretation=_interpretation(channels, wide))


def vips_to_array(image: Any) -> Pixels:
    dtype = np.uint8 if image.format == "uchar" else np.uint16
    return np.frombuffer(image.write_to_memory(), dtype).reshape(image.height, image.width, image.bands)


def resized(image: Any, width: int, height: int) -> Any:
    """The libvips image resized to `width` × `height` px, same type; evaluated lazily."""
    if (image.width, image.height) == (width, height):
        return image
    scales = {"vscale": height / image.height, "kernel": "lanczos3"}
    across = width / image.width
    if image.bands not in (2, 4):
        return image.resize(across, **scales)
    # A transparent pixel's colour is arbitrary and must not bleed into visible pixels.
    largest = 65535 if image.format == "ushort" else 255
    soft = image.premultiply(max_alpha=largest).resize(across, **scales).unpremultiply(max_alpha=largest)
    return soft.rint().cast(image.format).copy(interpretation=image.interpretation)


def as_depth(image: Any, depth: int) -> Any:
    """8 or 16 bits per sample. v × 257 and (v + 128) // 257, which are exact inverses."""
    pyvips = vips_module()
    wide = image.format == "ushort"
    if wide == (depth == 16):
        return image
    narrow = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    table = narrow if wide else (np.arange(256) * 257).astype(np.uint16)
    lookup = pyvips.Image.new_from_memory(table.tobytes(), len(table), 1, 1, "uchar" if wide else "ushort")
    return image.maplut(lookup).copy(interpretation=_interpretation(image.bands, not wide))


def flattened(image: Any, background: tuple[int, int, int]) -> Any:
    """The picture composited over `background` (8-bit RGB). Grey over a colour becomes RGB."""
    wide = image.format == "ushort"
    if image.bands == 2 and len(set(background)) > 1:
        grey, alpha = image.extract_band(0), image.extract_band(1)
        image = grey.bandjoin([grey, grey, alpha]).copy(interpretation=_interpretation(4, wide))
    colour = [value * (257 if wide else 1) for value in background][: image.bands - 1]
    flat = image.flatten(background=colour, max_alpha=65535 if wide else 255)
    return flat.cast(image.format).copy(interpretation=_interpretation(flat.bands, wide))


def as_rgb(image: Any) -> Any:
    """A grey picture, with or without alpha, as RGB or RGBA with the same values."""
    if image.bands > 2:
        return image
    grey = image.extract_band(0)
    bands = [grey, grey] + ([image.extract_band(1)] if image.bands == 2 else [])
    return grey.bandjoin(bands).copy(interpretation=_interpretation(image.bands + 2, image.format == "ushort"))


def _interpretation(channels: int, wide: bool) -> str:
    if channels <= 2:
        return "grey16" if wide else "b-w"
    return "rgb16" if wide else "srgb"
