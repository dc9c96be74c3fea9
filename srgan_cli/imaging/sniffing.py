"""Detects a file's format from its first bytes, never from its name, with notes for the user."""

from __future__ import annotations

import struct

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.formats import FORMATS, format_of_suffix
from srgan_cli.imaging.sources import Source

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
# Common formats that srgan cannot read, with their names.
_OTHERS = (
    (b"\xff\x0a", "JPEG XL picture"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL picture"),
    (b"II\xbc\1", "JPEG XR picture"),
    (b"8BPS", "Photoshop document"),
    (b"gimp xcf", "GIMP document"),
    (b"\x76\x2f\x31\x01", "OpenEXR picture (of high dynamic range)"),
    (b"#?RADIANCE", "Radiance picture (of high dynamic range)"),
    (b"FUJIFILMCCD-RAW", "camera raw file (Fujifilm RAF)"),
    (b"IIRO", "camera raw file (Olympus ORF)"),
    (b"IIRS", "camera raw file (Olympus ORF)"),
    (b"IIU\0", "camera raw file (Panasonic RW2)"),
    (b"FOVb", "camera raw file (Sigma X3F)"),
    (b"AT&TFORM", "DjVu document"),
    (b"SIMPLE  =", "FITS picture"),
    (b"DDS ", "DirectDraw surface"),
    (b"qoif", "QOI picture"),
    (b"FLIF", "FLIF picture"),
    (b"\0\0\1\0", "Windows icon"),
    (b"%!PS", "PostScript file"),
    (b"\x1a\x45\xdf\xa3", "video"),
)
_BRANDS = {b"crx ": "camera raw file (Canon CR3)"}  # brands of ISO media files; all others are videos or sound
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def sniff(source: Source) -> str:
    """A key of `FORMATS`. Raises `UnreadablePictureError` for anything else."""
    head = source.read_at(0, 64)
    for start, name in _STARTS:
        if head.startswith(start):
            return name
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3] in b" \t\r\n":
        return "ppm"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    # Many text files begin with "BM", so the size of a BMP's second header is checked too.
    if head[:2] == b"BM" and head[14:18] in {struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124)}:
        return "bmp"
    if head[4:8] == b"ftyp":
        brands = {head[at : at + 4] for at in (8, *range(16, min(len(head), _box_bytes(head)), 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIC_BRANDS:
            return "heic"
    if (other := _other(head)) is not None:
        article = "an" if other[0] in "AEIOU" else "a"
        raise UnreadablePictureError(
            f"{source.name} is {article} {other}, which srgan cannot read: save it as PNG, JPEG or TIFF in the program "
            "that made it"
        )
    known = ", ".join(each.title for each in FORMATS.values())
    raise UnreadablePictureError(f"{source.name} is not a picture srgan can read ({known}): {_guess(head)}")


def container(source: Source) -> str | None:
    """A key of `CONTAINERS`, by the first bytes; None for anything else."""
    head = source.read_at(0, 8)
    if head.startswith(b"%PDF-"):
        return "pdf"
    return "zip" if head.startswith((b"PK\3\4", b"PK\5\6")) else None


def _box_bytes(head: bytes) -> int:
    return int(struct.unpack(">I", head[:4])[0])


def _other(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video or another media file")
    return next((title for start, title in _OTHERS if head.startswith(start)), None)


def _guess(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "it begins with nothing but zeros"
    if head.lstrip()[:1] == b"<":
        return "it looks like HTML or XML"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "it looks like text"
    return "its first bytes are unknown"


def name_notes(source: Source, format: str) -> tuple[str, ...]:  # noqa: A002
    """A note if the suffix does not match the content."""
    claimed = format_of_suffix(source.suffix) if source.suffix else None
    if claimed is None or claimed == format:
        return ()
    title = FORMATS[format].title
    return (f"{source.name} is a {title} file, although its name says otherwise; it is read as {title}",)


def declared_size(source: Source, format: str) -> tuple[int, int] | None:  # noqa: A002
    """Width and height in px from formats that store them at a fixed offset; None for others.

    Read before any decoder is used, so that simple decompression bombs cost nothing.
    """
    head = source.read_at(0, 32)
    if format == "png" and len(head) >= 24:
        width, height = struct.unpack(">II", head[16:24])
        return width, height
    if format == "gif" and len(head) >= 10:
        width, height = struct.unpack("<HH", head[6:10])
        return width, height
    return None


def check_pixels(source: Source, width: int, height: int, max_pixels: int) -> None:
    """Raise `UnreadablePictureError` for a picture of more than `max_pixels` px, or of none."""
    if width < 1 or height < 1:
        raise UnreadablePictureError(f"{source.name} is damaged or incomplete: its header says {width}x{height} px")
    if width * height > max_pixels:
        raise UnreadablePictureError(
            f"{source.name} is {width}x{height} px, more than the {max_pixels} px allowed; "
            "if you trust the file, raise --max-pixels"
        )
