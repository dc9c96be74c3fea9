"""Opening a file as a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

from srgan_cli.config import PageRange, WriteOptions
from srgan_cli.documents.animation import Animation
from srgan_cli.documents.archive import Archive, ArchiveBinder
from srgan_cli.documents.binding import Binder, TiffBinder
from srgan_cli.documents.document import Contents, Document, bare
from srgan_cli.documents.moving import ApngBinder, GifBinder, MovingBinder, WebpBinder
from srgan_cli.documents.pdf import PdfBinder, PdfPictures
from srgan_cli.documents.tiff import TiffPages
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging import sniffing
from srgan_cli.imaging.decoding import boundary
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.reading import OpenPicture, read_header
from srgan_cli.imaging.sources import Origin, Source


def open_document(origin: Origin, *, max_pixels: int, accept_damaged: bool = False) -> Document:
    """A file of several pages, opened. Raises `UnreadablePictureError`, also for a picture of one page."""
    source = Source(origin)
    try:
        with boundary(source.name):
            return _opened(origin, source, max_pixels, accept_damaged)
    except BaseException:
        source.close()
        raise


def _opened(origin: Origin, source: Source, max_pixels: int, accept_damaged: bool) -> Document:
    container = sniffing.container(source)
    if container == "zip":
        return Archive(source, max_pixels, accept_damaged=accept_damaged)
    if container == "pdf":
        return PdfPictures(source, max_pixels, accept_damaged=accept_damaged)
    format = sniffing.sniff(source)  # noqa: A001
    if format == "tiff":
        return TiffPages(source, max_pixels, accept_damaged=accept_damaged)
    if format in ("gif", "webp", "png"):
        header = read_header(origin, max_pixels=max_pixels, accept_damaged=accept_damaged)
        if header.pages > 1:
            return Animation(source, format, header.metadata, max_pixels, accept_damaged=accept_damaged)
    raise UnreadablePictureError(f"{source.name} holds one picture only")


def open_page(origin: Origin, number: int, *, max_pixels: int, accept_damaged: bool = False) -> OpenPicture:
    """Page `number` (from 0) of a document, whose file is closed with it. Raises `UnreadablePictureError`."""
    document = open_document(origin, max_pixels=max_pixels, accept_damaged=accept_damaged)
    try:
        page = document.open(number)
    except BaseException:
        document.close()
        raise
    page.close_with(document.close)
    return page


def container_of(origin: Origin) -> str | None:
    """A key of `CONTAINERS`, or None. Raises `UnreadablePictureError` if the file cannot be read at all."""
    with Source(origin) as source:
        return sniffing.container(source)


def sample_of(origin: Path | bytes, number: int, *, max_pixels: int) -> Path | bytes:
    """The file to examine for signs of earlier processing: for a container the file of page `number` (from 1), else the
    document.

    Raises `UnreadablePictureError`.
    """
    if container_of(origin) is None:
        return origin
    with open_document(origin, max_pixels=max_pixels) as document:
        return document.sample(number - 1) if isinstance(document, (Archive, PdfPictures)) else origin


def read_contents(origin: Origin, wanted: PageRange, *, max_pixels: int, accept_damaged: bool = False) -> Contents:
    """The headers of a document's pages; metadata only for the first.

    Raises `UnreadablePictureError`, also if the pages have more than `max_pixels` px together, or if none of the
    requested pages exists.
    """
    with open_document(origin, max_pixels=max_pixels, accept_damaged=accept_damaged) as document:
        numbers = tuple(wanted.of(document.count))
        if not numbers:
            name = "the input" if isinstance(origin, bytes) else str(origin)
            raise UnreadablePictureError(
                f"{name} has {document.count} {document.kind}, and none is number {wanted.first}"
            )
        pages: list[Header] = []
        left = max_pixels
        for number in numbers:
            header = document.header(number - 1)
            left -= header.width * header.height
            if left < 0:
                _refuse_total(origin, len(numbers), document.kind, max_pixels)
            pages.append(bare(header) if pages else header)
        format = container_of(origin) or pages[0].format  # noqa: A001
        return Contents(document.kind, format, document.count, numbers, tuple(pages), document.notes)


def _refuse_total(origin: Origin, count: int, kind: str, max_pixels: int) -> None:
    name = "the input" if isinstance(origin, bytes) else str(origin)
    raise UnreadablePictureError(
        f"{name} has {count} {kind} of more than the {max_pixels} px allowed for all of them together; if you trust "
        "the file, raise --max-pixels, or choose some with --page"
    )


def binder_of(
    document: Document,
    numbers: tuple[int, ...],
    format: str,  # noqa: A002
    file: BinaryIO,
    options: WriteOptions,
    raw_bytes: int,
    state: dict[str, Any],
    *,
    keeps_others: bool,
) -> Binder:
    """The binder that puts pages `numbers` (from 1) of a document into a file of `format`; `raw_bytes` is the size of
    all results.

    `keeps_others`: other contents of a container stay in it.
    """
    if isinstance(document, Archive):
        return ArchiveBinder(file, options, document, numbers, state, keeps_others=keeps_others)
    if isinstance(document, PdfPictures):
        return PdfBinder(file, options, document, numbers)
    if format == "tiff":
        return TiffBinder(file, options, raw_bytes, state)
    timing = document.timing
    assert timing is not None
    return _MOVING[format](file, options, timing, numbers)


_MOVING: dict[str, type[MovingBinder]] = {
    "webp": WebpBinder,
    "png": ApngBinder,
    "gif": GifBinder,
}
