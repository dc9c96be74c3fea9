from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.imaging.formats import FORMATS, PICTURE_SUFFIXES, format_of_suffix
from srgan_cli.imaging.reading import read_header
from srgan_cli.imaging.sources import vips_module


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


@pytest.mark.parametrize(("key", "saver"), [("jpeg", "jpegsave"), ("webp", "webpsave"), ("avif", "heifsave")])
def test_the_largest_side_is_what_the_encoder_takes(key: str, saver: str) -> None:
    pyvips = vips_module()
    limit = FORMATS[key].max_side_px
    assert limit is not None
    options = {"compression": "av1", "effort": 0} if key == "avif" else {}
    assert len(pyvips.Operation.call(f"{saver}_buffer", pyvips.Image.black(limit, 16), **options)) > 0
    with pytest.raises(pyvips.Error):
        pyvips.Operation.call(f"{saver}_buffer", pyvips.Image.black(limit + 1, 16), **options)


def test_a_png_keeps_its_resolution(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    path = tmp_path / "scan.png"
    for dpi in (300, 25.4, None):
        given: dict[str, Any] = {} if dpi is None else {"dpi": (dpi, dpi)}
        Pillow.new("RGB", (8, 8)).save(path, **given)
        found = read_header(path, max_pixels=100).metadata.dpi
        assert found is None if dpi is None else found == pytest.approx((dpi, dpi), abs=0.02)
