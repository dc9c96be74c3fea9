"""`srgan compare` from the command line: sheets and pages, of pictures and of models, and invalid uses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import compare as command
from srgan_cli.cli import main
from srgan_cli.comparison import compare as comparing
from tests.faults import save_tiny
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.timeout(120)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Tiny networks: two for ×4, one for ×2."""
    folder = tmp_path_factory.mktemp("weights")
    return (
        save_tiny(folder / "one.safetensors", 4, features=4),
        save_tiny(folder / "two.safetensors", 4, features=4, seed=1),
        save_tiny(folder / "half.safetensors", 2, features=4),
    )


@pytest.fixture
def srgan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`srgan compare ARGUMENTS` in this process, where a folder has two inputs, their originals and results."""
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 0), ("b", 1)):
        picture(Path(f"low/{name}.png"), 40, 30, seed=seed)
        picture(Path(f"high/{name}.png"), 163, 121, seed=seed)
    for name in ("x", "y"):
        picture(Path(f"{name}.png"), 160, 120, seed=len(name) + ord(name))

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        settings = ["--device", "cpu", "--precision", "fp32"] if "--models" in arguments else []
        code = main(["compare", *map(str, (*arguments, *settings))])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return run


def size_of(name: str) -> tuple[int, int]:
    with Pillow.open(name) as sheet:
        return sheet.size


def scenes_of(name: str) -> Any:
    text = Path(name).read_text(encoding="utf-8")
    match = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert match is not None
    return json.loads(match[1])["scenes"]


def labels_of(scene: Any) -> list[str]:
    return [one["label"] for one in scene["pictures"]]


def left_edge(columns: int, cell_px: int) -> int:
    """Width of a sheet with `columns` columns: gaps of 12 px, and the little map of 148 px."""
    return 12 + 148 + columns * (12 + cell_px) + 12


# ------------------------------------------------------------------------------------------------------------- pictures


def test_a_sheet_of_pictures(srgan: Run) -> None:
    code, out, err = srgan("x.png", "y.png", "low/a.png", "-o", "sheet.png", "--crops", "2", "--crop-px", "48")
    assert (code, out) == (0, "")
    assert "sheet.png: 2 crops of 48 px where they differ most, 3 columns" in err
    assert size_of("sheet.png")[0] == left_edge(3, 96)


def test_places_zoom_and_labels(srgan: Run) -> None:
    code, _, err = srgan(
        "x.png", "y.png", "-o", "s.webp", "--at", "0.5,0.5", "--at", "10,20", "--crop-px", "32", "--zoom", "300",
        "--labels", "before, after, not",
    )  # fmt: skip
    assert (code, "3 different names for 2 columns" not in err) == (2, False)
    code, _, err = srgan("x.png", "y.png", "-o", "s.webp", "--at", "0.5,0.5", "--crop-px", "32", "--zoom", "300")
    assert code == 0
    assert "1 crop of 32 px at the place given" in err
    assert size_of("s.webp")[0] == left_edge(2, 96)


def test_smooth_takes_any_zoom(srgan: Run) -> None:
    assert srgan("x.png", "y.png", "-o", "s.png", "--crop-px", "40", "--zoom", "150", "--smooth")[0] == 0
    assert size_of("s.png")[0] == left_edge(2, 60)


def test_a_page_of_pictures(srgan: Run) -> None:
    code, _, err = srgan("low/a.png", "x.png", "-o", "page.html", "--labels", "<low>,high")
    (scene,) = scenes_of("page.html")
    assert code == 0
    assert "page.html: 2 pictures, stored without loss" in err
    assert (scene["width"], scene["height"], labels_of(scene)) == (160, 120, ["<low>", "high"])
    assert scene["pictures"][0]["about"] == "40×30 px, ×4 bicubic"
    assert len(scene["places"]) == 1  # where there is room for one crop only


def test_a_page_of_parts(srgan: Run) -> None:
    srgan("x.png", "y.png", "-o", "page.html", "--crop-px", "50", "--crops", "3")
    scenes = scenes_of("page.html")
    assert [(one["width"], one["height"]) for one in scenes] == [(50, 50)] * 3
    assert all(re.fullmatch(r"at \d+, \d+", one["name"]) for one in scenes)


def test_quiet_is_silent(srgan: Run) -> None:
    assert srgan("x.png", "y.png", "-o", "s.png", "-q") == (0, "", "")


# --------------------------------------------------------------------------------------------------------------- models


def test_models_beside_bicubic(srgan: Run, models: tuple[Path, Path, Path]) -> None:
    both = f"{models[0]},{models[1]}"
    code, _, err = srgan("low/a.png", "--models", both, "-o", "s.png", "--high", "high/a.png", "--low")
    assert (code, "5 columns" in err) == (0, True)
    code, _, _ = srgan("low/a.png", "--models", both, "-o", "p.html", "--high", "high/a.png")
    (scene,) = scenes_of("p.html")
    assert code == 0
    assert labels_of(scene) == ["bicubic", "one", "two", "original"]
    assert (scene["width"], scene["height"]) == (160, 120)  # the original has what the small one lacks


def test_a_row_for_each_of_several_inputs(srgan: Run, models: tuple[Path, Path, Path]) -> None:
    Path("high/b.png").unlink()
    code, _, err = srgan(
        "low/a.png", "low/b.png", "--models", models[0], "--high-dir", "high", "-o", "s.png", "--crop-px", "64"
    )
    assert code == 0
    assert "note: there is no original of b.png in high" in err
    assert "2 crops of 64 px" in err
    assert size_of("s.png")[0] == left_edge(3, 128)


def test_a_page_of_several_inputs(srgan: Run, models: tuple[Path, Path, Path]) -> None:
    Path("high/a.png").rename("high/c.png")
    srgan("low/a.png", "low/b.png", "--models", models[0], "--high-dir", "high", "-o", "p.html")
    first, second = scenes_of("p.html")
    assert (first["name"], labels_of(first)) == ("a", ["bicubic", "one"])
    assert (second["name"], labels_of(second)) == ("b", ["bicubic", "one", "original"])


def test_small_pictures_may_end_in_their_scale(srgan: Run, models: tuple[Path, Path, Path]) -> None:
    Path("low/a.png").rename("low/ax4.png")
    code, _, err = srgan("low/ax4.png", "--models", models[0], "--high-dir", "high", "-o", "s.png")
    assert (code, "note" in err, "3 columns" in err) == (0, False, True)


def test_what_would_take_too_long_is_shown_in_parts(
    srgan: Run, models: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "_PAGE_PIXELS", 1000)
    monkeypatch.setattr(comparing, "_PAGE_CROP_PX", 40)
    assert srgan("low/a.png", "--models", models[0], "-o", "p.html", "--crops", "2")[0] == 0
    assert [one["width"] for one in scenes_of("p.html")] == [40, 40]


def test_a_damaged_input_is_left_out_and_told(srgan: Run, models: tuple[Path, Path, Path]) -> None:
    Path("low/a.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    code, _, err = srgan("low/a.png", "low/b.png", "--models", models[0], "-o", "s.png")
    assert code == 1
    assert "left out: low/a.png" in err
    assert "1 crop of" in err
    code, _, err = srgan("low/a.png", "--models", models[0], "-o", "t.png")
    assert (code, "the only picture cannot be read: " in err) == (3, True)
    assert not Path("t.png").exists()


def test_progress_is_one_line_that_goes_away(
    srgan: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True)))
    assert srgan("x.png", "y.png", "-o", "s.png")[2].startswith("\r1/2 x.png\r2/2 y.png\rs.png: ")


# ------------------------------------------------------------------------------------------------------------- mistakes


def test_nothing_is_overwritten_unless_asked(srgan: Run) -> None:
    Path("s.png").write_bytes(b"mine")
    code, _, err = srgan("x.png", "y.png", "-o", "s.png")
    assert (code, "s.png exists already; give --overwrite" in err) == (2, True)
    assert Path("s.png").read_bytes() == b"mine"
    assert srgan("x.png", "y.png", "-o", "s.png", "--overwrite")[0] == 0
    assert size_of("s.png")[0] > 300
    code, _, err = srgan("x.png", "y.png", "-o", "x.png", "--overwrite")
    assert (code, "one of the pictures to compare" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("x.png", "-o", "s.png"), 2, "at least two pictures"),
        (("x.png", "y.png"), 2, "--output"),
        (("x.png", "", "-o", "s.png"), 2, "has no name"),
        (("x.png", "y.png", "-o", ""), 2, "it is empty"),
        (("x.png", "y.png", "-o", "sheet"), 2, "has no extension"),
        (("x.png", "y.png", "-o", "sheet.heic"), 2, "cannot write that format"),
        (("x.png", "y.png", "-o", "sheet.pdf"), 2, "a page with a slider ends in .html"),
        (("x.png", "y.png", "-o", "low"), 2, "has no extension"),
        (("x.png", "none.png", "-o", "s.png"), 3, "none.png"),
        (("x.png", "tall.png", "-o", "s.png"), 2, "different proportions"),
        (("x.png", "y.png", "-o", "s.png", "--at", "900,3"), 2, "lies outside"),
        (("x.png", "y.png", "-o", "s.png", "--at", "9"), 2, "--at expects"),
        (("x.png", "y.png", "-o", "s.png", "--labels", "a,,b"), 2, "empty name"),
        (("x.png", "y.png", "-o", "s.png", "--zoom", "120"), 2, "--smooth"),
        (("low/a.png", "--models", "nobody", "-o", "s.png"), 4, "no model called 'nobody'"),
        (("low/a.png", "--models", "ONE", "-o", "s.png", "--scale", "3"), 2, "--scale 3 does not suit"),
        (("low/a.png", "--models", "ONE,HALF", "-o", "s.png"), 2, "only models of one scale"),
        (("low/a.png", "--models", "ONE", "-o", "s.png", "--high", "x.png", "--high-dir", "high"), 2, "one of the two"),
        (("low/a.png", "--models", "ONE", "-o", "s.png", "--high-dir", "none"), 2, "is not a folder"),
        (("low/a.png", "--models", "ONE", "-o", "s.png", "--high", "low/b.png"), 2, "it should be 160x120 px"),
        (("low/a.png", "--models", "ONE", "-o", "s.png", "--labels", "a"), 2, "1 different name for 2 columns"),
        (("x.png", "y.png", "-o", "x.png/s.png"), 1, "not a folder"),
    ],
)
def test_mistakes_are_told(
    srgan: Run, models: tuple[Path, Path, Path], arguments: tuple[str, ...], code: int, says: str
) -> None:
    Pillow.fromarray(np.zeros((90, 40, 3), np.uint8)).save("tall.png")
    named = [one.replace("ONE", str(models[0])).replace("HALF", str(models[2])) for one in arguments]
    found, out, err = srgan(*named)
    assert found == code, err
    assert out == ""
    assert says in err.replace("\n", " "), err
    assert not Path("s.png").exists()


def test_a_folder_beside_something_that_does_not_exist(srgan: Run) -> None:
    code, _, err = srgan("low", "large", "-o", "all.html")
    assert (code, "low is a folder, and large does not exist: give two folders" in err) == (2, True)
