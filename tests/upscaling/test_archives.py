"""Archives of pictures: names and order are kept, the rest is copied, and nothing hostile is unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests.documents.films import film
from tests.faults import at_call
from tests.imaging import samples
from tests.upscaling.pictures import tree
from tests.upscaling.test_documents import Run, interrupted, srgan

__all__ = ["srgan"]  # a fixture
pytestmark = pytest.mark.timeout(60)

INFO = "<ComicInfo><Title>Ä</Title></ComicInfo>".encode()


def encoded(format_: str, seed: int = 0) -> bytes:
    return samples.encoded(Pillow.fromarray(np.roll(samples.pixels(12, 16, 3), seed, 1)), format_)


def comic(path: Path, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("book/", b"")
        file.writestr("book/10.jpg", encoded("JPEG", 1))
        file.writestr("ComicInfo.xml", INFO, zipfile.ZIP_DEFLATED)
        file.writestr("book/2 ü.PNG", encoded("PNG", 2))
        file.writestr("book/2 ü.gif", encoded("GIF", 3))
        file.writestr("__MACOSX/book/._10.jpg", b"finder's")
        for name, data in more.items():
            file.writestr(name, data)
        file.comment = b"a comment"
    return path


NAMES = ["book/", "book/10.jpg", "ComicInfo.xml", "book/2 ü.PNG", "book/2 ü.gif", "__MACOSX/book/._10.jpg"]


def test_names_order_and_other_files_are_kept(srgan: Run, tmp_path: Path) -> None:
    comic(tmp_path / "in.cbz")
    code, said = srgan("in.cbz")
    assert (code, "3 pages" in said) == (0, True), said
    with zipfile.ZipFile("in_x2.cbz") as out:
        assert out.testzip() is None
        assert out.namelist() == [*NAMES[:4], "book/2 ü.png", NAMES[5]]
        assert out.comment == b"a comment"
        assert out.read("ComicInfo.xml") == INFO
        assert out.read(NAMES[5]) == b"finder's"
        for name, format_ in (("book/10.jpg", "JPEG"), ("book/2 ü.PNG", "PNG"), ("book/2 ü.png", "PNG")):
            with Pillow.open(io.BytesIO(out.read(name))) as picture:
                assert (picture.size, picture.format) == ((32, 24), format_)


def test_pages_get_the_format_that_is_asked_for(srgan: Run, tmp_path: Path) -> None:
    comic(tmp_path / "in.zip")
    assert srgan("in.zip", "--format", "webp", "-o", "out/")[0] == 0
    with zipfile.ZipFile("out/in.zip") as out:
        assert out.namelist() == [
            "book/", "book/10.webp", "ComicInfo.xml", "book/2 ü.webp", "book/2 ü.gif.webp", NAMES[5],
        ]  # fmt: skip
    assert srgan("in.zip", "--page", "2", "-o", "one.zip")[0] == 0
    with zipfile.ZipFile("one.zip") as out:
        assert out.namelist() == ["book/", "ComicInfo.xml", "book/2 ü.PNG", NAMES[5]]
    assert srgan("in.zip", "-o", "out.jpg")[0] == 0
    assert {path.name for path in tmp_path.glob("out-*")} == {"out-001.jpg", "out-002.jpg", "out-003.jpg"}
    assert srgan("in.zip", "-o", "out.tif")[0] == 0


def test_folders_take_comics_along(srgan: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    comic(tmp_path / "in" / "a.cbz")
    comic(tmp_path / "in" / "b.zip")
    assert srgan("in", "-o", "out/")[0] == 0
    assert tree(tmp_path / "out") == {"a.cbz", ".srgan-manifest.jsonl"}


def test_an_interrupted_archive_is_gone_on_with(srgan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comic(tmp_path / "in.cbz")
    with zipfile.ZipFile(tmp_path / "in.cbz", "a") as file:  # what only the directory at the end says of a member
        info = zipfile.ZipInfo("notes.txt")
        info.external_attr, info.comment = 0o640 << 16, b"of a member"
        file.writestr(info, b"text")
    assert srgan("in.cbz", "-o", "whole.cbz")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", at_call(3, Upscaler.upscale_rows, interrupted))
        assert srgan("in.cbz", "-o", "out.cbz", "--resume")[0] == 130
    code, said = srgan("in.cbz", "-o", "out.cbz", "--resume")
    assert (code, "resuming at page 3 of 3" in said) == (0, True)
    with zipfile.ZipFile("out.cbz") as out, zipfile.ZipFile("whole.cbz") as whole:
        assert out.testzip() is None
        assert out.namelist() == whole.namelist()
    assert (tmp_path / "out.cbz").read_bytes() == (tmp_path / "whole.cbz").read_bytes()


def test_what_moves_in_an_archive_is_kept_and_told(srgan: Run, tmp_path: Path) -> None:
    moving = film("GIF")
    comic(tmp_path / "in.cbz", **{"z.gif": moving, "inner.zip": b"PK\5\6" + bytes(18)})
    code, said = srgan("in.cbz", "-o", "out.cbz")
    assert (code, "kept unchanged: 1" in said, "archives inside" in said) == (0, True, True)
    with zipfile.ZipFile("out.cbz") as out:
        assert out.read("z.gif") == moving
        assert len(out.namelist()) == 8


def test_a_page_that_is_damaged_is_named(srgan: Run, tmp_path: Path) -> None:
    comic(tmp_path / "in.cbz", **{"bad.png": encoded("PNG")[:60]})
    code, said = srgan("in.cbz", "-o", "out.cbz")
    assert (code, "page 4 (bad.png) of in.cbz" in said) == (3, True), said


def stored(name: str, **info: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = info.get("attributes", 0)
        file.writestr(entry, encoded("PNG"))
    return stream.getvalue()


def nameless() -> bytes:
    """Python's own reader fails on it when it is asked whether that is a folder."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.png", encoded("PNG"))
        file.writestr("b", b"what is in it")
        file.filelist[-1].filename = ""
    return stream.getvalue()


def encrypted() -> bytes:
    data = bytearray(stored("a.png"))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    return bytes(data)


def lying(size: int) -> bytes:
    """42.zip in small: the directory promises far more than deflate could give."""
    data = bytearray(stored("a.png"))
    at = data.index(b"PK\1\2")
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(data)


def overlapping() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a.png", encoded("PNG"))
        file.writestr("b.png", encoded("PNG"))
    data = bytearray(stream.getvalue())
    second = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)
    data[second + 42 : second + 46] = bytes(4)  # where its own header stands: at the first one's
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (stored("/etc/a.png"), "leads out"),
        (stored("../a.png"), "leads out"),
        (stored("x\\..\\..\\a.png"), "leads out"),
        (stored("C:\\a.png"), "leads out"),
        (stored("a.png", attributes=0o120777 << 16), "is a link"),
        (nameless(), "it has no name"),
        (encrypted(), "encrypted"),
        (lying(1 << 30), "zip bomb"),
        (overlapping(), "zip bomb"),
        (stored("a.txt"), "without pictures"),
        (stored("a.png")[:-30], "damaged"),
        (b"PK\3\4" + bytes(100), "damaged"),
    ],
)
def test_hostile_archives_are_refused_in_a_sentence(srgan: Run, tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "in.cbz").write_bytes(data)
    code, said = srgan("in.cbz", "-o", "out.cbz")
    assert (code, says in said) == (3, True), said
    assert "defect" not in said
    assert tree(tmp_path) == {"in.cbz"}


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_member_is_a_sentence_whatever_packed_it(srgan: Run, tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "in.cbz", "w", method) as file:
        file.writestr("a.png", encoded("PNG"))
        file.writestr("b.bmp", encoded("BMP"))
    data = bytearray((tmp_path / "in.cbz").read_bytes())
    at = data.index(b"b.bmp") + 5
    data[at + 9 : at + 40] = bytes(31)
    (tmp_path / "in.cbz").write_bytes(data)
    code, said = srgan("in.cbz", "-o", "out.cbz")
    assert (code, "damaged" in said, "defect" in said) == (3, True, False), said
    assert tree(tmp_path) == {"in.cbz"}


def test_an_archive_says_what_made_it_where_the_record_is_lost(srgan: Run, tmp_path: Path) -> None:
    comic(tmp_path / "in.cbz")
    assert srgan("in.cbz", "-o", "out/")[0] == 0
    (tmp_path / "out" / FILE_NAME).unlink()
    code, said = srgan("in.cbz", "-o", "out/", "--resume", "-n")
    assert (code, "it is done" in said) == (0, True), said
    comic(tmp_path / "in.cbz", more=b"another file")
    code, said = srgan("in.cbz", "-o", "out/", "--resume", "-n")
    assert (code, "it is done" in said) == (0, False), said
