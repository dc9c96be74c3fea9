"""Sizes on paper, pictures that are large enough, and enlargements beyond the maximum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from srgan_cli.config import WriteOptions
from srgan_cli.errors import SettingsError
from srgan_cli.sizes import CopyLarge, Size
from tests.upscaling.pictures import picture
from tests.upscaling.planning.plans import planned

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.parametrize(
    ("paper", "dpi", "picture_px", "expected"),
    [
        ("A4", None, (400, 200), (3508, 1754)),  # 297 mm at 300 dpi, turned as the picture is
        ("a4", None, (200, 400), (1754, 3508)),
        ("A3", 150, (600, 400), (2480, 1653)),  # 420 mm: 2480 px; 297 mm: 1754 px
        ("30x40cm", 100, (400, 300), (1575, 1181)),
        ("8x10in", 100, (500, 500), (800, 800)),
        ("letter", 100, (300, 200), (1100, 733)),
    ],
)
def test_paper(paper: str, dpi: float | None, picture_px: tuple[int, int], expected: tuple[int, int]) -> None:
    size = Size(paper=Size.parse_paper(paper), dpi=dpi)
    assert size.target(*picture_px)[:2] == expected
    assert size.resolution == (dpi or 300)


@pytest.mark.parametrize("text", ["", "A9", "30x40", "30cm", "x40cm", "0x0cm", "-3x4cm"])
def test_what_is_no_paper_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="paper"):
        Size(paper=Size.parse_paper(text))


def test_a_resolution_alone_changes_no_size() -> None:
    assert Size(dpi=300).target(10, 20)[:2] == (40, 80)
    assert Size(dpi=300).resolution == 300
    assert Size().resolution is None


@pytest.mark.parametrize(
    "options",
    [{"dpi": 0}, {"dpi": float("nan")}, {"only_enlarge": True}, {"width": 9, "copy_large": "copy"},
     {"width": 9, "only_enlarge": True, "copy_large": "no"}, {"paper": (10, 10), "width": 9}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Size(**options)


def test_beyond_16_times_there_is_16_times_and_a_note(here: Path) -> None:
    picture(here / "a.png", 20, 10)
    (job,) = planned(["a.png"], size=Size(long_side=1000)).jobs
    assert (job.output.width, job.output.height) == (320, 160)
    assert "16 times" in job.notes[-1]


@pytest.mark.parametrize(
    ("text", "expected"), [("4000", (4000, False)), ("4000<", (4000, True)), (" 40 < ", (40, True))]
)
def test_a_side_may_say_that_it_only_enlarges(text: str, expected: tuple[int, bool]) -> None:
    assert Size.parse_side(text) == expected


@pytest.mark.parametrize("text", ["", "<", "4000>", "-1", "4e3", "١٢"])
def test_what_is_no_side_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="number of px"):
        Size.parse_side(text)


def sized(how: CopyLarge, **more: Any) -> Size:
    return Size(long_side=40, only_enlarge=True, copy_large=how, **more)


def test_large_pictures_are_errors_unless_they_are_expected(here: Path) -> None:
    picture(here / "in/large.png", 80, 60)
    picture(here / "in/small.png", 20, 15)
    failing = planned(["in"], "out/", size=Size(long_side=40))
    assert [failure.source.name for failure in failing.failures] == ["large.png"]
    assert "--only-enlarge" in failing.failures[0].reason
    made = planned(["in"], "out/", size=sized("skip"))
    assert not made.failures
    assert made.exit_code == 0
    assert [(skip.source.name, skip.reason) for skip in made.skips] == [("large.png", "it is large enough already")]
    assert [job.source.name for job in made.jobs] == ["small.png"]


def test_large_pictures_are_copied_or_reduced_as_asked(here: Path) -> None:
    picture(here / "large.png", 80, 60)
    (job,) = planned(["large.png"], "out/", size=sized("copy")).jobs
    assert (job.output.width, job.output.height, job.is_copy, job.scales) == (80, 60, True, ())
    (job,) = planned(["large.png"], "out/", size=sized("copy"), write=WriteOptions(format="jpeg")).jobs
    assert (job.output.width, job.is_copy, job.scales) == (80, False, ())
    (job,) = planned(["large.png"], "out/", size=sized("reduce")).jobs
    assert (job.output.width, job.output.height, job.is_copy, job.scales) == (40, 30, False, ())
    assert job.network_pixels == 0


def test_a_picture_of_the_very_size_is_large_enough(here: Path) -> None:
    Pillow.new("RGB", (40, 30)).save("a.png")
    assert not planned(["a.png"], "out/", size=sized("skip")).jobs
