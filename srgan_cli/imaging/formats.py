"""The file formats, and what each of them can hold. Standard library only, so that planning a batch is instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srgan_cli.imaging.image import Depth  # which needs numpy


@dataclass(frozen=True)
class Format:
    """What a container can hold.

    `max_side_px` is the largest width or height in px (None: larger than any picture here). `depths` are the bits per
    sample a result may have; AVIF's 16 means 12 bits in the file, the most AV1 has. `carries` names the metadata that
    has a place in it.
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
    """Whether a lossless result is available at all."""
    by_default: bool = True
    """Whether a picture that comes in it leaves in it where nothing else is asked for."""
    holds: frozenset[str] = frozenset()
    """Of what it can hold several in one file: `pages`, `frames`."""


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
    # 75 of libaom's scale is about where JPEG 95 is: no difference at arm's length, at a quarter of the size.
    # AV1 ends at 65,536 px, libheif's encoder at 16,384.
    # AV1 has monochrome, but libvips writes RGB. No "lossless": its RGB to YCbCr is not exactly reversible here.
    "avif": Format(
        "AVIF", (".avif",), grey=False, depths=(8, 16), max_side_px=16_384, carries=_NO_DPI, default_quality=75
    ),
    "heic": Format("HEIC", (".heic", ".heif", ".hif"), writable=False, depths=(8, 16), carries=_NO_DPI),
    # A GIF becomes a PNG, or when it moves a WebP, unless GIF is asked for: 256 colours are few for what was enlarged.
    "gif": Format("GIF", (".gif",), grey=False, max_side_px=65_535, by_default=False, holds=frozenset({"frames"})),
    "ppm": Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), writable=False, alpha=False, depths=(8, 16)),
    "jp2": Format("JPEG 2000", (".jp2", ".j2k", ".jpx"), writable=False, depths=(8, 16)),
    "bmp": Format("BMP", (".bmp", ".dib"), alpha=False, max_side_px=2**31 - 1, carries=frozenset({"dpi"})),
}

_BY_SUFFIX = {suffix: key for key, known in FORMATS.items() for suffix in known.suffixes}

PICTURE_SUFFIXES = frozenset(_BY_SUFFIX)
"""Lower-case suffixes, dot included, of the files a folder walk takes for pictures."""


def format_of_suffix(suffix: str) -> str | None:
    """`'.JPG'` (or `'jpg'`) -> `'jpeg'`; None for a suffix that is not a picture's."""
    suffix = suffix.lower()
    return _BY_SUFFIX.get(suffix if suffix.startswith(".") else f".{suffix}")


@dataclass(frozen=True)
class Container:
    """A file that holds pictures as files of their own."""

    title: str
    suffixes: tuple[str, ...]


CONTAINERS: dict[str, Container] = {
    "zip": Container("archive", (".cbz", ".zip")),
    "pdf": Container("PDF", (".pdf",)),
}


def container_of_suffix(suffix: str) -> str | None:
    """`'.CBZ'` -> `'zip'`; None for any other."""
    return next((key for key, known in CONTAINERS.items() if suffix.lower() in known.suffixes), None)
