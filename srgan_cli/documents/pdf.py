"""PDFs of scanned pages: their pictures are replaced by larger ones, and everything else is unchanged.

A picture is extracted as it is stored (JPEG and JPEG 2000 byte for byte, losslessly compressed ones as PNG); one-bit
pictures become grey. The result is a copy of the file without those pictures, followed by an incremental update (ISO
32000-1, section 7.5.6) with the new contents of their objects. Text layer, page boxes, outlines and links are not
touched. One picture is in memory at a time.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any, BinaryIO

from srgan_cli.config import WriteOptions
from srgan_cli.documents.binding import Notes, Page
from srgan_cli.documents.document import Closing, Kind, Timing, check_count
from srgan_cli.documents.pdf_bounds import check_unpacked, limit_structure
from srgan_cli.documents.pdf_objects import (
    RARER,
    STORED,
    colours,
    entries,
    filters,
    is_incomplete,
    is_signed,
    library,
    pictures,
    size_of,
    why_kept,
)
from srgan_cli.documents.stream import Stream
from srgan_cli.errors import SettingsError, UnreadablePictureError
from srgan_cli.imaging import sniffing
from srgan_cli.imaging.decoding import boundary, damaged
from srgan_cli.imaging.encoding import encode, final_pixels
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source

FORMATS_INSIDE = ("jpeg", "png")  # png: losslessly compressed
_MARK = "/SrganPicture"
_CHANGED = (
    "/Width", "/Height", "/BitsPerComponent", "/Filter", "/DecodeParms", "/Decode", "/Length", "/ColorSpace", _MARK,
)  # fmt: skip


class PdfPictures(Closing):
    """An open PDF, whose pages are its pictures, in the order of their objects. Closes `source`."""

    kind: Kind = "pages"
    timing: Timing | None = None

    def __init__(self, source: Source, max_pixels: int, *, accept_damaged: bool = False) -> None:
        self.source, self._max_pixels, self._accept = source, max_pixels, accept_damaged
        self._pdf, self._is_rebuilt = _opened(source)
        self._kept: list[str] = []
        self._found = [(obj, kind) for obj in pictures(self._pdf) if (kind := self._kind_of(obj)) is not None]
        check_count(source, len(self._found))
        if not self._found:
            why = f": {'; '.join(dict.fromkeys(self._kept))}" if self._kept else ""
            raise UnreadablePictureError(f"{source.name} is a PDF without pictures that can be enlarged{why}")

    @property
    def count(self) -> int:
        return len(self._found)

    @property
    def notes(self) -> tuple[str, ...]:
        told = tuple(
            f"pictures of the PDF that are kept unchanged, {why}: {self._kept.count(why)}"
            for why in dict.fromkeys(self._kept)
        )
        if self._is_rebuilt:
            told += ("the PDF is damaged; its table of objects was rebuilt, so check that nothing is missing",)
        if is_signed(self._pdf):
            told += ("the PDF is signed; the signature is not valid for the result",)
        return told

    def identity(self, number: int) -> tuple[int, int]:
        """Number and generation of a picture's object."""
        found: tuple[int, int] = self._found[number][0].objgen
        return found

    def open(self, number: int) -> OpenPicture:
        source = Source(self.sample(number) or b"\0")
        source.name = f"page {number + 1} of {self.source.name}"
        return open_picture(source, max_pixels=self._max_pixels, accept_damaged=self._accept)

    def sample(self, number: int) -> bytes:
        """A picture as a separate file."""
        obj, kind = self._found[number]
        if kind == "raw":
            return bytes(obj.read_raw_bytes())
        stream = io.BytesIO()
        name = f"page {number + 1} of {self.source.name}"
        with boundary(name):
            sniffing.check_pixels(self.source, *size_of(obj), self._max_pixels)
            check_unpacked(obj, name)
            picture = _decoded(obj, name)
            # A mask is a separate picture in the file and stays there; some versions of pikepdf add it as alpha.
            plain = picture.convert("L" if picture.mode in ("L", "LA") else "RGB")
            plain.save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def _kind_of(self, obj: Any) -> str | None:
        """`raw` for a JPEG (2000), `pixels` for losslessly compressed data; None for what is not enlarged, with a
        note."""
        stored = filters(obj)[-1:] in ([name] for name in STORED)
        why = why_kept(obj) or (self._why_file_kept(obj) if stored else None)
        if why is not None:
            self._kept.append(why)
            return None
        return "raw" if stored else "pixels"

    def _why_file_kept(self, obj: Any) -> str | None:
        try:
            with open_picture(bytes(obj.read_raw_bytes()), max_pixels=self._max_pixels) as picture:
                header = picture.header
        except UnreadablePictureError:
            return None  # the error is reported when it is opened as a page
        if header.orientation != 1:
            return "rotated by EXIF, which a PDF ignores"
        if header.depth != 8 or header.channels not in (1, 3):
            return RARER
        return None

    def close(self) -> None:
        self._pdf.close()
        self.source.close()


def _decoded(obj: Any, name: str) -> Any:
    """The pixels, decoded by Pillow. Raises `UnreadablePictureError` for unsupported and damaged data."""
    pikepdf = library()
    try:
        return pikepdf.PdfImage(obj).as_pil_image()
    except (pikepdf.UnsupportedImageTypeError, pikepdf.models.image.NotExtractableError, NotImplementedError) as err:
        raise damaged(name, f": not supported: {err}") from err


def _opened(source: Source) -> tuple[Any, bool]:
    """The PDF, opened, and whether qpdf had to rebuild its table of objects. Raises `UnreadablePictureError` if it is
    encrypted, incomplete, or not a PDF."""
    pikepdf = library()
    limit_structure()
    try:
        pdf = pikepdf.open(io.BufferedReader(Stream(source)))
    except pikepdf.PasswordError as err:
        raise UnreadablePictureError(f"{source.name} is locked with a password: unlock it first") from err
    except pikepdf.PdfError as err:
        raise UnreadablePictureError(f"{source.name} is damaged or incomplete: {err}") from err
    if pdf.is_encrypted:
        pdf.close()
        raise UnreadablePictureError(
            f"{source.name} is encrypted, and its owner restricts what may be done with it: unlock it first"
        )
    warnings = pdf.get_warnings()  # which empties the list
    if is_incomplete(pdf, source, is_intact=not warnings):
        pdf.close()
        raise UnreadablePictureError(
            f"{source.name} is damaged or incomplete: its end, or some of its pages, are missing"
        )
    return pdf, any("reconstruct" in str(warning) for warning in warnings)


class PdfBinder:
    """A copy of the PDF, followed by an update with the larger pictures. It is written in one go: an interrupted run
    starts again."""

    pages = 0

    def __init__(self, file: BinaryIO, options: WriteOptions, document: PdfPictures, numbers: tuple[int, ...]) -> None:
        self._file, self._options, self._document, self._numbers = file, options, document, numbers
        self._next = 0
        self._objects: dict[int, tuple[tuple[int, int], str, tuple[int, str]]] = {}
        self._places: dict[tuple[int, int], int] = {}
        self._trailer, self._previous = "", 0

    @property
    def state(self) -> dict[str, Any]:
        return {}

    def add(self, page: Page) -> Notes:
        if self._next == 0:
            self._copy()
        number = self._numbers[self._next]
        self._next += 1
        identity, others, (count, space) = self._objects[number]
        data, filter_, channels, notes = self._packed(page)
        if channels != count:
            space = "/DeviceGray" if channels == 1 else "/DeviceRGB"
        output = page.output
        told = (
            f"/Type /XObject /Subtype /Image /Width {output.width} /Height {output.height} /BitsPerComponent 8 "
            f"/ColorSpace {space} /Filter {filter_} /Length {len(data)} {others}"
        )
        self._file.seek(0, 2)
        self._file.write(b"\n")
        self._places[identity] = self._file.tell()
        self._file.write(f"{identity[0]} {identity[1]} obj\n<< {told} >>\nstream\n".encode("latin-1"))
        self._file.write(data)
        self._file.write(b"\nendstream\nendobj\n")
        return notes

    def finish(self) -> Notes:
        at = self._file.seek(0, 2)
        rows = ["xref\n0 1\n0000000000 65535 f \n"]
        rows += [f"{number} 1\n{place:010d} {generation:05d} n \n"
                 for (number, generation), place in sorted(self._places.items())]  # fmt: skip
        rows.append(f"trailer\n<< {self._trailer} /Prev {self._previous} >>\nstartxref\n{at}\n%%EOF\n")
        self._file.write("".join(rows).encode("latin-1"))
        return ()

    def abandon(self) -> None:
        """Nothing to release."""

    def _packed(self, page: Page) -> tuple[bytes, str, int, Notes]:
        if page.output.format == "jpeg":
            stream = io.BytesIO()
            notes = encode(page.pixels, stream, page.output, page.metadata, self._options)
            return stream.getvalue(), "/DCTDecode", page.header.channels, notes
        pixels, _, notes = final_pixels(page.pixels, page.output, page.metadata, self._options)
        return zlib.compress(pixels.tobytes(), 6), "/FlateDecode", pixels.shape[2], notes

    def _copy(self) -> None:
        """Copy everything but the pictures to be replaced, and note what the update needs: the other entries of those
        objects, the trailer, and where the copy's cross-reference table is."""
        pikepdf = library()
        wanted = {self._document.identity(number - 1): number for number in self._numbers}
        pdf = pikepdf.open(io.BufferedReader(Stream(self._document.source)))
        for obj in pictures(pdf):
            if (number := wanted.get(obj.objgen)) is not None:
                obj[_MARK] = number
                obj.write(b"")
        self._file.seek(0)
        self._file.truncate(0)
        # A classic cross-reference table, which can be followed by an update of the same kind.
        pdf.save(self._file, object_stream_mode=pikepdf.ObjectStreamMode.disable, compress_streams=False,
                 deterministic_id=True)  # fmt: skip
        pdf.close()
        self._file.flush()
        self._file.seek(0)
        copy = pikepdf.open(self._file)
        for obj in pictures(copy):
            if _MARK in obj:
                found = colours(obj) or (0, "")  # for JPEG 2000, whose filter has been removed by now
                others = entries(obj, (*_CHANGED, "/Type", "/Subtype"))
                self._objects[int(obj[_MARK])] = (obj.objgen, others, found)
        self._trailer = entries(copy.trailer, ("/Prev",))
        copy.close()
        end = self._file.seek(0, 2)
        self._file.seek(max(0, end - 2048))
        self._previous = int(re.findall(rb"startxref\s+(\d+)", self._file.read())[-1])


def check_inside(format: str) -> None:  # noqa: A002
    """Raise `SettingsError` for a format that a picture in a PDF cannot have."""
    if format not in FORMATS_INSIDE:
        raise SettingsError(f"pictures in a PDF are written as jpeg, or without loss as png, not as {format}")
