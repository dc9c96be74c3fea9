"""What happens to a picture's metadata when the picture becomes larger."""

from __future__ import annotations

from dataclasses import replace

from srgan_cli.config import Strip
from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import exif as exif_block
from srgan_cli.imaging.metadata import xmp as xmp_packet
from srgan_cli.imaging.metadata.geometry import Geometry


def updated(metadata: Metadata, geometry: Geometry, strip: Strip, *, dpi: float | None = None) -> Metadata:
    """The metadata of an upright result. Pure.

    Everything is kept byte for byte but orientation, sizes and what else counts px (set), thumbnails (dropped), the
    resolution where `dpi` (px per inch) is given, and what `strip` names: `"gps"` takes out positions, `"all"` EXIF,
    XMP and IPTC as a whole. The ICC profile always stays: without it the colours would be others. A block that cannot
    be understood is left out rather than carried along wrong.
    """
    if dpi is not None:
        metadata = replace(metadata, dpi=(dpi, dpi))
    if strip == "all":
        return replace(metadata, exif=None, xmp=None, iptc=None, text=())
    drop_gps = strip == "gps"
    exif = metadata.exif and exif_block.patched(metadata.exif, geometry, drop_gps=drop_gps, dpi=dpi)
    xmp = metadata.xmp and xmp_packet.patched(metadata.xmp, geometry, drop_gps=drop_gps, dpi=dpi)
    return replace(metadata, exif=exif or None, xmp=xmp or None)


def losses(before: Metadata, after: Metadata, strip: Strip) -> tuple[str, ...]:
    """What of a picture's metadata does not travel, in sentences; what was to be left out is no loss."""
    if strip == "all":
        return ()
    notes = tuple(
        f"{what} cannot be carried over, and what announces it is left out" for what in xmp_packet.losses(before.xmp)
    )
    for title, old, new in (("EXIF", before.exif, after.exif), ("XMP", before.xmp, after.xmp)):
        if old and not new:
            notes += (f"the {title} metadata are not valid and are left out",)
    return notes


def profile_fits(icc: bytes, channels: int) -> bool:
    """Whether a profile's colour space has as many colours as a picture of `channels` channels (alpha included).

    A reader that finds an RGB profile on a grey picture ignores it, refuses the picture, or shows wrong tones; libpng
    refuses to write it. Such a profile says nothing about these pixels.
    """
    return icc[16:20] == (b"GRAY" if channels <= 2 else b"RGB ")
