"""The sizes of results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.errors import SettingsError
from srgan_cli.sizes import Size
from tests.upscaling.pictures import picture
from tests.upscaling.planning.plans import planned


@pytest.mark.parametrize(
    ("size", "expected", "networks"),
    [
        (Size(), (400, 200), (4,)),
        (Size(scale=2), (200, 100), (4,)),
        (Size(scale=2.5), (250, 125), (4,)),
        (Size(scale=8), (800, 400), (4, 4)),
        (Size(scale=16), (1600, 800), (4, 4)),
        (Size(width=300), (300, 150), (4,)),
        (Size(height=300), (600, 300), (4, 4)),
        (Size(long_side=400), (400, 200), (4,)),
        (Size(long_side=404), (404, 202), (4,)),
        (Size(fit=(300, 300)), (300, 150), (4,)),
        (Size(fit=(1000, 150)), (300, 150), (4,)),
        (Size(width=100), (100, 50), (4,)),
    ],
)
def test_sizes(here: Path, size: Size, expected: tuple[int, int], networks: tuple[int, ...]) -> None:
    picture(here / "a.png", 100, 50)
    (job,) = planned(["a.png"], size=size).jobs
    assert (job.output.width, job.output.height) == expected
    assert job.scales == networks
    assert job.network_scale == {(4,): 4, (4, 4): 16}[networks]
    assert job.network_pixels == 5000 * job.network_scale**2


def test_networks_of_a_family_are_put_together(here: Path) -> None:
    picture(here / "a.png")
    assert planned(["a.png"], scales=(2, 4), size=Size(scale=8)).jobs[0].scales == (2, 4)
    assert planned(["a.png"], scales=(2, 4), size=Size(scale=2)).jobs[0].scales == (2,)


def test_a_rotated_photo_counts_as_it_is_seen(here: Path) -> None:
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.new("RGB", (40, 30)).save("a.jpg", exif=exif)
    (job,) = planned(["a.jpg"], size=Size(width=60)).jobs
    assert (job.header.width, job.header.height) == (30, 40)
    assert (job.output.width, job.output.height) == (60, 80)


@given(st.integers(1, 3000), st.integers(1, 3000), st.floats(1.01, 16))
def test_a_scaled_size_is_within_half_a_pixel(width: int, height: int, scale: float) -> None:
    w, h, ratio, note = Size(scale=scale).target(width, height)
    assert (ratio, note) == (scale, "")
    assert abs(w - width * scale) <= 0.5
    assert abs(h - height * scale) <= 0.5


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 9000), st.integers(1, 9000))
def test_a_box_is_filled_and_not_left(width: int, height: int, box_width: int, box_height: int) -> None:
    try:
        w, h, ratio, note = Size(fit=(box_width, box_height)).target(width, height)
    except SettingsError:
        assert min(box_width / width, box_height / height) < 1
        return
    if note:
        assert (w, h, ratio) == (16 * width, 16 * height, 16)
        return
    assert w <= box_width
    assert h <= box_height
    assert w == box_width or h == box_height


@pytest.mark.parametrize("text", ["", "x", "12", "12x", "axb", "-1x5", "1.5x2", "0x10"])
def test_a_bad_box_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="fit"):
        Size(fit=Size.parse_box(text))


@pytest.mark.parametrize("given", [
    {"scale": 1.0}, {"scale": 0.5}, {"scale": 16.1}, {"scale": float("nan")}, {"scale": float("inf")}, {"scale": -4.0},
    {"width": 0}, {"height": -1}, {"long_side": 0}, {"scale": 2.0, "width": 10}, {"width": 10, "height": 10},
])  # fmt: skip
def test_a_bad_size_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"(scale|width|height|long_side) |only one of"):
        Size(**given)
