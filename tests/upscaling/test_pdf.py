"""PDFs of scanned pages: pictures replaced, everything else kept, and unusual or encrypted ones left alone or
refused."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.documents.opening import open_document
from tests.imaging import samples
from tests.upscaling.pictures import tree
from tests.upscaling.test_documents import Run, srgan

pikepdf = pytest.importorskip("pikepdf")
__all__ = ["srgan"]  # a fixture
pytestmark = pytest.mark.timeout(60)

TEXT = b"BT /F1 9 Tf 3 Tr 10 10 Td (found by search) Tj ET"


def image(pdf: Any, data: bytes, width: int, height: int, **more: Any) -> Any:
    found = pikepdf.Stream(pdf, data)
    found.Type, found.Subtype = pikepdf.Name.XObject, pikepdf.Name.Image
    found.Width, found.Height, found.BitsPerComponent = width, height, 8
    found.ColorSpace = pikepdf.Name.DeviceRGB
    for key, value in more.items():
        found[f"/{key}"] = value
    return pdf.make_indirect(found)


def scans(path: Path, *, odd: bool = False, **options: Any) -> Path:
    """A JPEG on one page, deflated grey on the next, both under a text layer."""
    name = pikepdf.Name
    pdf = pikepdf.new()
    colour, grey = samples.pixels(24, 16, 3), samples.pixels(20, 10, 1)
    jpeg = samples.encoded(Pillow.fromarray(colour), "JPEG", quality=92)
    profile = pdf.make_indirect(pikepdf.Stream(pdf, samples.grey_profile(), N=1))
    mask = image(pdf, zlib.compress(bytes([255]) * 200), 10, 20, Filter=name.FlateDecode, ColorSpace=name.DeviceGray)
    pictures = [
        image(pdf, jpeg, 16, 24, Filter=name.DCTDecode, Interpolate=True),
        image(
            pdf, zlib.compress(grey.tobytes()), 10, 20, Filter=name.FlateDecode, SMask=mask,
            ColorSpace=pikepdf.Array([name.ICCBased, profile]),
        ),
    ]  # fmt: skip
    if odd:
        one = {"BitsPerComponent": 1, "ColorSpace": name.DeviceGray}
        pictures += [
            image(pdf, b"\x97JB2", 16, 24, Filter=name.JBIG2Decode, **one),
            image(pdf, b"\0\x10\1", 16, 24, Filter=name.CCITTFaxDecode, ImageMask=True, **one),
            image(pdf, bytes(16 * 24 * 2), 16, 24, ColorSpace=name.DeviceGray, BitsPerComponent=16),
            image(pdf, jpeg, 16, 24, Filter=name.DCTDecode, Decode=[1, 0, 1, 0, 1, 0]),
            image(pdf, zlib.compress(bytes(16 * 24 * 4)), 16, 24, Filter=name.FlateDecode, ColorSpace=name.DeviceCMYK),
        ]
    for number, picture in enumerate(pictures):
        page = pdf.add_blank_page(page_size=(160, 240))
        page.CropBox = pikepdf.Array([5, 5, 150, 230])
        page.Rotate = 90 * (number % 2)
        page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=picture))
        page.Contents = pdf.make_stream(b"q 160 0 0 240 0 0 cm /Im0 Do Q " + TEXT)
    pdf.docinfo["/Title"] = "Scans"
    pdf.save(path, **options)
    return path


def pictures_of(path: str, *, odd: bool = False) -> list[Any]:
    with pikepdf.open(path) as pdf:
        assert odd or pdf.check_pdf_syntax() == []  # of odd pictures it says that it cannot look at them
        found = []
        for page in pdf.pages:
            obj = page.Resources.XObject.Im0
            shown = None if odd else pikepdf.PdfImage(obj).as_pil_image()
            found.append((int(obj.Width), int(obj.Height), str(obj.get("/Filter")), shown, bytes(obj.read_raw_bytes())))
        return found


@pytest.mark.parametrize("layout", ["disable", "generate"])
def test_pictures_grow_and_all_else_stays(srgan: Run, tmp_path: Path, layout: str) -> None:
    scans(tmp_path / "in.pdf", object_stream_mode=getattr(pikepdf.ObjectStreamMode, layout))
    code, said = srgan("in.pdf")
    assert (code, "2 pages" in said) == (0, True), said
    first, second = pictures_of("in_x2.pdf")
    assert first[:3] == (32, 48, "/DCTDecode")
    assert second[:3] == (20, 40, "/FlateDecode")
    with Pillow.open(io.BytesIO(first[4])) as jpeg:
        assert jpeg.size == (32, 48)
    assert np.asarray(second[3]).shape[:2] == (40, 20)
    with pikepdf.open("in.pdf") as was, pikepdf.open("in_x2.pdf") as now:
        assert now.docinfo["/Title"] == "Scans"
        for old, new in zip(was.pages, now.pages, strict=True):
            assert [float(x) for x in new.MediaBox] == [float(x) for x in old.MediaBox]
            assert [float(x) for x in new.CropBox] == [5, 5, 150, 230]
            assert new.get("/Rotate") == old.get("/Rotate")
            assert new.Contents.read_bytes() == old.Contents.read_bytes()
        grey = now.pages[1].Resources.XObject.Im0
        assert bytes(grey.ColorSpace[1].read_bytes()) == samples.grey_profile()
        assert int(grey.SMask.Width) == 10
        assert now.pages[0].Resources.XObject.Im0.Interpolate


def test_pages_are_the_same_as_pictures_alone(srgan: Run, tmp_path: Path) -> None:
    scans(tmp_path / "in.pdf")
    assert srgan("in.pdf", "--format", "png", "-o", "out.pdf")[0] == 0
    with pikepdf.open("in.pdf") as was:
        (tmp_path / "a.jpg").write_bytes(was.pages[0].Resources.XObject.Im0.read_raw_bytes())
    assert srgan("a.jpg", "-o", "a.png")[0] == 0
    with Pillow.open("a.png") as alone:
        assert np.array_equal(np.asarray(alone), np.asarray(pictures_of("out.pdf")[0][3]))
    assert srgan("in.pdf", "-o", "out.png")[0] == 0
    assert {path.name for path in tmp_path.glob("out-*")} == {"out-001.png", "out-002.png"}
    assert srgan("in.pdf", "--page", "2", "-o", "second.pdf")[0] == 0
    assert [one[:2] for one in pictures_of("second.pdf")] == [(16, 24), (20, 40)]
    code, said = srgan("in.pdf", "--format", "webp", "-o", "other.pdf")
    assert (code, "as jpeg, or without loss as png" in said) == (2, True), said


def test_what_is_odd_is_kept_to_the_byte_and_told(srgan: Run, tmp_path: Path) -> None:
    scans(tmp_path / "in.pdf", odd=True)
    code, said = srgan("in.pdf", "-o", "out.pdf")
    assert code == 0, said
    for words in (
        "JBIG2: 1",
        "stencils: 1",
        "inverted colours: 1",
        "rarer colours (CMYK, Lab, spot colours, 2, 4 or 16 bits): 2",
    ):
        assert words in said
    assert [one[4] for one in pictures_of("out.pdf", odd=True)[2:]] == [
        one[4] for one in pictures_of("in.pdf", odd=True)[2:]
    ]


def bits() -> Pillow.Image:
    """Black letters, more or less, on white."""
    page = np.full((48, 32), 255, np.uint8)
    page[6:20, 4:10] = page[24:28, 8:30] = page[34:42, 16:20] = 0
    return Pillow.fromarray(page).convert("1")


def ccitt(picture: Pillow.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "TIFF", compression="group4")
    with Pillow.open(stream) as tiff:
        at, count = tiff.tag_v2[273][0], tiff.tag_v2[279][0]  # type: ignore[attr-defined]
    return stream.getvalue()[at : at + count]


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("how", ["ccitt", "black is 1", "packed", "palette"])
def test_pages_of_one_bit_become_grey(srgan: Run, tmp_path: Path, how: str, turned: bool) -> None:
    if how == "palette" and turned:
        pytest.skip("a palette that is turned round is kept as it is")
    name, pdf = pikepdf.Name, pikepdf.new()
    more: dict[str, Any] = {"BitsPerComponent": 1, "ColorSpace": name.DeviceGray}
    if how in ("ccitt", "black is 1"):
        parameters = {"/K": -1, "/Columns": 32, "/Rows": 48, "/BlackIs1": how == "black is 1"}
        data, more = (
            ccitt(bits()),
            more | {"Filter": name.CCITTFaxDecode, "DecodeParms": pikepdf.Dictionary(parameters)},
        )
    else:
        data, more = zlib.compress(bits().tobytes()), more | {"Filter": name.FlateDecode}
    if how == "palette":
        more["ColorSpace"] = pikepdf.Array([name.Indexed, name.DeviceRGB, 1, pikepdf.String(b"\0\0\0\xff\xff\xff")])
    if turned:
        more["Decode"] = [1, 0]
    page = pdf.add_blank_page(page_size=(32, 48))
    page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=image(pdf, data, 32, 48, **more)))
    page.Contents = pdf.make_stream(b"q 32 0 0 48 0 0 cm /Im0 Do Q")
    pdf.save("in.pdf")
    code, said = srgan("in.pdf", "-o", "out.pdf")
    assert code == 0, said
    before, after = (np.asarray(pictures_of(path)[0][3].convert("L")).astype(int) for path in ("in.pdf", "out.pdf"))
    assert after.shape == (96, 64)
    assert np.corrcoef(before.ravel(), after.reshape(48, 2, 32, 2).mean((1, 3)).ravel())[0, 1] > 0.8
    with pikepdf.open("out.pdf") as out:
        obj = out.pages[0].Resources.XObject.Im0
        assert (int(obj.BitsPerComponent), "/Decode" in obj, "/DecodeParms" in obj) == (8, False, False)


@pytest.mark.parametrize("space", [True, False])
def test_pages_of_jpeg_2000_grow(srgan: Run, tmp_path: Path, space: bool) -> None:
    name, pdf = pikepdf.Name, pikepdf.new()
    data = samples.encoded(Pillow.fromarray(samples.pixels(40, 32, 3)), "JPEG2000")
    picture = image(pdf, data, 32, 40, Filter=name.JPXDecode)
    if not space:
        del picture["/ColorSpace"], picture["/BitsPerComponent"]
    page = pdf.add_blank_page(page_size=(32, 40))
    page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=picture))
    pdf.save("in.pdf")
    code, said = srgan("in.pdf", "-o", "out.pdf")
    assert code == 0, said
    (tmp_path / "alone.jp2").write_bytes(data)
    assert srgan("alone.jp2", "-o", "alone.png")[0] == 0
    width, height, filter_, shown, _ = pictures_of("out.pdf")[0]
    assert (width, height, filter_) == (64, 80, "/FlateDecode")
    with Pillow.open("alone.png") as alone:
        assert np.array_equal(np.asarray(alone), np.asarray(shown))


@pytest.mark.parametrize(
    ("options", "says"), [({"user": "u", "owner": "o"}, "password"), ({"user": "", "owner": "o"}, "encrypted")]
)
def test_locked_pdfs_are_refused(srgan: Run, tmp_path: Path, options: dict[str, str], says: str) -> None:
    scans(tmp_path / "in.pdf", encryption=pikepdf.Encryption(**options))
    code, said = srgan("in.pdf", "-o", "out.pdf")
    assert (code, says in said) == (3, True), said


def test_hostile_pdfs_are_refused_in_a_sentence(srgan: Run, tmp_path: Path) -> None:
    scans(tmp_path / "in.pdf")
    data = (tmp_path / "in.pdf").read_bytes()
    with pikepdf.new() as empty:
        empty.add_blank_page()
        empty.save("empty.pdf")
    bad = data.replace(b"\xff\xd8", b"\0\0", 1)
    for made, says in (
        (b"%PDF-1.7\n" + bytes(300), "damaged"),
        (bad, "page"),
        (Path("empty.pdf").read_bytes(), "without"),
    ):
        (tmp_path / "in.pdf").write_bytes(made)
        code, said = srgan("in.pdf", "-o", "out.pdf")
        assert (code, says in said, "defect" in said) == (3, True, False), said
    assert tree(tmp_path) == {"in.pdf", "empty.pdf"}


def test_a_picture_that_unpacks_to_more_than_it_is_is_refused(srgan: Run, tmp_path: Path) -> None:
    """By whatever it is packed with; LZW is what TIFF has, too."""
    name = pikepdf.Name
    black = Pillow.new("L", (4000, 4000))
    tiff = samples.encoded(black, "TIFF", compression="tiff_lzw", strip_size=16_000_000)
    opened: Any
    with Pillow.open(io.BytesIO(tiff)) as opened:
        at, size = opened.tag_v2[273][0], opened.tag_v2[279][0]
    lzw = tiff[at : at + size]
    for data, filter_ in ((zlib.compress(bytes(16_000_000)), name.FlateDecode), (lzw, name.LZWDecode)):
        for width, height, code in ((10, 20, 3), (4000, 4000, 0)):
            pdf = pikepdf.new()
            page = pdf.add_blank_page()
            one = image(pdf, data, width, height, Filter=filter_, ColorSpace=name.DeviceGray)
            page.Resources = pikepdf.Dictionary(XObject=pikepdf.Dictionary(Im0=one))
            pdf.save("in.pdf", compress_streams=False)
            if code:
                got, said = srgan("in.pdf", "-o", "out.pdf")
                assert (got, "bomb" in said) == (code, True), said
            else:
                with open_document(Path("in.pdf"), max_pixels=samples.MANY) as document:
                    assert document.header(0).width == 4000


def test_an_object_stream_may_not_unpack_without_end(srgan: Run, tmp_path: Path) -> None:
    objects = zlib.compress(b"5 0 << /Type /Pages /Kids [] /Count 0 >> " + b" " * (70 << 20), 9)
    parts = [
        b"1 0 obj << /Type /Catalog /Pages 5 0 R >> endobj\n",
        b"3 0 obj << /Type /ObjStm /N 1 /First 4 /Filter /FlateDecode /Length %d >> stream\n" % len(objects),
    ]
    head = b"%PDF-1.7\n"
    places = [len(head), len(head) + len(parts[0])]
    body = head + parts[0] + parts[1] + objects + b"\nendstream endobj\n"
    rows = [(0, 0, 0), (1, places[0], 0), (0, 0, 0), (1, places[1], 0), (1, len(body), 0), (2, 3, 0)]
    table = b"".join(kind.to_bytes(1) + at.to_bytes(4) + more.to_bytes(2) for kind, at, more in rows)
    body += b"4 0 obj << /Type /XRef /W [1 4 2] /Size 6 /Root 1 0 R /Length %d >> stream\n" % len(table)
    data = body + table + b"\nendstream endobj\nstartxref\n%d\n%%%%EOF\n" % (body.rindex(b"4 0 obj"))
    (tmp_path / "in.pdf").write_bytes(data)
    code, said = srgan("in.pdf", "-o", "out.pdf")
    assert (code, "defect" in said) == (3, False), said
    assert "without pictures" in said or "damaged" in said


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"/BitsPerComponent 8", b"/BitsPerComponent/A"),
        (b"/ICCBased", b"/Indexed "),
        (b"/ColorSpace /DeviceRGB", b"/ColorSpace [null 3 ]"),
        (b"/Filter /DCTDecode", b"/Filter [null 7 ()]"),
        (b"/Width 16", b"/Width()  "),
        (b"/Width 16", b"/Width -1 "),
        (b"/SMask ", b"/SMask 9 "),
        (b"/Interpolate", b"/Inter\x80olat"),
        (b"/Interpolate", b"/Inter#20/  "),
    ],
)
def test_what_is_not_as_pdf_has_it_is_no_defect(srgan: Run, tmp_path: Path, was: bytes, now: bytes) -> None:
    scans(tmp_path / "in.pdf", compress_streams=False)
    data = (tmp_path / "in.pdf").read_bytes()
    assert was in data
    for more in (b"", b" /AcroForm 7"):
        (tmp_path / "in.pdf").write_bytes(data.replace(was, now).replace(b"/Type /Catalog", b"/Type /Catalog" + more))
        code, said = srgan("in.pdf", "-o", "out.pdf", "--overwrite")
        assert code in (0, 3), said
        assert "defect" not in said


def _cut(data: bytes) -> bytes:
    return data[: -len(data) // 8]


def _cut_in_an_update(data: bytes) -> bytes:
    """The end of the first version is there, and the second version is not complete."""
    return data + b"\n90 0 obj\n<< /Title (Sca"


def _with_a_wrong_table(data: bytes) -> bytes:
    return re.sub(rb"startxref\s+\d+", b"startxref\n7", data)


@pytest.mark.parametrize("stream", ["disable", "generate"])
@pytest.mark.parametrize("change", [_cut, _cut_in_an_update])
def test_an_incomplete_pdf_does_not_become_a_shorter_one(
    srgan: Run, tmp_path: Path, change: Callable[[bytes], bytes], stream: str
) -> None:
    mode = getattr(pikepdf.ObjectStreamMode, stream)
    path = scans(tmp_path / "in.pdf", object_stream_mode=mode)
    path.write_bytes(change(path.read_bytes()))
    code, said = srgan("in.pdf", "-o", "out.pdf", "--accept-damaged")
    assert (code, tree(tmp_path)) == (3, {"in.pdf"}), said
    assert "damaged or incomplete" in said


def test_a_pdf_whose_table_is_rebuilt_is_enlarged_with_a_note(srgan: Run, tmp_path: Path) -> None:
    path = scans(tmp_path / "in.pdf")
    for change in (_with_a_wrong_table, lambda data: data + b"\0" * 3000):
        scans(path)
        path.write_bytes(change(path.read_bytes()))
        code, said = srgan("in.pdf", "-o", "out.pdf", "--overwrite")
        assert (code, "table of objects was rebuilt" in said) == (0, True), said
        assert len(pictures_of("out.pdf")) == 2
