"""Opening pictures: the header immediately, the pixels row by row.

libvips decodes sequentially, so a gigapixel picture needs only a few megabytes. There are exceptions. EXIF
orientations 3 to 8 need their rows in another order (libvips decodes those into memory, above 100 MB into a temporary
file on disk). Interlaced PNG, progressive JPEG, WebP and AVIF need their decoder's buffers. A TIFF of 10 or 12 bits is
unpacked whole, and BMP, HEIC, PPM and JPEG 2000 are decoded whole by Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging import bounds, gif, jpeg_scans, sniffing, tiff_kinds
from srgan_cli.imaging.completion import completed
from srgan_cli.imaging.decoding import Rows, VipsRows, WholeRows, boundary, damaged, with_vips
from srgan_cli.imaging.image import Header, Image, Metadata, Pixels
from srgan_cli.imaging.metadata import heif, jpeg
from srgan_cli.imaging.metadata.exif import orientation
from srgan_cli.imaging.metadata.gather import bare, metadata_of, nclx
from srgan_cli.imaging.metadata.png import frames_of
from srgan_cli.imaging.metadata.xmp import losses
from srgan_cli.imaging.oddities import tidied
from srgan_cli.imaging.plain import DEPTHS, as_plain, full_range, turned_image
from srgan_cli.imaging.resizing import array_to_vips, vips_to_array
from srgan_cli.imaging.sources import Origin, Source, has_vips, vips_module
from srgan_cli.imaging.vips_lock import shared
from srgan_cli.imaging.whole import ALWAYS_WHOLE, WholePicture

_LOADERS = {"png": "png", "jpeg": "jpeg", "webp": "webp", "tiff": "tiff", "avif": "heif", "gif": "gif"}
_UPRIGHT_IN_SEQUENCE = (1, 2)
_HEIF = ("avif", "heic")


class OpenPicture:
    """A picture whose rows are read once, from top to bottom. A context manager.

    It may be read by another thread than the one that opened it, but only by one thread at a time.
    """

    def __init__(self, source: Source, header: Header, rows: Rows, *, accept_damaged: bool = False) -> None:
        self.header = header
        self._source = source
        self._accept = accept_damaged
        self._rows: Rows | None = rows
        self._next = 0
        self._damage: str | None = None
        self._closed: Callable[[], None] = lambda: None

    @property
    def damage(self) -> str | None:
        """A note on what has been lost so far, if damage is accepted; None: nothing."""
        return self._damage

    def read_rows(self, count: int) -> Pixels:
        """The next `count` rows, or as many as are left: (n, W, C), uint8 or uint16; n is 0 at the end.

        Raises `UnreadablePictureError` if the file turns out to be damaged.
        """
        assert self._rows is not None, "the picture is closed"
        assert count >= 1
        count = min(count, self.header.height - self._next)
        top = self._next
        self._next += count
        if count == 0:
            return np.empty((0, self.header.width, self.header.channels), self.header.dtype)
        with _decoding(self._source, self._accept):
            rows = self._rows.rows(top, count)
            # some decoders report errors only when closed
            if rows.shape != (count, self.header.width, self.header.channels):
                raise damaged(self._source.name, ": it does not have the size that its header promises")
        self._damage = self._rows.damage
        return rows

    def close_with(self, closed: Callable[[], None]) -> None:
        """Call `closed` when this is closed."""
        self._closed = closed

    def close(self) -> None:
        self._rows = None
        self._source.close()
        self._closed()

    def __enter__(self) -> OpenPicture:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_picture(
    source: Origin | Source, *, max_pixels: int, accept_damaged: bool = False, shrink: int = 1
) -> OpenPicture:
    """Open a picture for reading in rows; nothing is decoded yet. A `Source` is closed with the picture.

    `shrink` (2, 4 or 8; JPEG only) quickly decodes at that fraction of the sides. With `accept_damaged`, everything
    that a decoder can still read is returned, and `OpenPicture.damage` describes the loss. Raises
    `UnreadablePictureError`: missing, empty, not a picture, damaged, more than `max_pixels` px, or any other exception
    of a decoder. A defect in srgan is a `DefectError`.
    """
    opened = source if isinstance(source, Source) else Source(source)
    try:
        with _decoding(opened, accept_damaged):
            header, rows = _opened(opened, max_pixels, accept_damaged, shrink)
    except BaseException:
        opened.close()
        raise
    return OpenPicture(opened, header, rows, accept_damaged=accept_damaged)


@contextmanager
def _decoding(source: Source, accept_damaged: bool) -> Iterator[None]:
    """The boundary; if a drive has failed, its error is raised instead of the decoder's."""
    try:
        with boundary(source.name):
            yield
    except UnreadablePictureError as err:
        if source.lost is not None:
            raise source.lost from err
        if not accept_damaged or "is damaged" not in str(err):
            raise
        raise UnreadablePictureError(f"{err}; no part of it can be decoded, even with --accept-damaged") from err
    if source.lost is not None:
        raise source.lost


def _opened(source: Source, max_pixels: int, accept_damaged: bool, shrink: int) -> tuple[Header, Rows]:
    format = sniffing.sniff(source)  # noqa: A001
    declared = sniffing.declared_size(source, format)
    if declared is not None:
        sniffing.check_pixels(source, *declared, max_pixels)
    if format == "png":
        bounds.check_png(source)
    elif format == "gif":
        bounds.check_gif(source)
    whole = completed(source, format) if accept_damaged else None
    cut = "" if whole is None else "it ends too early"
    if format in ALWAYS_WHOLE or not has_vips():
        return _open_whole(whole or source, format, max_pixels, shrink, accept_damaged, cut)
    return _open_vips(_Loader(whole or source, format, shrink, cut), max_pixels, accept_damaged)


def read_header(source: Origin, *, max_pixels: int, accept_damaged: bool = False) -> Header:
    """The header, without decoding a pixel. Raises as `open_picture` does."""
    with open_picture(source, max_pixels=max_pixels, accept_damaged=accept_damaged) as picture:
        return picture.header


def read_image(source: Path | bytes, *, max_pixels: int) -> Image:
    """A whole picture, (H, W, C). Raises as `open_picture` and `OpenPicture.read_rows` do."""
    with open_picture(source, max_pixels=max_pixels) as picture:
        return Image(picture.read_rows(picture.header.height), picture.header)


# libvips


@dataclass(frozen=True)
class _Plain:
    """A libvips image as `Header` describes it, with the profile of its current colours."""

    image: Any
    icc: bytes | None
    notes: tuple[str, ...]


class _Loader:
    """Creates the libvips image of one file, as often as needed. `cut`: what was missing before `completed`."""

    def __init__(self, source: Source, format: str, shrink: int = 1, cut: str = "") -> None:  # noqa: A002
        self.source, self.format, self._cut = source, format, cut
        self.shrink = shrink if format == "jpeg" else 1
        self.tiff = tiff_kinds.examine(source) if format == "tiff" else None
        # Most of libjpeg's warnings mean lost data; `VipsRows` knows the exceptions. At anything less strict, libvips
        # 8.17 and later return black for a TIFF tile that cannot be decoded.
        self.strict = "warning" if format in ("jpeg", "tiff") else "error"
        self.tidy = False  # remove oddities of a JPEG, or of a TIFF's table
        self._kept: list[Any] = []  # Python bytes and sources, which libvips does not keep alive

    def refuse(self, name: str, reason: str) -> UnreadablePictureError:
        refusal = None if self.tiff is None else self.tiff.refusal(name, reason)
        return refusal or damaged(name, reason)

    def lost(self) -> str:
        """What is missing from the picture and libvips would not notice."""
        if self._cut:
            return self._cut
        if self.format == "gif":
            return gif.lost(self.source)
        if self.format == "jpeg":
            return jpeg_scans.lost(self.source)
        return "" if self.tiff is None else self.tiff.lost()

    def load(self, access: str, strictness: str) -> Any:
        """The loader is named explicitly: no file reaches a decoder (SVG, PDF, …) that this module does not list."""
        options: dict[str, Any] = {"access": access, "fail_on": strictness}
        if self.shrink > 1:
            options["shrink"] = self.shrink
        if self.format == "tiff":
            # Without this, libtiff refuses files with one strip of more than 50 MB. The number of pixels has been
            # checked.
            options["unlimited"] = True
        if self.tidy and self.format == "jpeg":
            self._kept = [tidied(self.source.read_all())]
            return self._loaded(vips_module().Source.new_from_memory(self._kept[0]), options)
        if self.tiff is None:
            return self._loaded(self.source.for_vips(), options)
        makers = self.tiff.sources or ((self.tiff.tidied,) if self.tidy else ())
        self._kept = [make() for make in makers]
        if not makers:
            streams, options = [self.source.for_vips()], {**options, **self.tiff.options}
        else:
            streams = [one.vips for one in self._kept]
        images = [self._loaded(stream, options) for stream in streams]
        return images[0] if self.tiff.packed else tiff_kinds.assembled(self.tiff, images)

    def _loaded(self, stream: Any, options: dict[str, Any]) -> Any:
        return vips_module().Operation.call(f"{_LOADERS[self.format]}load_source", stream, **options)

    def plain(self, turn: int, icc: bytes | None, strictness: str, loaded: Any = None) -> _Plain:
        """Upright and plain; `loaded` is an image from `load` that may be used."""
        if loaded is None or turn not in _UPRIGHT_IN_SEQUENCE:
            loaded = self.load("sequential" if turn in _UPRIGHT_IN_SEQUENCE else "random", strictness)
        if self.format == "gif":
            loaded = gif.around_clear(loaded, gif.first_frame(self.source))
        image, icc, notes = as_plain(loaded, self.source.name, icc)
        if self.tiff is not None and self.tiff.is_lab:
            icc = None
        if self.format == "avif":
            image = full_range(image)
        return _Plain(turned_image(image, turn), icc, notes)


def _open_vips(loader: _Loader, max_pixels: int, accept_damaged: bool) -> tuple[Header, Rows]:
    return with_vips(loader.source.name, lambda: _opened_by_vips(loader, max_pixels, accept_damaged), loader.refuse)


def _opened_by_vips(loader: _Loader, max_pixels: int, accept_damaged: bool) -> tuple[Header, Rows]:
    source, format, name = loader.source, loader.format, loader.source.name  # noqa: A001
    loaded = loader.load("sequential", loader.strict)
    _check_size(loader, loaded, max_pixels)
    metadata = metadata_of(loaded, source, format)
    if loader.tiff is not None and loader.tiff.packed:
        return _packed(loader, loaded, metadata, accept_damaged)
    # libheif has already rotated the picture as its container specifies; EXIF only repeats that.
    turn = 1 if format == "avif" else loader.tiff.orientation if loader.tiff else orientation(metadata.exif)
    plain = loader.plain(turn, metadata.icc, loader.strict, loaded)
    header = _header(loader, loaded, plain, metadata, turn)

    def again(strictness: str, tidy: bool) -> Any:
        loader.tidy = tidy
        return loader.plain(turn, metadata.icc, strictness).image

    return header, VipsRows(
        name, again, plain.image, loader.refuse, accept_damaged=accept_damaged, strict=loader.strict, lost=loader.lost
    )


def _check_size(loader: _Loader, loaded: Any, max_pixels: int) -> None:
    source, width, height = loader.source, loaded.width * loader.shrink, loaded.height * loader.shrink
    if loader.tiff is not None and loader.tiff.packed:
        width, height = loader.tiff.size
    sniffing.check_pixels(source, width, height, max_pixels)
    if loader.format == "jpeg":
        bounds.check_jpeg(source, width, height)
    elif loader.format == "tiff":
        if loader.tiff is not None:
            bounds.check_tiff(source, *loader.tiff.size, loader.tiff.bits, loader.tiff.compression)
    elif loader.format in ("webp", "avif"):
        bounds.check_whole(source, width, height)


def _header(loader: _Loader, loaded: Any, plain: _Plain, metadata: Metadata, turn: int) -> Header:
    image, format = plain.image, loader.format  # noqa: A001
    notes = sniffing.name_notes(loader.source, format)
    pages = _pages(loader, loaded)
    notes += _frame_notes(max(pages, heif.frames(loader.source)) if format == "avif" else pages)
    notes += (loader.tiff.notes if loader.tiff is not None else ()) + plain.notes
    colour = metadata.colour if plain.icc == metadata.icc else ()  # converted: the profile describes the new colours
    metadata = replace(metadata, icc=plain.icc, colour=colour)
    views = jpeg.pictures(loader.source) if format == "jpeg" else 1
    if views > 1 and not losses(metadata.xmp):  # a gain map is reported where its loss is detected
        notes += (f"only the first of the {views} pictures in the file is read",)
    depth = DEPTHS[image.format]
    header = Header(image.width, image.height, image.bands, depth, format, metadata, notes, turn, pages)
    return replace(header, left_out=_left_out(loader.source, format, metadata.xmp))


def _left_out(source: Source, format: str, xmp: bytes | None) -> tuple[str, ...]:  # noqa: A002
    """Metadata that cannot be carried over. What the XMP announces is reported when the result is written."""
    found = jpeg.left_out(source) if format == "jpeg" else heif.left_out(source) if format in _HEIF else ()
    return tuple(note for note in found if not any(note.startswith(what) for what in losses(xmp)))


def _pages(loader: _Loader, loaded: Any) -> int:
    if loader.tiff is not None:
        return loader.tiff.frames
    if loader.format == "png":
        return frames_of(loader.source)
    return int(loaded.get("n-pages")) if loaded.get_typeof("n-pages") else 1


def _frame_notes(frames: int) -> tuple[str, ...]:
    return (f"only the first of {frames} frames is read",) if frames > 1 else ()


def _packed(loader: _Loader, loaded: Any, metadata: Metadata, accept_damaged: bool) -> tuple[Header, Rows]:
    """A TIFF of 10 or 12 bits per sample, unpacked whole when its first row is requested."""
    kind = loader.tiff
    assert kind is not None
    width, height = kind.size if kind.orientation < 5 else kind.size[::-1]
    channels = kind.colours + (kind.alpha is not None)
    notes = _frame_notes(kind.frames) + kind.notes
    header = Header(width, height, channels, 16, "tiff", metadata, notes, kind.orientation, kind.frames)

    def decode() -> tuple[Pixels, str | None]:
        rows = VipsRows(loader.source.name, lambda strictness, _: loader.load("sequential", strictness), loaded,
                        loader.refuse, accept_damaged=accept_damaged, strict=loader.strict)  # fmt: skip
        samples = tiff_kinds.unpacked(kind, rows.rows(0, loaded.height)[:, :, 0])
        with shared():
            return vips_to_array(turned_image(array_to_vips(samples), kind.orientation)), rows.damage

    return header, WholeRows(decode)


# Pillow


def _open_whole(
    source: Source,
    format: str,  # noqa: A002
    max_pixels: int,
    shrink: int,
    accept_damaged: bool,
    cut: str,
) -> tuple[Header, Rows]:
    picture = WholePicture(source, format, max_pixels, shrink, accept_damaged=accept_damaged, lost=cut)
    exif, xmp, icc = (picture.info.get(key) or None for key in ("exif", "xmp", "icc_profile"))
    dpi = picture.info.get("dpi")
    resolution = None if not dpi else (float(dpi[0]), float(dpi[1]))
    colour = nclx(source) if format == "heic" else ()
    metadata = Metadata(icc, bare(exif), xmp, resolution, colour=colour)
    notes = sniffing.name_notes(source, format)
    if format == "heic":
        notes += _frame_notes(heif.frames(source))
    if picture.count > 1:
        notes += (f"only the main one of the {picture.count} pictures in the file is read",)
    header = Header(picture.width, picture.height, picture.channels, picture.depth, format, metadata, notes)
    return replace(header, left_out=_left_out(source, format, xmp)), WholeRows(picture.decode)
