from __future__ import annotations

import errno
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srgan_cli.config import WriteOptions
from srgan_cli.errors import UnwritablePictureError
from srgan_cli.imaging.canvas import open_canvas
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.output import Output, decide
from srgan_cli.imaging.reading import open_picture, read_image
from srgan_cli.imaging.writing import write_picture
from tests.imaging import samples


def test_small_ones_are_in_memory(tmp_path: Path) -> None:
    with open_canvas(10, 20, 3, 16, folder=tmp_path, memory_bytes=1200) as canvas:
        assert canvas.pixels.shape == (10, 20, 3)
        assert canvas.pixels.dtype == np.uint16
        assert not samples.names(tmp_path)


def test_large_ones_are_in_a_file_that_vanishes(tmp_path: Path) -> None:
    array = samples.pixels(100, 200, 3)
    target = tmp_path / "a.png"
    with open_canvas(100, 200, 3, 8, folder=tmp_path, memory_bytes=1000) as canvas:
        assert re.fullmatch(r"\.srgan-.*\.scratch", samples.names(tmp_path)[0])
        assert not canvas.pixels.any()
        canvas.pixels[:] = array
        write_picture(target, canvas.pixels, Header(50, 25, 3, 8, "png"), Output("png", 8, 200, 100), WriteOptions())
    assert samples.names(tmp_path) == ["a.png"]
    np.testing.assert_array_equal(read_image(target, max_pixels=samples.MANY).pixels, array)
    with pytest.raises(KeyboardInterrupt), open_canvas(100, 200, 3, 8, folder=tmp_path, memory_bytes=1):
        raise KeyboardInterrupt
    assert samples.names(tmp_path) == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_a_full_disk_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("srgan_cli.imaging.canvas.os.posix_fallocate", full)
    with pytest.raises(UnwritablePictureError, match="disk is full"):
        open_canvas(100, 200, 3, 8, folder=tmp_path, memory_bytes=0)
    assert not samples.names(tmp_path)


@pytest.mark.parametrize("missing", [False, True])
def test_file_systems_that_cannot_reserve(missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    if missing:
        monkeypatch.delattr("os.posix_fallocate", raising=False)
    else:
        monkeypatch.setattr("srgan_cli.imaging.canvas.os.posix_fallocate", unsupported, raising=False)
    with open_canvas(100, 200, 3, 8, folder=tmp_path, memory_bytes=0) as canvas:
        canvas.pixels[99] = 7
    with pytest.raises(UnwritablePictureError, match="disk is full"):
        open_canvas(2**30, 2**20, 3, 8, folder=tmp_path, memory_bytes=0)
    assert not samples.names(tmp_path)


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnwritablePictureError, match="no scratch file"):
        open_canvas(10, 10, 3, 8, folder=tmp_path / "none", memory_bytes=0)


def _anonymous_bytes() -> int:
    text = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_large_picture_never_sits_in_memory(suffix: str, tmp_path: Path) -> None:
    height, width = 6_000, 10_000  # 180 MB
    target = tmp_path / f"a{suffix}"
    band = samples.pixels(500, width, 3)
    header, options = Header(9, 9, 3, 8, "png"), WriteOptions()
    output = decide(target, header, options, width=width, height=500)
    write_picture(tmp_path / f"w{suffix}", band, header, output, options)
    before = _anonymous_bytes()
    most = 0
    with open_canvas(height, width, 3, 8, folder=tmp_path, memory_bytes=0) as canvas:
        for top in range(0, height, 500):
            canvas.pixels[top : top + 500] = band
        most = max(most, _anonymous_bytes())
        write_picture(target, canvas.pixels, header, replace(output, height=height), options)
        most = max(most, _anonymous_bytes())
    with open_picture(target, max_pixels=samples.MANY) as picture:
        while len(picture.read_rows(500)):
            most = max(most, _anonymous_bytes())
    assert most - before < 100 << 20
