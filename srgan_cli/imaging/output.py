"""How a result will be written, decided once before any work (container, depth, size), and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srgan_cli.config import WriteOptions
from srgan_cli.errors import SettingsError, UnwritablePictureError, shown
from srgan_cli.imaging.formats import FORMATS, Format, format_of_suffix
from srgan_cli.imaging.image import Depth, Header

_BMP_BYTES = 2**32 - 4096  # its size field has 32 bits


@dataclass(frozen=True)
class Output:
    """What to write: a key of `FORMATS`, bits per sample, the exact size in px, and px per inch (None: the input's)."""

    format: str
    depth: Depth
    width: int
    height: int
    dpi: float | None = None

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def raw_bytes(self, channels: int) -> int:
        """The result's size before compression."""
        return self.pixels * channels * self.depth // 8

    def needed_bytes(self, channels: int, options: WriteOptions) -> int:
        """A generous estimate of the file's size."""
        lossy = FORMATS[self.format].default_quality is not None and not options.lossless
        return self.raw_bytes(channels) // 4 if lossy else self.raw_bytes(channels)


def decide(
    target: Path | None,
    header: Header,
    options: WriteOptions,
    *,
    width: int,
    height: int,
    dpi: float | None = None,
    moving: bool = False,
) -> Output:
    """How a picture (`header`) that becomes `width` × `height` px is written. `target` None: not to a named file.
    `moving`: it is a frame of an animation.

    Raises `SettingsError` for a format or suffix that is not supported for output and for contradictory options, and
    `UnwritablePictureError` for the container's limits and for transparency that it cannot hold.
    """
    format = output_format(target, header, options, moving=moving)  # noqa: A001
    known = FORMATS[format]
    _check_options(known, options, asked=options.format is not None or bool(target is not None and target.suffix))
    _check_limits(format, width, height, header.channels)
    if header.has_alpha and not known.alpha and options.background is None:
        raise UnwritablePictureError(
            f"the picture has transparency and {known.title} has none; give --background COLOUR to composite it over, "
            "or write PNG, WebP, TIFF or AVIF"
        )
    return Output(format, _depth(known, header.depth, options), width, height, dpi)


def output_format(target: Path | None, header: Header, options: WriteOptions, *, moving: bool = False) -> str:
    """The result's key in `FORMATS`: as requested, else by the target's suffix, else the input's own format, else PNG;
    for an animation WebP.

    Raises `SettingsError` for a format or a suffix that is not supported for output.
    """
    if options.format is not None:
        asked = options.format.lower()
        return _writable(asked if asked in FORMATS else format_of_suffix(asked), f"--format {options.format}")
    if target is not None and target.suffix:
        return _writable(format_of_suffix(target.suffix), shown(target))
    own = FORMATS[header.format]
    loses_alpha = header.has_alpha and not own.alpha and options.background is None
    return header.format if own.writable and own.by_default and not loses_alpha else "webp" if moving else "png"


def writable_suffixes() -> str:
    """For messages: `.png, .jpg, …`."""
    return ", ".join(known.suffixes[0] for known in FORMATS.values() if known.writable)


def _writable(format: str | None, asked: str) -> str:  # noqa: A002
    if format is None or not FORMATS[format].writable:
        raise SettingsError(f"{asked}: srgan cannot write that format; it writes {writable_suffixes()}")
    return format


def _depth(known: Format, depth: Depth, options: WriteOptions) -> Depth:
    """Bits per sample: as requested, if the container can hold it."""
    wanted = depth if options.bit_depth == "keep" else options.bit_depth
    return wanted if wanted in known.depths else 8


def _check_options(known: Format, options: WriteOptions, *, asked: bool) -> None:
    """`asked`: this one format was asked for. Else options for one of the formats that a folder may contain are meant
    for its pictures of that format."""
    if options.lossless and not known.lossless:
        raise SettingsError(f"{known.title} cannot be lossless here; use PNG, TIFF or WebP")
    if options.bit_depth not in ("keep", *known.depths):
        raise SettingsError(f"{known.title} has 8 bits per channel; write PNG, TIFF or AVIF for --bit-depth 16")
    if options.quality is not None and options.lossless:
        raise SettingsError("give only one of --quality and --lossless")
    if asked and (unused := _without_effect(known, options)) is not None:
        raise SettingsError(f"{unused} does not apply to {known.title}")


def _without_effect(known: Format, options: WriteOptions) -> str | None:
    """The first option that is for other formats only."""
    if options.quality is not None and known.default_quality is None:
        return "--quality"
    if options.png_level != WriteOptions.png_level and known is not FORMATS["png"]:
        return "--png-level"
    if options.tiff_layout != WriteOptions.tiff_layout and known is not FORMATS["tiff"]:
        return "--tiff-layout"
    return None


def _check_limits(format: str, width: int, height: int, channels: int) -> None:  # noqa: A002
    known = FORMATS[format]
    if known.max_side_px is not None and max(width, height) > known.max_side_px:
        raise UnwritablePictureError(
            f"{width}x{height} px is too large for {known.title}, whose sides are limited to {known.max_side_px} px; "
            "write PNG or TIFF"
        )
    if format == "bmp" and (width * channels + 3) * height > _BMP_BYTES:
        raise UnwritablePictureError(
            f"{width}x{height} px is too large for BMP, which is limited to 4 GB; write PNG or TIFF"
        )
