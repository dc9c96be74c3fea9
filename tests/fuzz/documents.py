"""Intact files of many pictures: animations, pages, archives and PDFs."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from PIL import Image as Pillow

from tests.documents.films import film
from tests.fuzz.seeds import HEIGHT, WIDTH, Seed, picture, saved
from tests.imaging import samples
from tests.imaging.tiffs import gradient, page, pages


def documents() -> Iterator[Seed]:
    for make in (_films, _tiff_pages, _tables_by_hand, _archives, _pdfs):
        yield from make()


def _films() -> Iterator[Seed]:
    for format_, suffix in (("GIF", ".gif"), ("WEBP", ".webp"), ("PNG", ".png")):
        for clear in (False, True):
            yield Seed(f"film {format_} {clear=}", suffix, film(format_, clear=clear))
    for mode in ("L", "P", "RGBA", "I;16"):
        frames = [picture(mode).rotate(90 * number) for number in range(3)]
        for disposal, blend in ((0, 0), (1, 1), (2, 1)):
            options = {"save_all": True, "append_images": frames[1:], "disposal": disposal, "blend": blend}
            yield Seed(f"film PNG {mode} {disposal} {blend}", ".png", saved(frames[0], "PNG", **options))
    frames = [picture("P").rotate(90 * number) for number in range(3)]
    for disposal in (2, 3):
        options = {"save_all": True, "append_images": frames[1:], "disposal": disposal, "transparency": 3}
        yield Seed(f"film GIF {disposal}", ".gif", saved(frames[0], "GIF", **options))


def _tiff_pages() -> Iterator[Seed]:
    shots = [picture("RGB"), picture("L").resize((9, 14)), picture("I;16"), picture("CMYK"), picture("1")]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        options = {"save_all": True, "append_images": shots[1:], "compression": compression}
        yield Seed(f"pages {compression}", ".tif", saved(shots[0], "TIFF", **options))
    jpegs = {"save_all": True, "append_images": [shots[0].rotate(180)], "compression": "jpeg"}
    yield Seed("pages jpeg", ".tif", saved(shots[0], "TIFF", **jpegs))
    big = {"save_all": True, "append_images": shots[1:3], "big_tiff": True}
    yield Seed("pages of a BigTIFF", ".tif", saved(shots[0], "TIFF", **big))


def _tables_by_hand() -> Iterator[Seed]:
    colour, grey = gradient(HEIGHT, WIDTH, 3).tobytes(), gradient(9, 7, 1).tobytes()
    full, small = page(WIDTH, HEIGHT, [8] * 3, 2, colour), page(7, 9, [8], 1, grey, more={254: (4, [1])})
    for order in "<>":
        yield Seed(f"pages by hand {order}", ".tif", pages([full, page(7, 9, [8], 1, grey), full], order=order))
        yield Seed(f"preview first {order}", ".tif", pages([small, full], order=order))
        yield Seed(f"SubIFD {order}", ".tif", pages([small, full], order=order, sub=1))
    mask = page(7, 9, [8], 1, grey, more={254: (4, [4])})
    yield Seed("pages with a mask", ".tif", pages([full, mask, full]))
    yield Seed(
        "pages on their sides", ".tif", pages([page(WIDTH, HEIGHT, [8] * 3, 2, colour, more={274: (3, [6])})] * 2)
    )


# ------------------------------------------------------------------------------------------------------------ archives

_INFO = b"<ComicInfo><Title>a</Title></ComicInfo>"


def _members() -> list[tuple[str, bytes]]:
    shot = picture("RGB")
    return [
        ("book/", b""),
        ("book/10.jpg", saved(shot, "JPEG")),
        ("ComicInfo.xml", _INFO),
        ("book/2 \xfc.png", saved(picture("L"), "PNG")),
        ("book/3.webp", saved(shot, "WEBP")),
        ("book/4.tif", saved(shot, "TIFF")),
        ("__MACOSX/book/._10.jpg", b"finder's"),
    ]


def archive(members: list[tuple[str, bytes]], method: int, *, streamed: bool = False, zip64: bool = False) -> bytes:
    """`streamed`: with sizes behind the data, as programs write that cannot seek."""
    stream: Any = _Pipe() if streamed else io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with file.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
        file.comment = b"a comment"
    return bytes(stream.getvalue())


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation

    def tell(self) -> int:
        raise io.UnsupportedOperation


def _archives() -> Iterator[Seed]:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield Seed(f"archive {method}", ".cbz", archive(_members(), method))
    yield Seed("archive streamed", ".zip", archive(_members(), zipfile.ZIP_DEFLATED, streamed=True))
    yield Seed("archive zip64", ".zip", archive(_members(), zipfile.ZIP_DEFLATED, zip64=True))
    inner = archive(_members()[:2], zipfile.ZIP_STORED)
    yield Seed("archive in archive", ".cbz", archive([*_members()[:2], ("b.zip", inner)], zipfile.ZIP_STORED))
    yield Seed("archive of films", ".cbz", archive([("a.gif", film("GIF")), ("b.png", film("PNG"))], 0))


# ---------------------------------------------------------------------------------------------------------------- PDFs


def _pdfs() -> Iterator[Seed]:
    """Where pikepdf is installed."""
    with suppress(ImportError):
        import pikepdf

        mode = pikepdf.ObjectStreamMode
        for title, options in (
            ("classic", {"object_stream_mode": mode.disable}),
            ("object streams", {"object_stream_mode": mode.generate}),
            ("linearized", {"linearize": True}),
            ("qdf", {"qdf": True}),
        ):
            stream = io.BytesIO()
            _pdf(pikepdf).save(stream, deterministic_id=True, **options)
            yield Seed(f"pdf {title}", ".pdf", stream.getvalue())


def _pdf(pikepdf: Any) -> Any:
    """A page for each kind of picture: those that are enlarged, and those that are kept."""
    name, pdf = pikepdf.Name, pikepdf.new()
    colour, grey = samples.pixels(HEIGHT, WIDTH, 3), samples.pixels(HEIGHT, WIDTH, 1)
    flat, plain = zlib.compress(colour.tobytes()), zlib.compress(grey.tobytes())
    profile = pdf.make_indirect(pikepdf.Stream(pdf, samples.srgb(), N=3))
    predicted = zlib.compress(b"".join(b"\2" + row.tobytes() for row in np.diff(colour, axis=0, prepend=0)))
    indexed = pikepdf.Array([name.Indexed, name.DeviceRGB, 3, bytes(range(12))])
    mask = _xobject(pikepdf, pdf, plain, Filter=name.FlateDecode, ColorSpace=name.DeviceGray)
    kinds: list[tuple[bytes, dict[str, Any]]] = [
        (saved(picture("RGB"), "JPEG"), {"Filter": name.DCTDecode}),
        (flat, {"Filter": name.FlateDecode, "SMask": mask}),
        (flat, {"Filter": name.FlateDecode, "ColorSpace": pikepdf.Array([name.ICCBased, profile])}),
        (predicted, {"Filter": name.FlateDecode,
                     "DecodeParms": pikepdf.Dictionary(Predictor=15, Colors=3, Columns=WIDTH)}),
        (zlib.compress((grey & 3).tobytes()), {"Filter": name.FlateDecode, "ColorSpace": indexed}),
        (colour.tobytes().hex().encode() + b">", {"Filter": name.ASCIIHexDecode}),
        (plain, {"Filter": name.FlateDecode, "ColorSpace": name.DeviceGray}),
        (_fax(), {"Filter": name.CCITTFaxDecode, "BitsPerComponent": 1, "ColorSpace": name.DeviceGray,
                  "DecodeParms": pikepdf.Dictionary(K=-1, Columns=WIDTH, Rows=HEIGHT)}),
        (saved(picture("RGB"), "JPEG2000", no_jp2=True), {"Filter": name.JPXDecode}),
        (saved(picture("CMYK"), "JPEG"), {"Filter": name.DCTDecode, "ColorSpace": name.DeviceCMYK}),
    ]  # fmt: skip
    for data, about in kinds:
        one = pdf.add_blank_page(page_size=(100, 80))
        one.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(I0=_xobject(pikepdf, pdf, data, **about)))
        one.Contents = pikepdf.Stream(pdf, b"q 100 0 0 80 0 0 cm /I0 Do Q")
    return pdf


def _fax() -> bytes:
    """The picture in two levels, in CCITT's group 4, taken out of a TIFF."""
    tiff = saved(picture("1"), "TIFF", compression="group4")
    opened: Any = Pillow.open(io.BytesIO(tiff))
    (at, *_), (size, *_) = opened.tag_v2[273], opened.tag_v2[279]
    return tiff[at : at + size]


def _xobject(pikepdf: Any, pdf: Any, data: bytes, **about: Any) -> Any:
    found = pikepdf.Stream(pdf, data)
    name = pikepdf.Name
    settings = {"Type": name.XObject, "Subtype": name.Image, "Width": WIDTH, "Height": HEIGHT,
                "BitsPerComponent": 8, "ColorSpace": name.DeviceRGB}  # fmt: skip
    for key, value in {**settings, **about}.items():
        found[f"/{key}"] = value
    return pdf.make_indirect(found)
