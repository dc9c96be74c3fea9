"""Conversion of a file's pixels to plain ones: 8 or 16 bits, grey or RGB, straight alpha last, upright."""

from __future__ import annotations

from typing import Any

import numpy as np

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.image import Depth
from srgan_cli.imaging.sources import vips_module

DEPTHS: dict[str, Depth] = {"uchar": 8, "ushort": 16}


def as_plain(image: Any, name: str, icc: bytes | None) -> tuple[Any, bytes | None, tuple[str, ...]]:
    """8- or 16-bit grey or RGB, alpha straight, with its profile and notes on what was converted."""
    if image.interpretation == "cmyk" and image.bands >= 4:
        return _from_cmyk(image, icc)
    notes: tuple[str, ...] = ()
    if image.interpretation in ("lab", "labq", "labs", "lch", "xyz", "yxy"):
        image = image.colourspace("rgb16" if image.interpretation == "labs" else "srgb")
        icc, notes = None, ("the picture is in a CIE colour space; it is converted to sRGB",)
    if image.format not in DEPTHS:
        raise UnreadablePictureError(
            f"{name} holds samples of the type {image.format}; srgan reads 8- and 16-bit unsigned integers. "
            "Convert it to a 16-bit picture first"
        )
    if image.bands > 4:
        notes += (f"only the first 3 of {image.bands} channels are read",)
        image = image.extract_band(0, n=3)
    return image, icc, notes


def _from_cmyk(image: Any, icc: bytes | None) -> tuple[Any, bytes, tuple[str, ...]]:
    inks = image.extract_band(0, n=4)
    depth = 16 if image.format == "ushort" else 8
    colour = inks.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=depth, intent="relative")
    profile = bytes(colour.get("icc-profile-data"))
    if image.bands > 4:
        colour = colour.bandjoin(image.extract_band(4))
    through = "its own profile" if icc else "a general profile, as it has none of its own"
    return colour, profile, (f"the picture is CMYK; it is converted to sRGB through {through}",)


def full_range(image: Any) -> Any:
    """AVIF's 10 and 12 bits, which libvips shifts left leaving low zeros, as a full 16-bit range."""
    if image.format != "ushort":
        return image
    bits = int(image.get("bits-per-sample")) if image.get_typeof("bits-per-sample") else 12
    if not 8 < bits < 16:
        return image
    values = np.arange(65536, dtype=np.uint32) >> (16 - bits)
    table = ((values * 65535 + (1 << (bits - 1))) // ((1 << bits) - 1)).astype(np.uint16)
    pyvips = vips_module()
    lookup = pyvips.Image.new_from_memory(table.tobytes(), 65536, 1, 1, "ushort")
    return image.maplut(lookup)


def turned_image(image: Any, orientation: int) -> Any:
    """The image rotated upright, by EXIF's eight orientations."""
    if orientation in (5, 6, 7, 8):
        image = image.rot90() if orientation in (5, 6) else image.rot270()
    elif orientation in (3, 4):
        image = image.rot180()
    return image.fliphor() if orientation in (2, 4, 5, 7) else image
