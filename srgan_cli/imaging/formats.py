"""The file formats and their capabilities. Standard library only, so that planning a batch is instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srgan_cli.imaging.image import Depth  # which needs numpy


@dataclass(frozen=True)
class Format:
    """What a container can hold.

    `max_side_px` is the largest width or height in px (None: no practical limit). `depths` are the bits per sample
    available for results; AVIF's 16 means 12 bits in the file, the maximum of AV1. `carries` names the kinds of
    metadata it supports.
    """

    title: str
    suffixes: tuple[str, ...]
    writable: bool = True
    alpha: bool = True
    grey: bool = True
    depths: tuple[Depth, ...] = (8,)
    max_side_px: int | None = None
    carries: frozenset[str] = frozenset()
    default_quality: int | None = None
    lossless: bool = False
    """Whether a lossless result is available."""
    by_default: bool = True
    """Whether pictures of this format are written in it by default."""
    holds: frozenset[str] = frozenset()
    """What one file can hold several of: `pages`, `frames`."""


_ALL = frozenset({"icc", "exif", "xmp", "dpi"})
_NO_DPI = frozenset({"icc", "exif", "xmp"})

FORMATS: dict[str, Format] = {
    "png": Format("PNG", (".png", ".apng"), depths=(8, 16), carries=_ALL, lossless=True, holds=frozenset({"frames"})),
    "jpeg": Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif"),
        alpha=False,
        max_side_px=65_500,  # libjpeg's own limit, below the 65,535 of the file format
        carries=_ALL,
        default_quality=95,
    ),
    # WebP has no grey: a grey picture is written as RGB.
    "webp": Format(
        "WebP",
        (".webp",),
        grey=False,
        max_side_px=16_383,
        carries=_NO_DPI,
        default_quality=90,
        lossless=True,
        holds=frozenset({"frames"}),
    ),
    "tiff": Format(
        "TIFF", (".tif", ".tiff"), depths=(8, 16), carries=_ALL, lossless=True, holds=frozenset({"pages", "frames"})
    ),
    # libaom's 75 is about the same as JPEG 95: no visible difference at arm's length, at a quarter of the size.
    "avif": Format(
        "AVIF", (".avif",), grey=False, depths=(8, 16), max_side_px=16_384, carries=_NO_DPI, default_quality=75
    ),
    "heic": Format("HEIC", (".heic", ".heif", ".hif"), writable=False, depths=(8, 16), carries=_NO_DPI),
    # A GIF becomes a PNG, or a WebP if animated, unless GIF is requested: 256 colours are too few for an enlarged
    # picture.
    "gif": Format("GIF", (".gif",), grey=False, max_side_px=65_535, by_default=False, holds=frozenset({"frames"})),
    "ppm": Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), writable=False, alpha=False, depths=(8, 16)),
    "jp2": Format("JPEG 2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"), writable=False, depths=(8, 16)),
    "bmp": Format("BMP", (".bmp", ".dib"), alpha=False, max_side_px=2**31 - 1, carries=frozenset({"dpi"})),
}

_BY_SUFFIX = {suffix: key for key, known in FORMATS.items() for suffix in known.suffixes}

PICTURE_SUFFIXES = frozenset(_BY_SUFFIX)
"""Lower-case suffixes, with dot, of files that a folder walk treats as pictures."""


def format_of_suffix(suffix: str) -> str | None:
    """`'.JPG'` (or `'jpg'`) -> `'jpeg'`; None if it is not a picture's suffix."""
    suffix = suffix.lower()
    return _BY_SUFFIX.get(suffix if suffix.startswith(".") else f".{suffix}")


@dataclass(frozen=True)
class Container:
    """A file that contains picture files."""

    title: str
    suffixes: tuple[str, ...]


CONTAINERS: dict[str, Container] = {
    "zip": Container("archive", (".cbz", ".zip")),
    "pdf": Container("PDF", (".pdf",)),
}


def container_of_suffix(suffix: str) -> str | None:
    """`'.CBZ'` -> `'zip'`; None for any other."""
    return next((key for key, known in CONTAINERS.items() if suffix.lower() in known.suffixes), None)
