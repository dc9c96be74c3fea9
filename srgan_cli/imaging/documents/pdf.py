"""PDFs of scanned pages: the pictures in them become larger ones, and all else stays as it is.

A picture is taken out as it is stored (JPEG and JPEG 2000 byte for byte, what is packed without loss as a PNG); one of
one bit becomes grey. The result is a copy of the file without those pictures, and an incremental update behind it
(ISO 32000-1, section 7.5.6) that gives their objects new contents: text layer, page boxes, outlines and links are not
touched. One picture is held at a time.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import Any, BinaryIO

from srgan_cli.config import WriteOptions
from srgan_cli.errors import SettingsError, UnreadablePictureError
from srgan_cli.extras import how_to_install
from srgan_cli.imaging.decoding import boundary
from srgan_cli.imaging.documents.binding import Notes, Page
from srgan_cli.imaging.documents.document import Closing, Kind, Timing, check_count
from srgan_cli.imaging.documents.stream import Stream
from srgan_cli.imaging.encoding import encode, final_pixels
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source

FORMATS_INSIDE = ("jpeg", "png")  # png: without loss
_MARK = "/SrganPicture"
_CHANGED = (
    "/Width", "/Height", "/BitsPerComponent", "/Filter", "/DecodeParms", "/Decode", "/Length", "/ColorSpace", _MARK,
)  # fmt: skip
_STORED = ("/DCTDecode", "/JPXDecode")  # files of their own
_DEVICES = {"/DeviceGray": 1, "/DeviceRGB": 3}
_RARER = "in rarer colours (CMYK, Lab, spot colours, 2, 4 or 16 bits)"


def _pikepdf() -> Any:
    try:
        import pikepdf
    except ImportError as err:
        raise UnreadablePictureError(f"PDFs need one more package: {how_to_install('pdf')}") from err
    return pikepdf


class PdfPictures(Closing):
    """An open PDF, whose pages are the pictures in it, in the order of their objects. Closes `source`."""

    kind: Kind = "pages"
    timing: Timing | None = None

    def __init__(self, source: Source, max_pixels: int, *, accept_damaged: bool = False) -> None:
        self.source, self._max_pixels, self._accept = source, max_pixels, accept_damaged
        self._pdf = opened(source)
        self._kept: list[str] = []
        self._found = [(obj, kind) for obj in _pictures(self._pdf) if (kind := self._kind_of(obj)) is not None]
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
            f"pictures of the PDF that are kept as they are, {why}: {self._kept.count(why)}"
            for why in dict.fromkeys(self._kept)
        )
        form = self._pdf.Root.get("/AcroForm")
        if form is not None and int(form.get("/SigFlags", 0)) & 1:
            told += ("the PDF is signed, and the signature does not hold for the result",)
        return told

    def identity(self, number: int) -> tuple[int, int]:
        """Number and generation of a picture's object."""
        found: tuple[int, int] = self._found[number][0].objgen
        return found

    def header(self, number: int) -> Header:
        with self.open(number) as page:
            return page.header

    def open(self, number: int) -> OpenPicture:
        source = Source(self.sample(number) or b"\0")
        source.name = f"page {number + 1} of {self.source.name}"
        return open_picture(source, max_pixels=self._max_pixels, accept_damaged=self._accept)

    def sample(self, number: int) -> bytes:
        """A picture as a file of its own."""
        obj, kind = self._found[number]
        if kind == "raw":
            return bytes(obj.read_raw_bytes())
        stream = io.BytesIO()
        with boundary(f"page {number + 1} of {self.source.name}"):
            picture = _pikepdf().PdfImage(obj).as_pil_image()
            # A mask is a picture of its own in the file, and stays there; some versions of pikepdf put it in as alpha.
            plain = picture.convert("L" if picture.mode in ("L", "LA") else "RGB")
            plain.save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def _kind_of(self, obj: Any) -> str | None:
        """`raw` for a JPEG (2000), `pixels` for what is packed without loss; None for what is kept, which is noted."""
        stored = _filters(obj)[-1:] in ([name] for name in _STORED)
        why = _why_kept(obj) or (self._why_file_kept(obj) if stored else None)
        if why is not None:
            self._kept.append(why)
            return None
        return "raw" if stored else "pixels"

    def _why_file_kept(self, obj: Any) -> str | None:
        try:
            with open_picture(bytes(obj.read_raw_bytes()), max_pixels=self._max_pixels) as picture:
                header = picture.header
        except UnreadablePictureError:
            return None  # whoever opens it as a page says what is wrong
        if header.orientation != 1:
            return "lying on their side by EXIF, which a PDF does not obey"
        if header.depth != 8 or header.channels not in (1, 3):
            return _RARER
        return None

    def close(self) -> None:
        self._pdf.close()
        self.source.close()


def opened(source: Source) -> Any:
    """Raises `UnreadablePictureError` for what is locked or no PDF."""
    pikepdf = _pikepdf()
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
    return pdf


def _pictures(pdf: Any) -> list[Any]:
    """Image streams that are not the mask of another."""
    pikepdf = _pikepdf()
    found, masks = [], set()
    for obj in pdf.objects:
        if isinstance(obj, pikepdf.Stream) and obj.get("/Subtype") == "/Image":
            found.append(obj)
            masks |= {obj[key].objgen for key in ("/SMask", "/Mask") if isinstance(obj.get(key), pikepdf.Stream)}
    return [obj for obj in found if obj.objgen not in masks]


def _filters(obj: Any) -> list[str]:
    value = obj.get("/Filter")
    if value is None:
        return []
    return [str(value)] if not isinstance(value, _pikepdf().Array) else [str(one) for one in value]


def _why_kept(obj: Any) -> str | None:
    """Why a picture is not enlarged, or None; of one that is stored as a file, what the PDF alone says."""
    pikepdf = _pikepdf()
    filters, space = _filters(obj), obj.get("/ColorSpace")
    stored = bool({*_STORED} & {*filters})
    indexed = isinstance(space, pikepdf.Array) and space[0] == "/Indexed"
    if bool(obj.get("/ImageMask", False)):
        return "stencils"
    if "/JBIG2Decode" in filters:
        return "in JBIG2"
    if len(filters) > 1:
        return "packed twice"
    if indexed and stored:
        return _RARER
    if "/Decode" in obj and (stored or indexed):
        return "with colours that are turned round"
    if isinstance(obj.get("/Mask"), pikepdf.Array) or "/SMaskInData" in obj:
        return "masked by their colour"
    if int(obj.get("/BitsPerComponent", 8)) not in (1, 8) or _colours(obj) is None:
        return _RARER
    return None


def _colours(obj: Any) -> tuple[int, str] | None:
    """How many colours, and the colour space of a result of as many, as PDF has it; None for what is left alone.

    No colours and no space: the picture's own file (JPEG 2000) says them.
    """
    pikepdf = _pikepdf()
    space = obj.get("/ColorSpace")
    if space is None and "/JPXDecode" in _filters(obj):
        return 0, ""  # in the file itself
    if isinstance(space, pikepdf.Name):
        count = _DEVICES.get(str(space))
        return None if count is None else (count, str(space))
    if not isinstance(space, pikepdf.Array) or not len(space):
        return None
    if space[0] == "/ICCBased":
        count = int(space[1].get("/N", 0))
        return (count, space.unparse().decode("latin-1")) if count in (1, 3) else None
    if space[0] == "/Indexed" and isinstance(space[1], pikepdf.Name) and str(space[1]) == "/DeviceRGB":
        return 3, "/DeviceRGB"
    return None


class PdfBinder:
    """A copy of the PDF, and behind it an update with the larger pictures. It is made in one go: a run that is
    interrupted starts it anew."""

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
        """There is nothing to let go of."""

    def _packed(self, page: Page) -> tuple[bytes, str, int, Notes]:
        if page.output.format == "jpeg":
            stream = io.BytesIO()
            notes = encode(page.pixels, stream, page.output, page.metadata, self._options)
            return stream.getvalue(), "/DCTDecode", page.header.channels, notes
        pixels, _, notes = final_pixels(page.pixels, page.output, page.metadata, self._options)
        return zlib.compress(pixels.tobytes(), 6), "/FlateDecode", pixels.shape[2], notes

    def _copy(self) -> None:
        """All but the pictures that are replaced; and where those objects are in it."""
        pikepdf = _pikepdf()
        wanted = {self._document.identity(number - 1): number for number in self._numbers}
        pdf = pikepdf.open(io.BufferedReader(Stream(self._document.source)))
        for obj in _pictures(pdf):
            if (number := wanted.get(obj.objgen)) is not None:
                obj[_MARK] = number
                obj.write(b"")
        self._file.seek(0)
        self._file.truncate(0)
        # A table of the classic kind, which an update of that kind may follow.
        pdf.save(self._file, object_stream_mode=pikepdf.ObjectStreamMode.disable, compress_streams=False)
        pdf.close()
        self._file.flush()
        self._file.seek(0)
        copy = pikepdf.open(self._file)
        for obj in _pictures(copy):
            if _MARK in obj:
                colours = _colours(obj) or (0, "")  # of JPEG 2000, whose filter is gone by now
                others = " ".join(f"{key} {_text(obj[key])}" for key in obj if key not in
                                  (*_CHANGED, "/Type", "/Subtype"))  # fmt: skip
                self._objects[int(obj[_MARK])] = (obj.objgen, others, colours)
        self._trailer = " ".join(f"{key} {_text(copy.trailer[key])}" for key in list(copy.trailer) if key != "/Prev")
        copy.close()
        end = self._file.seek(0, 2)
        self._file.seek(max(0, end - 2048))
        found = re.findall(rb"startxref\s+(\d+)", self._file.read())
        self._previous = int(found[-1])


def _text(obj: Any) -> str:
    """An object as a PDF has it; one that stands elsewhere as a reference."""
    if getattr(obj, "is_indirect", False):
        return f"{obj.objgen[0]} {obj.objgen[1]} R"
    if hasattr(obj, "unparse"):
        return str(obj.unparse().decode("latin-1"))
    return "true" if obj is True else "false" if obj is False else str(obj)


def check_inside(format: str) -> None:  # noqa: A002
    """Raise `SettingsError` for a format that no picture in a PDF can have."""
    if format not in FORMATS_INSIDE:
        raise SettingsError(f"pictures in a PDF are jpeg, or png for those without loss, and not {format}")
