"""Files of many pages: each page as if it were alone, the document as one picture in a run."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import main
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.imaging.reading import read_image
from srgan_cli.upscaling import growing
from tests.documents.films import DELAYS, HEIGHT, WIDTH, film
from tests.faults import at_call
from tests.imaging import samples
from tests.imaging.tiffs import gradient, page, pages
from tests.upscaling.pictures import tree

pytestmark = pytest.mark.timeout(60)

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def srgan(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> tuple[int, str]:
        fixed = ("-m", str(model), "-s", "2", "--device", "cpu", "--precision", "fp32")
        code = main(["upscale", *fixed, *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def three_pages() -> list[Pillow.Image]:
    """Colour, grey and 16 bits, each of another size."""
    return [
        Pillow.fromarray(samples.pixels(12, 20, 3)),
        Pillow.fromarray(samples.pixels(18, 10, 1)[:, :, 0]),
        Pillow.fromarray(samples.pixels(9, 9, 1, 16)[:, :, 0]),
    ]


class Seen(NamedTuple):
    """A page or frame as Pillow reads it."""

    pixels: np.ndarray[Any, Any]
    size: tuple[int, int]
    info: dict[str, Any]
    tags: dict[int, Any]


def seen(path: str | Path) -> list[Seen]:
    found = []
    with Pillow.open(path) as file:
        for number in range(getattr(file, "n_frames", 1)):
            file.seek(number)
            pixels = np.array(file.convert("RGBA") if file.format == "GIF" else file)
            info = {str(key): value for key, value in file.info.items()}
            found.append(Seen(pixels, file.size, info, dict(getattr(file, "tag_v2", {}))))
    return found


def tiff_of(path: Path, frames: list[Pillow.Image], **options: Any) -> Path:
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


def test_a_tiff_keeps_its_pages_each_as_it_would_be_alone(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "in.tif", three_pages(), dpi=(200, 200), compression="tiff_deflate", icc_profile=None)
    for number, one in enumerate(three_pages()):
        one.save(tmp_path / f"{number}.tif")
        assert srgan(f"{number}.tif", "-o", f"big{number}.tif")[0] == 0
    code, said = srgan("in.tif", "-o", "out.tif")
    assert (code, "3 pages" in said) == (0, True)
    assert len(seen("out.tif")) == 3
    for number, out in enumerate(seen("out.tif")):
        assert out.info["dpi"] == (200, 200)
        assert "srgan" in str(out.tags[305])
        alone = read_image(Path(f"big{number}.tif"), max_pixels=samples.MANY)
        assert np.array_equal(out.pixels.reshape(alone.pixels.shape), alone.pixels)
    assert tree(tmp_path) == {"in.tif", "out.tif", *(f"{n}.tif" for n in range(3)), *(f"big{n}.tif" for n in range(3))}


def test_each_page_keeps_its_profile_and_tags(srgan: Run, tmp_path: Path) -> None:
    grey = gradient(6, 5, 1)[:, :, 0]
    name = {285: (2, [*b"left\0"])}
    profile = {34675: (7, [*samples.srgb()])}
    both = [
        page(5, 6, [8] * 3, 2, gradient(6, 5, 3).tobytes(), more=profile),
        page(5, 6, [8], 1, grey.tobytes(), more=name),
    ]
    for order in "<>":
        (tmp_path / "in.tif").write_bytes(pages(both, order=order))
        assert srgan("in.tif", "-o", "out.tif", "--overwrite")[0] == 0
        first, second = seen("out.tif")
        assert first.info["icc_profile"] == samples.srgb()
        assert 34675 not in second.tags
        assert second.tags[285] == "left"


def test_pages_are_chosen(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    assert srgan("in.tif", "-o", "two.tif", "--page", "2-3")[0] == 0
    assert [one.size for one in seen("two.tif")] == [(20, 36), (18, 18)]
    code, said = srgan("in.tif", "-o", "one.tif", "--page", "3")
    assert (code, "only page 3 of 3 is read" in said) == (0, True)
    assert [one.size for one in seen("one.tif")] == [(18, 18)]
    code, said = srgan("in.tif", "-o", "first.png", "--page", "1")
    assert (code, "only the first of 3" in said) == (0, True)
    assert srgan("in.tif", "-o", "none.tif", "--page", "4")[0] == 3
    assert srgan("in.tif", "-o", "none.tif", "--page", "0")[0] == 2
    assert srgan("in.tif", "-o", "none.tif", "--page", "3-2")[0] == 2
    assert srgan("in.tif", "-o", "none.tif", "--page", "x")[0] == 2


def test_pages_become_files_where_the_format_holds_one(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    code, said = srgan("in.tif", "-o", "out.jpg")
    assert (code, "become a file each: out-001.jpg" in said) == (0, True)
    assert [seen(f"out-00{n}.jpg")[0].size for n in (1, 2, 3)] == [(40, 24), (20, 36), (18, 18)]
    assert srgan("in.tif", "--format", "png", "--name", "{page:02}_{stem}{ext}", "-o", "folder/")[0] == 0
    assert tree(tmp_path / "folder") - {".srgan-manifest.jsonl"} == {"01_in.png", "02_in.png", "03_in.png"}
    assert srgan("in.tif", "--format", "png", "-o", "-")[0] == 2


def test_events_count_pages(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    events = [json.loads(line) for line in srgan("in.tif", "-o", "out.tif", "--json", "-q")[1].splitlines()]
    done = next(event for event in events if event["event"] == "done")
    last = [event for event in events if event["event"] == "progress"][-1]
    assert done["pages"] == 3
    assert last["done"] == last["total"] == 4 * (20 * 12 + 10 * 18 + 81)
    planned = [json.loads(line) for line in srgan("in.tif", "-o", "out.jpg", "--json", "-n")[1].splitlines()]
    assert [event.get("page") for event in planned] == [1, 2, 3, None]


def interrupted(*_args: Any, **_options: Any) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_document_is_gone_on_with(srgan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    assert srgan("in.tif", "-o", "whole.tif")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", at_call(3, Upscaler.upscale_rows, interrupted))
        assert srgan("in.tif", "-o", "out.tif", "--resume")[0] == 130
    assert not Path("out.tif").exists()
    calls: list[int] = []
    real = Upscaler.upscale_rows
    monkeypatch.setattr(Upscaler, "upscale_rows", lambda *a, **o: (calls.append(1), real(*a, **o)))
    code, said = srgan("in.tif", "-o", "out.tif", "--resume")
    assert (code, len(calls)) == (0, 1)
    assert "resuming at page 3 of 3" in said
    assert Path("out.tif").read_bytes()[8:] == Path("whole.tif").read_bytes()[8:]
    assert tree(tmp_path) == {"in.tif", "out.tif", "whole.tif", ".srgan-manifest.jsonl"}
    assert "is done" in srgan("in.tif", "-o", "out.tif", "--resume", "-n")[1]


def test_without_resume_nothing_is_left(srgan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(2, Upscaler.upscale_rows, interrupted))
    assert srgan("in.tif", "-o", "out.tif")[0] == 130
    assert tree(tmp_path) == {"in.tif"}


def test_a_page_that_fails_costs_its_document_and_no_other(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "bad.tif", three_pages(), compression="tiff_deflate")
    data = bytearray((tmp_path / "bad.tif").read_bytes())
    at = seen("bad.tif")[1].tags[273][0]
    data[at : at + 40] = bytes(40)
    (tmp_path / "bad.tif").write_bytes(data)
    tiff_of(tmp_path / "good.tif", three_pages())
    code, said = srgan("bad.tif", "good.tif", "-o", "out/")
    assert code == 1
    assert "page 2 of bad.tif is damaged" in said
    assert tree(tmp_path / "out") - {".srgan-manifest.jsonl"} == {"good.tif"}
    code, said = srgan("bad.tif", "-o", "mended.tif", "--accept-damaged")
    assert (code, "page 2: it is damaged" in said) == (1, True)
    assert len(seen("mended.tif")) == 3


def test_limits_are_of_all_pages_together(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    total = 20 * 12 + 10 * 18 + 81
    assert srgan("in.tif", "-o", "out.tif", "--max-pixels", total - 1)[0] == 3
    assert srgan("in.tif", "-o", "out.tif", "--max-pixels", total)[0] == 0


def test_a_chain_that_loops_ends(srgan: Run, tmp_path: Path) -> None:
    tiff_of(tmp_path / "in.tif", three_pages())
    data = bytearray((tmp_path / "in.tif").read_bytes())
    first = struct.unpack("<I", data[4:8])[0]
    at = first
    for _ in range(2):
        at = struct.unpack("<I", data[at + 2 + 12 * struct.unpack("<H", data[at : at + 2])[0] :][:4])[0]
    link = at + 2 + 12 * struct.unpack("<H", data[at : at + 2])[0]
    data[link : link + 4] = struct.pack("<I", first)
    (tmp_path / "in.tif").write_bytes(data)
    code, said = srgan("in.tif", "-o", "out.tif")
    assert (code, said.count("\n")) == (0, 1), said
    assert len(seen("out.tif")) == 3


def test_a_hundred_thousand_pages_are_refused(srgan: Run, tmp_path: Path) -> None:
    one = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in ((256, 1), (257, 1), (273, 8)))
    tables = b"".join(one + struct.pack("<I", 16 + (n + 1) * 42 * (n < 99_999)) for n in range(100_000))
    (tmp_path / "in.tif").write_bytes(b"II*\0" + struct.pack("<I", 16) + bytes(8) + tables + bytes(64))
    code, said = srgan("in.tif", "-o", "out.tif")
    assert (code, "more than 10000 pages" in said) == (3, True), said


# ----------------------------------------------------------------------------------------------------------- animations


@pytest.mark.parametrize("clear", [False, True])
@pytest.mark.parametrize("was", ["GIF", "WEBP", "PNG"])
def test_animations_stay_animations(srgan: Run, tmp_path: Path, was: str, clear: bool) -> None:
    name = f"in.{was.lower()}"
    (tmp_path / name).write_bytes(film(was, clear=clear))
    for ending in ("gif", "webp", "png"):
        code, said = srgan(name, "-o", f"out.{ending}")
        assert (code, "6 frames" in said) == (0, True), said
        found = seen(f"out.{ending}")
        assert [frame.size for frame in found] == [(2 * WIDTH, 2 * HEIGHT)] * 6
        assert [frame.info["duration"] for frame in found] == DELAYS
        assert found[0].info["loop"] == (2 if ending == "gif" else 3)


def test_a_gif_becomes_a_webp_unless_it_is_asked_for(srgan: Run, tmp_path: Path) -> None:
    (tmp_path / "in.gif").write_bytes(film("GIF"))
    code, said = srgan("in.gif", "-o", "out/")
    assert (code, "--format gif keeps GIF" in said) == (0, True)
    assert len(seen("out/in.webp")) == 6
    assert srgan("in.gif", "-o", "out/", "--format", "gif")[0] == 0
    assert len(seen("out/in.gif")) == 6
    Pillow.new("RGB", (8, 8), "red").save("still.gif")
    assert srgan("still.gif", "-o", "out/")[0] == 0
    assert Path("out/still.png").exists()


def test_frames_are_chosen_and_split(srgan: Run, tmp_path: Path) -> None:
    (tmp_path / "in.gif").write_bytes(film("GIF"))
    assert srgan("in.gif", "-o", "some.webp", "--page", "2-4")[0] == 0
    assert [frame.info["duration"] for frame in seen("some.webp")] == DELAYS[1:4]
    code, said = srgan("in.gif", "-o", "one.jpg", "--page", "5")
    assert (code, "only frame 5 of 6" in said) == (0, True)
    code, said = srgan("in.gif", "-o", "all.jpg")
    assert (code, "all-001.jpg" in said) == (0, True)
    assert len(list(tmp_path.glob("all-00?.jpg"))) == 6
    assert np.abs(seen("all-005.jpg")[0].pixels.astype(int) - seen("one.jpg")[0].pixels).max() == 0
    code, said = srgan("in.gif", "-o", "pages.tif")
    assert (code, "how long each is shown" in said) == (0, True)
    assert len(seen("pages.tif")) == 6


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
@pytest.mark.parametrize("clear", [False, True])
def test_an_interrupted_animation_becomes_what_it_would_have_been(
    srgan: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, clear: bool
) -> None:
    """To the bit: a frame has the texture of those before it, so that all are made again."""
    (tmp_path / "in.png").write_bytes(film("PNG", clear=clear))
    assert srgan("in.png", "-o", f"whole.{ending}", "--page", "1-5")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(growing, "EVERY_SECONDS", 0.0)
        patch.setattr(Upscaler, "upscale_rows", at_call(4, Upscaler.upscale_rows, interrupted))
        assert srgan("in.png", "-o", f"out.{ending}", "--page", "1-5", "--resume")[0] == 130
    assert srgan("in.png", "-o", f"out.{ending}", "--page", "1-5", "--resume")[0] == 0
    assert (tmp_path / f"out.{ending}").read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


def changed_png(data: bytes, kind: bytes, at: int, value: bytes) -> bytes:
    """With bytes `at` of the first chunk of that kind replaced, its sum right."""
    begin = data.index(kind)
    size = int.from_bytes(data[begin - 4 : begin], "big")
    body = bytearray(data[begin : begin + 4 + size])
    body[4 + at : 4 + at + len(value)] = value
    return data[:begin] + bytes(body) + zlib.crc32(body).to_bytes(4, "big") + data[begin + 8 + size :]


def test_what_an_animation_says_of_itself_is_not_believed(srgan: Run, tmp_path: Path) -> None:
    """Billions of frames, or an empty canvas: a failure or a partial result, and the other picture succeeds."""
    data = film("PNG")
    many, empty = changed_png(data, b"acTL", 0, b"\xff" * 4), changed_png(data, b"IHDR", 0, bytes(4))
    samples_beside = tmp_path / "in" / "sound.png"
    samples_beside.parent.mkdir()
    three_pages()[0].save(samples_beside)
    gif = bytearray(film("GIF"))
    gif[6:8] = bytes(2)
    for name, made in (("many.png", many), ("empty.png", empty), ("empty.gif", bytes(gif))):
        (tmp_path / "in" / name).write_bytes(made)
    code, said = srgan("in", "-o", "out")
    assert (code, "defect" in said, "Traceback" in said) == (1, False, False), said
    assert {"sound.png", "many.png"} <= tree(tmp_path / "out")
