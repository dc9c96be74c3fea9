"""Reading one training picture: decoded as by `srgan upscale`, in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from srgan_cli.dataset.crops import read_pixels
from srgan_cli.dataset.pictures import examine, in_order
from srgan_cli.errors import UnreadablePictureError
from tests.dataset.photos import pixels, put


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = put(tmp_path / f"a.{suffix}", pixels(0), exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    result, facts = read_pixels(path), examine(path)
    np.testing.assert_array_equal(result, expected)
    assert (facts.height, facts.width) == result.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "tif", "ppm"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_rounded_and_not_cut(tmp_path: Path, suffix: str, channels: int) -> None:
    if suffix == "ppm" and channels == 4:
        pytest.skip("PPM has no alpha")
    wide = np.random.default_rng(0).integers(0, 65536, (9, 11, channels), dtype=np.uint16)
    wide[..., 3:] = 65535
    path = tmp_path / f"a.{'pgm' if suffix == 'ppm' and channels == 1 else suffix}"
    assert cv2.imwrite(str(path), wide)
    expected = np.rint(wide[..., [2, 1, 0] if channels > 1 else [0, 0, 0]] / 257.0)
    np.testing.assert_array_equal(read_pixels(path), expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(pixels(0)).convert(mode)
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


def test_the_numbers_of_another_colour_space_stay_as_they_are(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    path = put(tmp_path / "a.png", pixels(0), icc_profile=profile)
    np.testing.assert_array_equal(read_pixels(path), pixels(0))


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 90, 95, 100])
def test_jpeg_quality_is_found_again(tmp_path: Path, quality: int) -> None:
    assert examine(put(tmp_path / "a.jpg", pixels(0), quality=quality)).jpeg_quality == quality


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("read", [read_pixels, examine])
def test_a_file_cut_short_is_told(tmp_path: Path, suffix: str, read: Callable[[Path], object]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    path = put(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(UnreadablePictureError, match="damaged or incomplete"):
        read(path)


def test_work_is_done_in_order_and_only_a_little_ahead() -> None:
    begun: list[int] = []
    results = in_order(lambda n: (begun.append(n), n * n)[1], range(1000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(begun) < 500
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // n, [2, 1, 0]))
