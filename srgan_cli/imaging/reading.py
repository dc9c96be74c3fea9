"""Opening pictures: a header at once, the pixels row by row.

libvips decodes in sequence, so that a picture of a gigapixel passes through a few megabytes. Three kinds cannot: EXIF
orientations 3 to 8 need their rows in another order (libvips decodes those into memory, above 100 MB into a temporary
file on disc), interlaced PNG and progressive JPEG hold what their decoder holds, and BMP and HEIC come from Pillow
whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging import sniffing
from srgan_cli.imaging.image import Depth, Header, Image, Metadata, Pixels
from srgan_cli.imaging.metadata import exif as exif_block
from srgan_cli.imaging.metadata.ifd import Structure
from srgan_cli.imaging.sources import Source, reason_given, vips_module

_LOADERS = {"png": "png", "jpeg": "jpeg", "webp": "webp", "tiff": "tiff", "avif": "heif", "gif": "gif"}
_DEPTHS: dict[str, Depth] = {"uchar": 8, "ushort": 16}
_UPRIGHT_IN_SEQUENCE = (1, 2)
# Every stage of a libvips pipeline holds what is asked for at once: few rows, and a wide scan stays small.
_FETCH_ROWS = 64


class _Rows(Protocol):
    """Where an `OpenPicture` gets its rows from."""

    def rows(self, top: int, count: int) -> Pixels: ...


class OpenPicture:
    """A picture whose rows are read top-down, once. A context manager.

    It may be read by another thread than opened it, one thread at a time.
    """

    def __init__(self, source: Source, header: Header, rows: _Rows) -> None:
        self.header = header
        self._source = source
        self._rows: _Rows | None = rows
        self._next = 0

    def read_rows(self, count: int) -> Pixels:
        """The next `count` rows, or those that are left: (n, W, C), uint8 or uint16; n is 0 at the end.

        Raises `UnreadablePictureError` when the file turns out to be damaged.
        """
        assert self._rows is not None, "the picture is closed"
        assert count >= 1
        count = min(count, self.header.height - self._next)
        top = self._next
        self._next += count
        if count == 0:
            return np.empty((0, self.header.width, self.header.channels), self.header.dtype)
        return self._rows.rows(top, count)

    def close(self) -> None:
        self._rows = None
        self._source.close()

    def __enter__(self) -> OpenPicture:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class _VipsRows:
    def __init__(self, image: Any, name: str) -> None:
        pyvips = vips_module()
        self._error = pyvips.Error
        self._image = image
        self._name = name
        self._region = pyvips.Region.new(image)

    def rows(self, top: int, count: int) -> Pixels:
        image = self._image
        dtype = np.uint8 if image.format == "uchar" else np.uint16
        pixels = np.empty((count, image.width, image.bands), dtype)
        for start in range(0, count, _FETCH_ROWS):
            some = pixels[start : start + _FETCH_ROWS]
            try:
                data = self._region.fetch(0, top + start, image.width, len(some))
            except self._error as err:
                raise _damaged(self._name, err) from err
            some[:] = np.frombuffer(data, dtype).reshape(some.shape)
        return pixels


class _WholeRows:
    """Rows of a picture that Pillow decodes, whole, when the first row is asked for."""

    def __init__(self, picture: Any, name: str) -> None:
        self._picture = picture
        self._name = name
        self._pixels: Pixels | None = None

    def rows(self, top: int, count: int) -> Pixels:
        if self._pixels is None:
            try:
                pixels = np.asarray(self._picture)
            except (OSError, SyntaxError, ValueError, RuntimeError, EOFError) as err:
                raise _damaged(self._name, err) from err
            pixels = pixels.reshape(*pixels.shape[:2], -1)
            self._pixels = np.ascontiguousarray(pixels)
            self._picture = None
        return self._pixels[top : top + count]


def _damaged(name: str, err: BaseException) -> UnreadablePictureError:
    return UnreadablePictureError(f"{name} is damaged or incomplete and cannot be decoded{reason_given(err)}")


def open_picture(source: Path | bytes, *, max_pixels: int) -> OpenPicture:
    """Open a picture for reading in rows; nothing is decoded yet.

    Raises `UnreadablePictureError`: missing, empty, not a picture, damaged, or more than `max_pixels` px.
    """
    opened = Source(source)
    try:
        format = sniffing.sniff(opened)  # noqa: A001
        declared = sniffing.declared_size(opened, format)
        if declared is not None:
            sniffing.check_pixels(opened, *declared, max_pixels)
        if format in ("bmp", "heic"):
            header, rows = _open_whole(opened, format, max_pixels)
        else:
            header, rows = _open_vips(opened, format, max_pixels)
    except BaseException:
        opened.close()
        raise
    return OpenPicture(opened, header, rows)


def read_header(source: Path | bytes, *, max_pixels: int) -> Header:
    """What is known without decoding a pixel. Raises what `open_picture` does."""
    with open_picture(source, max_pixels=max_pixels) as picture:
        return picture.header


def read_image(source: Path | bytes, *, max_pixels: int) -> Image:
    """A whole picture, (H, W, C). Raises what `open_picture` and `OpenPicture.read_rows` do."""
    with open_picture(source, max_pixels=max_pixels) as picture:
        return Image(picture.read_rows(picture.header.height), picture.header)


# libvips


def _open_vips(source: Source, format: str, max_pixels: int) -> tuple[Header, _Rows]:  # noqa: A002
    pyvips = vips_module()
    try:
        image = _load(source, format, "sequential")
        sniffing.check_pixels(source, image.width, image.height, max_pixels)
        frames = int(image.get("n-pages")) if "n-pages" in image.get_fields() else 1
        metadata = _metadata(image, source, format)
        # libheif has already turned the picture as its container says, and EXIF only repeats that.
        turn = 1 if format == "avif" else _orientation(source, format, metadata)
        if turn not in _UPRIGHT_IN_SEQUENCE:
            image = _load(source, format, "random")
        image, icc, notes = _as_plain(image, source.name, metadata.icc)
        if format == "avif":
            image = _full_range(image)
        image = _turned_image(image, turn)
        rows = _VipsRows(image, source.name)
    except pyvips.Error as err:
        raise _damaged(source.name, err) from err
    if format == "png" and _png_has(source, b"acTL"):
        notes += ("it is animated; only the first frame is read",)
    notes = sniffing.name_notes(source, format) + _frame_notes(frames) + notes
    metadata = replace(metadata, icc=icc)
    header = Header(image.width, image.height, image.bands, _DEPTHS[image.format], format, metadata, notes)
    return header, rows


def _load(source: Source, format: str, access: str) -> Any:  # noqa: A002
    """The loader is named: no file reaches a decoder (SVG, PDF, …) that this module does not know."""
    pyvips = vips_module()
    # "error" refuses what ends too early and what cannot be decoded, and lets pass the warnings that many cameras'
    # files give (extraneous bytes before a marker).
    options: dict[str, Any] = {"access": access, "fail_on": "error"}
    if format == "tiff":
        # Without this, libtiff refuses files of one strip of more than 50 MB. The pixels have been counted.
        options["unlimited"] = True
    return pyvips.Operation.call(f"{_LOADERS[format]}load_source", source.for_vips(), **options)


def _frame_notes(frames: int) -> tuple[str, ...]:
    return (f"only the first of {frames} frames is read",) if frames > 1 else ()


def _orientation(source: Source, format: str, metadata: Metadata) -> int:  # noqa: A002
    if format != "tiff":
        return exif_block.orientation(metadata.exif)
    try:
        structure = Structure(source.read_at, source.size)
    except ValueError:
        return 1
    main = structure.table(structure.first)
    value = structure.number(main, 0x0112) if main is not None else None
    return value if value is not None and 1 <= value <= 8 else 1


def _metadata(image: Any, source: Source, format: str) -> Metadata:  # noqa: A002
    fields = set(image.get_fields())

    def blob(name: str) -> bytes | None:
        return bytes(image.get(name)) or None if name in fields else None

    exif = _tiff_exif(source) if format == "tiff" else _bare(blob("exif-data"))
    dpi = None
    # Where nothing is said, libvips makes up 72 or 25.4 per inch; of PNG it names no unit even when there is one.
    if "resolution-unit" in fields or (format == "png" and _png_has(source, b"pHYs", unit=1)):
        dpi = (round(image.xres * 25.4, 4), round(image.yres * 25.4, 4))
    return Metadata(blob("icc-profile-data"), exif, blob("xmp-data"), dpi, blob("iptc-data"))


def _png_has(source: Source, kind: bytes, *, unit: int | None = None) -> bool:
    """Whether there is such a chunk before the first IDAT, with `unit` (px per metre is 1) as its ninth byte."""
    place = 8
    for _ in range(1000):
        head = source.read_at(place, 17)
        if len(head) < 8 or head[4:8] in (b"IDAT", b"IEND"):
            return False
        if head[4:8] == kind:
            return unit is None or head[16:17] == bytes([unit])
        place += int.from_bytes(head[:4], "big") + 12
    return False


def _bare(exif: bytes | None) -> bytes | None:
    if exif is not None and exif.startswith(b"Exif\0"):
        exif = exif[6:]
    return exif if exif and exif[:2] in (b"II", b"MM") else None


def _tiff_exif(source: Source) -> bytes | None:
    """libvips does not hand over the EXIF tables of TIFF files."""
    try:
        return exif_block.from_tiff(Structure(source.read_at, source.size))
    except ValueError:
        return None


def _as_plain(image: Any, name: str, icc: bytes | None) -> tuple[Any, bytes | None, tuple[str, ...]]:
    """8- or 16-bit grey or RGB, alpha straight; with its profile, and notes on what was converted."""
    if image.interpretation == "cmyk" and image.bands >= 4:
        return _from_cmyk(image, icc)
    notes: tuple[str, ...] = ()
    if image.interpretation in ("lab", "labq", "labs", "lch", "xyz", "yxy"):
        image = image.colourspace("rgb16" if image.interpretation == "labs" else "srgb")
        icc, notes = None, ("the picture is in a CIE colour space; it is converted to sRGB",)
    if image.format not in _DEPTHS:
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


def _full_range(image: Any) -> Any:
    """10 and 12 bits of AVIF, which libvips shifts up leaving zeros below, as a full 16-bit range."""
    if image.format != "ushort":
        return image
    bits = int(image.get("bits-per-sample")) if "bits-per-sample" in image.get_fields() else 12
    if not 8 < bits < 16:
        return image
    values = np.arange(65536, dtype=np.uint32) >> (16 - bits)
    table = ((values * 65535 + (1 << (bits - 1))) // ((1 << bits) - 1)).astype(np.uint16)
    pyvips = vips_module()
    lookup = pyvips.Image.new_from_memory(table.tobytes(), 65536, 1, 1, "ushort")
    return image.maplut(lookup)


def _turned_image(image: Any, orientation: int) -> Any:
    """Upright, by the eight orientations of the EXIF standard."""
    if orientation in (5, 6, 7, 8):
        image = image.rot90() if orientation in (5, 6) else image.rot270()
    elif orientation in (3, 4):
        image = image.rot180()
    return image.fliphor() if orientation in (2, 4, 5, 7) else image


# Pillow


def _open_whole(source: Source, format: str, max_pixels: int) -> tuple[Header, _Rows]:  # noqa: A002
    picture = _pillow_bmp(source) if format == "bmp" else _pillow_heif(source)
    width, height = picture.size
    sniffing.check_pixels(source, width, height, max_pixels)
    modes: dict[str, tuple[int, Depth]] = {
        "L": (1, 8),
        "LA": (2, 8),
        "RGB": (3, 8),
        "RGBA": (4, 8),
        "I;16": (1, 16),
        "LA;16": (2, 16),
        "RGB;16": (3, 16),
        "RGBA;16": (4, 16),
    }
    if picture.mode not in modes:  # 1-bit and palette BMP
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    channels, depth = modes[picture.mode]
    exif, xmp, icc = (picture.info.get(key) or None for key in ("exif", "xmp", "icc_profile"))
    dpi = picture.info.get("dpi")
    metadata = Metadata(icc, _bare(exif), xmp, None if not dpi else (float(dpi[0]), float(dpi[1])))
    notes = sniffing.name_notes(source, format)
    return Header(width, height, channels, depth, format, metadata, notes), _WholeRows(picture, source.name)


def _pillow_bmp(source: Source) -> Any:
    import io

    from PIL import BmpImagePlugin

    try:
        # The plugin itself and not Image.open, whose own limit on pixels is not the one the person set.
        return BmpImagePlugin.BmpImageFile(io.BytesIO(source.read_all()))
    except (OSError, SyntaxError, ValueError, EOFError) as err:
        raise _damaged(source.name, err) from err


def _pillow_heif(source: Source) -> Any:
    try:
        import pillow_heif
    except ImportError as err:
        raise UnreadablePictureError(
            f"{source.name} is a HEIC picture, which needs one more package: pip install 'srgan-cli[heic]'"
        ) from err
    try:
        return pillow_heif.open_heif(source.read_all(), convert_hdr_to_8bit=False)
    except (OSError, SyntaxError, ValueError, RuntimeError, EOFError) as err:
        raise _damaged(source.name, err) from err
