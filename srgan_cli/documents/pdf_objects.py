"""The objects of a PDF: pictures, their filters and their colours.

Untrusted files have numbers where names belong, and references that lead nowhere: anything that does not follow ISO
32000-1 is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.extras import how_to_install
from srgan_cli.imaging.sources import Source

STORED = ("/DCTDecode", "/JPXDecode")  # filters whose data are complete picture files
RARER = "in rarer colours (CMYK, Lab, spot colours, 2, 4 or 16 bits)"
_TAIL_BYTES = 1 << 16
_END, _OBJECT = re.compile(rb"startxref\s+\d+"), re.compile(rb"\d\s+\d+\s+obj\b")
_DEVICES = {"/DeviceGray": 1, "/DeviceRGB": 3}


def library() -> Any:
    """pikepdf. Raises `UnreadablePictureError` if it is missing."""
    try:
        import pikepdf
    except ImportError as err:
        raise UnreadablePictureError(f"PDFs need one more package: {how_to_install('pdf')}") from err
    return pikepdf


def pictures(pdf: Any) -> list[Any]:
    """Image streams that are referenced and are not the mask of another; in the order of their numbers."""
    pikepdf = library()
    found, masks = [], set()
    for obj in _reachable(pdf):
        if isinstance(obj, pikepdf.Stream) and obj.get("/Subtype") == "/Image":
            found.append(obj)
            masks |= {obj[key].objgen for key in ("/SMask", "/Mask") if isinstance(obj.get(key), pikepdf.Stream)}
    return sorted((obj for obj in found if obj.objgen not in masks), key=lambda obj: obj.objgen)


def _reachable(pdf: Any) -> Iterator[Any]:
    """Indirect objects that are reachable from the file's root. Unreachable ones remain from earlier edits, and would
    be missing in a copy of the file."""
    pikepdf = library()
    seen, ahead = set[tuple[int, int]](), [pdf.trailer]
    while ahead:
        obj = ahead.pop()
        if getattr(obj, "is_indirect", False):
            if obj.objgen in seen:
                continue
            seen.add(obj.objgen)
            yield obj
        if isinstance(obj, pikepdf.Array):
            ahead.extend(obj)
        elif isinstance(obj, (pikepdf.Dictionary, pikepdf.Stream)):
            ahead.extend(obj[key] for key in list(obj.keys()))


def is_incomplete(pdf: Any, source: Source, *, is_intact: bool) -> bool:
    """Whether objects are missing. qpdf makes the best of a truncated file, which may be a shorter document, or an
    earlier version of it. `is_intact`: it has found nothing wrong so far."""
    if "/Size" not in pdf.trailer:  # lost: qpdf has made another one of what it found
        return True
    tail = source.read_at(max(0, source.size - _TAIL_BYTES), _TAIL_BYTES)
    *_, after = [0, *(found.end() for found in _END.finditer(tail))]
    if _OBJECT.search(tail, after) or not after:
        return True
    promised = whole_number(_entry(_entry(pdf.trailer.get("/Root"), "/Pages"), "/Count"), 0)
    return not is_intact and len(pdf.pages) < promised


def is_signed(pdf: Any) -> bool:
    root = pdf.trailer.get("/Root")
    return bool(whole_number(_entry(_entry(root, "/AcroForm"), "/SigFlags"), 0) & 1)


def size_of(obj: Any) -> tuple[int, int]:
    """Width and height in px from the picture's dictionary; 0 if missing."""
    width, height = (max(0, whole_number(obj.get(key), 0)) for key in ("/Width", "/Height"))
    return width, height


def filters(obj: Any) -> list[str]:
    """The names of a stream's filters, in order."""
    value = obj.get("/Filter")
    return [str(one) for one in (value if isinstance(value, library().Array) else [value]) if one is not None]


def why_kept(obj: Any) -> str | None:
    """Why a picture is not enlarged, or None; for one stored as a file, judged by the PDF's entries only."""
    pikepdf = library()
    names, space = filters(obj), obj.get("/ColorSpace")
    stored = bool({*STORED} & {*names})
    indexed = isinstance(space, pikepdf.Array) and len(space) > 0 and space[0] == "/Indexed"
    if obj.get("/ImageMask") is True:
        return "stencils"
    if "/JBIG2Decode" in names:
        return "in JBIG2"
    if "/CCITTFaxDecode" in names and "/DecodeParms" not in obj:
        return "fax-coded, without the settings"
    if len(names) > 1:
        return "packed twice"
    if indexed and stored:
        return RARER
    if "/Decode" in obj and (stored or indexed):
        return "with inverted colours"
    if isinstance(obj.get("/Mask"), pikepdf.Array) or "/SMaskInData" in obj:
        return "masked by their colour"
    if whole_number(obj.get("/BitsPerComponent"), 8) not in (1, 8) or colours(obj) is None:
        return RARER
    return None


def colours(obj: Any) -> tuple[int, str] | None:
    """The number of colours, and the PDF colour space for a result with as many; None if the picture is to be left
    alone.

    0 colours and no space: they are given in the picture's own file (JPEG 2000).
    """
    pikepdf = library()
    space = obj.get("/ColorSpace")
    if space is None and "/JPXDecode" in filters(obj):
        return 0, ""  # in the file itself
    if isinstance(space, pikepdf.Name):
        count = _DEVICES.get(str(space))
        return None if count is None else (count, str(space))
    if not isinstance(space, pikepdf.Array) or len(space) < 2:
        return None
    if space[0] == "/ICCBased":
        count = whole_number(_entry(space[1], "/N"), 0)
        return (count, text(space)) if count in (1, 3) else None
    return (3, "/DeviceRGB") if space[0] == "/Indexed" and space[1] == "/DeviceRGB" else None


def text(obj: Any) -> str:
    """An object in PDF syntax; an indirect one as a reference."""
    if getattr(obj, "is_indirect", False):
        return f"{obj.objgen[0]} {obj.objgen[1]} R"
    if hasattr(obj, "unparse"):
        return str(obj.unparse().decode("latin-1"))
    return "true" if obj is True else "false" if obj is False else str(obj)


def entries(obj: Any, without: tuple[str, ...] = ()) -> str:
    """The entries of a dictionary in PDF syntax, without its brackets."""
    return " ".join(f"{_name(key)} {text(obj[key])}" for key in list(obj.keys()) if key not in without)


def _name(key: str) -> str:
    """A name, of any bytes, in PDF syntax (ISO 32000-1, section 7.3.5)."""
    plain = (
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"#{byte:02x}"
        for byte in key[1:].encode("utf-8", "surrogateescape")
    )
    return "/" + "".join(plain)


def _entry(obj: Any, key: str) -> Any:
    """An entry of a dictionary or a stream; None for other objects."""
    pikepdf = library()
    return obj.get(key) if isinstance(obj, (pikepdf.Dictionary, pikepdf.Stream)) else None


def whole_number(value: Any, default: int) -> int:
    """A number of a PDF, or `default` if it is not a number."""
    return int(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else default
