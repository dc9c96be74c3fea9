"""How a picture's metadata changes when it is enlarged."""

from __future__ import annotations

from dataclasses import replace

from srgan_cli.config import Strip
from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import exif as exif_block
from srgan_cli.imaging.metadata import xmp as xmp_packet
from srgan_cli.imaging.metadata.geometry import Geometry


def updated(metadata: Metadata, geometry: Geometry, strip: Strip, *, dpi: float | None = None) -> Metadata:
    """The metadata of an upright result. A pure function.

    Everything is kept byte for byte, except: orientation, sizes and other values in px are updated; thumbnails are
    removed; the resolution is set if `dpi` (px per inch) is given; and `strip` removes positions (`"gps"`) or EXIF, XMP
    and IPTC as a whole (`"all"`). The ICC profile is always kept, since the colours depend on it. A block that cannot
    be parsed is dropped, since its contents may no longer be true.
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
    """Sentences on the metadata that is not carried over, except for what the user asked to remove."""
    if strip == "all":
        return ()
    notes = tuple(
        f"{what} cannot be carried over, so metadata about it is left out" for what in xmp_packet.losses(before.xmp)
    )
    for title, old, new in (("EXIF", before.exif, after.exif), ("XMP", before.xmp, after.xmp)):
        if old and not new:
            notes += (f"the {title} metadata is not valid and is left out",)
    return notes


def profile_fits(icc: bytes, channels: int) -> bool:
    """Whether a profile's colour space has the number of colours of a picture with `channels` channels (alpha
    included).

    Readers that find an RGB profile in a grey picture ignore it, refuse the picture or show wrong tones, and libpng
    refuses to write it. Such a profile does not describe these pixels.
    """
    return icc[16:20] == (b"GRAY" if channels <= 2 else b"RGB ")
