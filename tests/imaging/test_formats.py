from __future__ import annotations

import subprocess
import sys

import pytest

from srgan_cli.imaging.formats import FORMATS, PICTURE_SUFFIXES, format_of_suffix


@pytest.mark.parametrize(
    ("suffix", "format"),
    [
        (".JPG", "jpeg"),
        (".jpeg", "jpeg"),
        ("tif", "tiff"),
        (".heic", "heic"),
        (".webp", "webp"),
        (".txt", None),
        ("", None),
    ],
)
def test_formats_are_found_by_suffix(suffix: str, format: str | None) -> None:  # noqa: A002
    assert format_of_suffix(suffix) == format


def test_every_suffix_is_a_pictures() -> None:
    assert {suffix for known in FORMATS.values() for suffix in known.suffixes} == PICTURE_SUFFIXES


def test_importing_the_room_loads_no_large_library() -> None:
    """`srgan --help` and `--dry-run` are instant."""
    code = (
        "import sys, srgan_cli.imaging.reading, srgan_cli.imaging.writing, srgan_cli.imaging.canvas;"
        "assert not {'torch', 'pyvips', 'cv2', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
