"""Reading a file's metadata from all the places it may be in."""

from __future__ import annotations

from typing import Any

from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import exif as exif_block
from srgan_cli.imaging.metadata import jpeg, png
from srgan_cli.imaging.metadata.ifd import Structure
from srgan_cli.imaging.metadata.iptc import app13
from srgan_cli.imaging.sources import Source

_HEAD_BYTES = 64 << 10


def metadata_of(image: Any, source: Source, format: str) -> Metadata:  # noqa: A002
    # Fields are requested one at a time: their list contains names from the file, which may be in any encoding.
    def blob(name: str) -> bytes | None:
        return bytes(image.get(name)) or None if image.get_typeof(name) else None

    icc, iptc = blob("icc-profile-data"), blob("iptc-data")
    dpi = None
    # Without a resolution in the file, libvips assumes 72 or 25.4 per inch; for PNG it gives no unit even if there is
    # one.
    if image.get_typeof("resolution-unit") or (format == "png" and png.has_resolution(source)):
        dpi = (round(image.xres * 25.4, 4), round(image.yres * 25.4, 4))
    if format == "png":
        own = png.read(source)
        return Metadata(icc, own.exif, own.xmp, dpi, own.iptc, own.text, own.colour)
    exif = _tiff_exif(source) if format == "tiff" else bare(blob("exif-data"))
    if format == "tiff" and iptc:
        iptc = app13(iptc)
    xmp = blob("xmp-data")
    if format == "jpeg":
        xmp = jpeg.whole_xmp(source, xmp)
    text = jpeg.comments(source) if format == "jpeg" else ()
    return Metadata(icc, exif, xmp, dpi, iptc, text, nclx(source) if format == "avif" else ())


def nclx(source: Source) -> tuple[tuple[str, bytes], ...]:
    """The numeric colour description of an AVIF or HEIC file (`colr` box of type `nclx`), as PNG's cICP; empty if it
    means sRGB or is unspecified. The first one is the picture's, in the order that encoders write."""
    head = source.read_at(0, _HEAD_BYTES)
    at = head.find(b"colrnclx")
    if at < 0 or at + 14 > len(head):
        return ()
    primaries, transfer = (int.from_bytes(head[at + 8 + 2 * i : at + 10 + 2 * i], "big") for i in range(2))
    if max(primaries, transfer) > 255 or 2 in (primaries, transfer) or (primaries, transfer) == (1, 13):
        return ()
    return (("cICP", bytes([primaries, transfer, 0, 1])),)


def bare(exif: bytes | None) -> bytes | None:
    if exif is not None and exif.startswith(b"Exif\0"):
        exif = exif[6:]
    return exif if exif and exif[:2] in (b"II", b"MM") else None


def _tiff_exif(source: Source) -> bytes | None:
    """The EXIF block of a TIFF file, since libvips does not provide its EXIF tables."""
    try:
        return exif_block.from_tiff(Structure(source.read_at, source.size))
    except ValueError:
        return None
