"""Two folders as one page: which pictures form a pair, their order, and their links."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import main
from srgan_cli.comparison.gallery import change, pairs_of
from srgan_cli.imaging.image import Pixels

pytestmark = pytest.mark.usefixtures("here")


def texture(width: int, height: int, seed: int = 0) -> Pixels:
    coarse = np.random.default_rng(seed).integers(40, 216, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return np.asarray(Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC))


def save(path: str, pixels: Pixels) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(pixels).save(path)


def enlarged(pixels: Pixels, noise: float = 0.0) -> Pixels:
    large = Pillow.fromarray(pixels).resize((pixels.shape[1] * 2, pixels.shape[0] * 2), Pillow.Resampling.BICUBIC)
    grain = np.random.default_rng(1).normal(0, noise, (pixels.shape[0] * 2, pixels.shape[1] * 2, 1))
    return (np.asarray(large) + grain).clip(0, 255).astype(np.uint8)


def links(page: str) -> list[tuple[str, str]]:
    text = Path(page).read_text(encoding="utf-8")
    return re.findall(r'<a href="([^"]*)" data-before="([^"]*)"', text)


def test_pairs_sorted_by_change_with_links_that_lead_to_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    for number, (name, noise) in enumerate((("a", 2.0), ("sub/b", 30.0), ("c:d é", 8.0))):
        save(f"in/{name}.png", texture(60, 40, number))
        save(f"out/{name}_x2.png", enlarged(texture(60, 40, number), noise))
    save("in/alone.png", texture(9, 9))
    Path("page").mkdir()
    assert main(["compare", "in", "out", "-o", "page/all.html"]) == 0
    err = capsys.readouterr().err
    assert "3 pairs" in err
    assert "1 in in without a counterpart" in err
    found = links("page/all.html")
    assert [Path(unquote(after)).stem for after, _ in found] == ["b_x2", "c:d é_x2", "a_x2"]
    for after, before in found:
        assert (Path("page") / unquote(after)).exists()
        assert (Path("page") / unquote(before)).exists()
        assert after.startswith("./")


def test_pictures_that_differ_in_their_extension_only_are_not_mixed_up() -> None:
    """With the names that `srgan upscale` gives when two results would have the same one."""
    befores = ["a.png", "a.webp", "b.tif", "b.BMP", "b.png", "c.bmp", "c.png"]
    afters = {"a.png.jpg": "a.png", "a.webp_x2.jpg": "a.webp", "b.png": "b.png", "b.bmp.png": "b.BMP",
              "b.tif.png": "b.tif", "c.webp": "c.bmp"}  # fmt: skip
    for number, name in enumerate(befores):
        save(f"in/{name}", texture(60, 40, number))
    for name, before in afters.items():
        save(f"out/{name}", enlarged(texture(60, 40, befores.index(before))))
    pairs, notes = pairs_of(Path("in"), Path("out"))
    assert {pair.after.name: pair.before.name for pair in pairs} == afters
    assert [pair.name for pair in pairs] == ["a.png", "a.webp", "b.bmp", "b.png", "b.tif", "c"]
    assert notes == ["1 in in without a counterpart"]


def test_what_browsers_do_not_show_is_copied(capsys: pytest.CaptureFixture[str]) -> None:
    save("in/a.tif", texture(60, 40))
    save("out/a.png", enlarged(texture(60, 40)))
    assert main(["compare", "in", "out", "-o", "all.html"]) == 0
    ((after, before),) = links("all.html")
    assert (after, before) == ("./out/a.png", "./all_files/00000-before.jpg")
    with Pillow.open("all_files/00000-before.jpg") as copy:
        assert copy.size == (60, 40)


def test_a_page_is_light() -> None:
    for number in range(12):
        save(f"in/{number}.png", texture(300, 200, number))
        save(f"out/{number}.png", texture(300, 200, number + 100))
    assert main(["compare", "in", "out", "-o", "all.html", "-q"]) == 0
    assert Path("all.html").stat().st_size < 12 * 20_000 + 20_000  # 20 MB for a thousand


def test_a_change_is_measured_between_pictures_of_any_sizes() -> None:
    small = texture(900, 700)
    assert change(small, small) == 0
    assert change(small, enlarged(small)) < 1
    assert change(small, enlarged(small, 20.0)) == pytest.approx(20, rel=0.1)
    assert change(enlarged(small), small) < 1


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["in", "out", "-o", "sheet.png"], 2, "with the extension .html"),
        (["in", "in/a.png", "-o", "all.html"], 2, "two folders"),
        (["in", "-o", "all.html"], 2, "two folders"),
        (["in", "out", "-o", "all.html", "--models", "fast"], 2, "two folders"),
        (["in", "empty", "-o", "all.html"], 3, "has the name of one in"),
    ],
)
def test_mistakes(arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    save("in/a.png", texture(20, 20))
    save("out/a.png", texture(40, 40))
    Path("empty").mkdir()
    assert main(["compare", *arguments]) == code
    assert words in capsys.readouterr().err


def test_a_broken_picture_is_left_out_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        save(f"in/{name}.png", texture(20, 20))
        save(f"out/{name}.png", texture(40, 40))
    Path("out/b.png").write_bytes(b"")
    assert main(["compare", "in", "out", "-o", "all.html"]) == 1
    assert "left out: out/b.png" in capsys.readouterr().err
    assert len(links("all.html")) == 1
