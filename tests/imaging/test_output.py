"""How a result will be written, decided before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from srgan_cli.config import WriteOptions
from srgan_cli.errors import SettingsError, UnwritablePictureError
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.image import Depth, Header, Metadata
from srgan_cli.imaging.output import Output, decide
from srgan_cli.imaging.writing import check_place


def header(channels: int = 3, depth: Depth = 8, format: str = "png") -> Header:  # noqa: A002
    return Header(40, 30, channels, depth, format, Metadata())


def test_the_format_is_as_asked_for_else_by_the_name_else_the_inputs_own() -> None:
    def format_of(target: Path | None, given: Header, options: WriteOptions) -> str:
        return decide(target, given, options, width=50, height=40).format

    gif = header(format="gif")
    assert format_of(Path("a.JPG"), gif, WriteOptions()) == "jpeg"
    assert format_of(Path("a.jpg"), gif, WriteOptions(format="webp")) == "webp"
    assert format_of(None, gif, WriteOptions(format="jpg")) == "jpeg"
    assert format_of(None, header(format="tiff"), WriteOptions()) == "tiff"
    assert format_of(Path("noending"), gif, WriteOptions()) == "png"
    for target, options in (
        (Path("a.heic"), WriteOptions()),
        (Path("a.xyz"), WriteOptions()),
        (None, WriteOptions("psd")),
    ):
        with pytest.raises(SettingsError, match="cannot write"):
            format_of(target, gif, options)


@pytest.mark.parametrize(
    ("format", "width", "channels", "options", "error", "words"),
    [
        ("jpeg", 65_536, 3, WriteOptions(), UnwritablePictureError, "65500.*PNG or TIFF"),
        ("webp", 16_384, 3, WriteOptions(), UnwritablePictureError, "16383"),
        ("bmp", 2_000_000_000, 3, WriteOptions(), UnwritablePictureError, "4 GB"),
        ("jpeg", 100, 4, WriteOptions(), UnwritablePictureError, "--background"),
        ("jpeg", 100, 3, WriteOptions(lossless=True), SettingsError, "lossless"),
        ("jpeg", 100, 3, WriteOptions(bit_depth=16), SettingsError, "8 bits"),
        ("png", 100, 3, WriteOptions(format="png", quality=90), SettingsError, "^--quality does not apply to PNG$"),
        ("tiff", 100, 3, WriteOptions(quality=90), SettingsError, "^--quality does not apply to TIFF$"),
        ("jpeg", 100, 3, WriteOptions(png_level=9), SettingsError, "^--png-level does not apply to JPEG$"),
        ("png", 100, 3, WriteOptions(tiff_layout="pyramid"), SettingsError, "^--tiff-layout does not apply to PNG$"),
        ("webp", 100, 3, WriteOptions(quality=90, lossless=True), SettingsError, "only one"),
    ],
)
def test_what_cannot_be_is_refused_before_work(
    format: str,  # noqa: A002
    width: int,
    channels: int,
    options: WriteOptions,
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        decide(Path(f"a{FORMATS[format].suffixes[0]}"), header(channels), options, width=width, height=100)


def test_options_of_other_formats_are_for_other_pictures_of_a_folder() -> None:
    for format in ("png", "jpeg", "tiff"):  # noqa: A001
        options = WriteOptions(quality=90, png_level=9, tiff_layout="tile")
        source = header(3, format=format)
        assert decide(None, source, options, width=100, height=100).format == format


def test_the_place_is_looked_at_before_work(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "a.png", Output("png", 16, 100, 100).needed_bytes(4, WriteOptions()))
    with pytest.raises(UnwritablePictureError, match="too full"):
        check_place(tmp_path / "a.png", Output("png", 16, 2**30, 2**20).needed_bytes(3, WriteOptions()))
    with pytest.raises(UnwritablePictureError, match="folder"):
        check_place(tmp_path, 300)


def test_a_lossy_file_needs_less_room() -> None:
    raw = Output("png", 8, 100, 100).needed_bytes(3, WriteOptions())
    assert raw == 30_000
    assert Output("jpeg", 8, 100, 100).needed_bytes(3, WriteOptions()) < raw
    assert Output("webp", 8, 100, 100).needed_bytes(3, WriteOptions(lossless=True)) == raw


def test_a_bitmap_with_transparency_becomes_a_png_unless_bmp_was_asked_for() -> None:
    source = header(4, format="bmp")
    assert decide(None, source, WriteOptions(), width=4, height=4).format == "png"
    assert decide(None, source, WriteOptions(background=(0, 0, 0)), width=4, height=4).format == "bmp"
    assert decide(None, header(3, format="bmp"), WriteOptions(), width=4, height=4).format == "bmp"
    with pytest.raises(UnwritablePictureError, match="transparency"):
        decide(None, source, WriteOptions(format="bmp"), width=4, height=4)
