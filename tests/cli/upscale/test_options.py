"""`srgan upscale`: its options, and `srgan doctor`."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import main
from srgan_cli.config import UpscaleOptions, WriteOptions
from srgan_cli.errors import SettingsError
from tests import commands
from tests.cli.upscale.commands import Run, events, size_of
from tests.upscaling.pictures import picture, tree

# -------------------------------------------------------------------------------------------------------------- options


def test_strip_alone_means_all(srgan: Run, here: Path) -> None:
    picture(here / "plain.png")
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"
    Pillow.new("RGB", (9, 9), (90, 80, 70)).save("in.jpg", exif=exif, dpi=(300, 300))

    def maker(path: str) -> Any:
        with Pillow.open(path) as result:
            return result.getexif().get(0x010F)

    for number, arguments in enumerate((["--strip", "in.jpg"], ["in.jpg", "--strip"], ["--strip", "all", "in.jpg"])):
        assert srgan(*arguments, "-o", f"stripped{number}.jpg")[0] == 0
        assert maker(f"stripped{number}.jpg") is None
    assert srgan("--strip", "gps", "in.jpg", "-o", "kept.jpg")[0] == 0
    assert maker("kept.jpg") == "Maker"
    assert srgan("in.jpg", "-o", "all.jpg")[0] == 0
    assert maker("all.jpg") == "Maker"


def test_a_wrong_value_of_strip_is_answered_with_the_right_ones(srgan: Run) -> None:
    for arguments in (["--strip", "everything"], ["--strip=everything"]):
        code, _, err = srgan("in.png", "-o", "out.png", *arguments)
        assert (code, "'everything' is not one of 'gps', 'all', 'none'" in err) == (2, True), err
    with pytest.raises(SettingsError, match="strip must be gps, all or none, not 'everything'"):
        WriteOptions(strip="everything")  # type: ignore[arg-type]


def test_strip_does_not_take_an_input_for_its_value(srgan: Run, here: Path) -> None:
    picture(here / "photos" / "a.png", 8, 6)
    assert srgan("--strip", "photos", "-o", "out")[0] == 0
    assert (here / "out" / "a.png").is_file()


def test_names_that_start_with_a_dash(srgan: Run, here: Path) -> None:
    picture(here / "-o.png")
    code, _, err = srgan("-o", "out.png", "--", "-o.png")
    assert code == 0, err
    assert size_of(here / "out.png") == (48, 36)
    assert srgan("./-o.png")[0] == 0
    assert (here / "-o_x4.png").exists()


def test_names_that_are_no_text(here: Path, model: Path) -> None:
    name = b"\xff\xfe.png"
    picture(here / os.fsdecode(name))
    bad = b"\xfe.png"
    (here / os.fsdecode(bad)).write_bytes(b"")
    done = commands.run("upscale", name, bad, "-o", "out/", "-v", "-m", str(model), "--device", "cpu", cwd=here)
    assert done.returncode == 1, done.stderr
    assert (here / "out" / os.fsdecode(name)).exists()
    assert b"Traceback" not in done.stderr
    done.stderr.decode("utf-8")


def test_sizes_and_formats(srgan: Run, here: Path) -> None:
    picture(here / "a.png", 20, 10)
    assert srgan("a.png", "--fit", "90x90", "--format", "webp", "--name", "b{ext}")[0] == 0
    assert size_of(here / "b.webp") == (90, 45)
    assert srgan("a.png", "--long-side", "61", "-o", "c.tif", "--bit-depth", "16")[0] == 0
    assert size_of(here / "c.tif") == (61, 30)


def test_tiles_do_not_change_the_picture(srgan: Run, here: Path) -> None:
    picture(here / "a.png", 22, 18)
    for tile in ("1", "7", "auto"):
        assert srgan("a.png", "-o", f"{tile}.png", "--tile", tile, "--precision", "fp32")[0] == 0
    with Pillow.open("auto.png") as whole, Pillow.open("7.png") as seven, Pillow.open("1.png") as one:
        for tiled in (seven, one):
            assert np.abs(np.asarray(tiled).astype(int) - np.asarray(whole)).max() <= 1


def test_existing_results(srgan: Run, here: Path) -> None:
    picture(here / "in/a.png")
    assert srgan("in", "-o", "out/")[0] == 0
    when = (here / "out/a.png").stat().st_mtime_ns
    code, _, err = srgan("in", "-o", "out/")
    assert code == 2
    assert "exists already" in err
    assert srgan("in", "-o", "out/", "--resume")[0] == 0
    assert srgan("in", "-o", "out/", "--skip-existing")[0] == 0
    assert (here / "out/a.png").stat().st_mtime_ns == when
    assert srgan("in", "-o", "out/", "--resume", "--scale", "2")[0] == 0
    assert size_of(here / "out/a.png") == (24, 18)
    assert srgan("in", "-o", "out/", "--overwrite")[0] == 0
    assert size_of(here / "out/a.png") == (48, 36)


def test_a_second_run_over_the_same_folder_finds_it_done(srgan: Run, here: Path) -> None:
    picture(here / "in/a.png")
    assert srgan("in")[0] == 0
    code, _, err = srgan("in", "--resume")
    assert code == 0
    assert "0 done, 1 skipped" in err
    assert tree(here / "in") == {"a.png", "a_x4.png", ".srgan-manifest.jsonl"}


def test_results_of_the_first_command_of_the_readme(srgan: Run, here: Path) -> None:
    """With the model that comes with srgan, and the precision it chooses itself."""
    picture(here / "in.jpg", 24, 16)
    code, _, err = srgan("in.jpg", "-o", "out.png", "--scale", "4", "-m", "fidelity")
    assert code == 0, err
    assert size_of(here / "out.png") == (96, 64)


REAL = Path(os.environ.get("SRGAN_TEST_DATA", Path(__file__).parents[2] / "../shared/data")) / "real"


@pytest.mark.skipif(not REAL.is_dir(), reason="the real photos are not here")
def test_real_photos_by_their_headers(srgan: Run) -> None:
    code, out, err = srgan(REAL, "--recursive", "-o", "out/", "--dry-run", "--json")
    assert code == 0, err
    planned = [event for event in events(out) if event["event"] == "planned"]
    assert len(planned) > 10


# --------------------------------------------------------------------------------------------------------------- doctor


def test_doctor_tells_what_will_be_used(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "-m", str(model), "--device", "cpu", "--precision", "fp32", "--tile", "99"]) == 0
    out = capsys.readouterr().out
    assert "device cpu: asked for" in out
    assert "tile 99 px" in out
    assert main(["doctor", "-m", str(model), "--json"]) == 0
    assert "will use" in json.loads(capsys.readouterr().out)


def test_doctor_and_a_device_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--device", "cuda:99"]) == 5
    assert "cuda:99" in capsys.readouterr().err


def test_small_mistakes_are_told_and_cost_nothing(srgan: Run, here: Path) -> None:
    picture(Path("a.png"))
    before = tree(here)
    for arguments, words in (
        (["", "a.png"], "empty"),
        (["a.png", "-o", "b.png", "--format", "jpeg"], "does not match --format jpeg"),
        (["a.png", "-o", "b.png", "--failed", "no/such/folder"], "--failed"),
    ):
        code, _, err = srgan(*arguments, stdin=b"")
        assert code == 2
        assert words in err
        assert tree(here) == before


def test_a_list_may_begin_with_a_byte_order_mark(srgan: Run, here: Path) -> None:
    picture(Path("a.png"))
    Path("list.txt").write_bytes(b"\xef\xbb\xbfa.png\r\n")
    code, _, err = srgan("--files-from", "list.txt", "-o", "out/", stdin=b"")
    assert code == 0, err
    assert (here / "out/a.png").is_file()


def test_large_pictures_are_copied_or_reduced(srgan: Run, here: Path) -> None:
    picture(here / "in/large.png", 60, 40)
    picture(here / "in/small.png", 20, 10)
    before = (here / "in/large.png").read_bytes()
    code, _, err = srgan("in", "-o", "copied/", "--long-side", "48<", "--copy-large", "copy")
    assert code == 0, err
    assert "2 done" in err
    assert (here / "copied/large.png").read_bytes() == before
    assert size_of(here / "copied/small.png") == (48, 24)
    assert srgan("in", "-o", "copied/", "--long-side", "48<", "--copy-large", "copy", "--resume")[2].count("2 skipped")
    assert srgan("in", "-o", "reduced/", "--fit", "48x48<", "--copy-large", "reduce")[0] == 0
    assert size_of(here / "reduced/large.png") == (48, 32)
    code, _, err = srgan("in", "-o", "left/", "--long-side", "48", "--only-enlarge", "-v")
    assert code == 0
    assert tree(here / "left") == {"small.png", ".srgan-manifest.jsonl"}
    with Pillow.open(here / "in/large.png") as large, Pillow.open(here / "reduced/large.png") as reduced:
        plain = np.asarray(large.resize((48, 32), Pillow.Resampling.LANCZOS)).astype(int)
        assert np.abs(np.asarray(reduced) - plain).mean() < 2


def test_a_print_has_the_size_and_the_resolution_of_its_paper(srgan: Run, here: Path) -> None:
    exif = Pillow.Exif()
    exif[0x010F] = "Maker"
    exif[0x011A] = exif[0x011B] = 72.0
    exif[0x0128] = 3
    Pillow.new("RGB", (40, 30), (90, 80, 70)).save("in.jpg", exif=exif, dpi=(72, 72))
    for target in ("out.jpg", "out.png", "out.tif"):
        assert srgan("in.jpg", "-o", target, "--print", "25.4x30mm", "--dpi", "150")[0] == 0
        with Pillow.open(target) as result:
            assert result.size == (177, 133)
            assert [round(float(value)) for value in result.info["dpi"]] == [150, 150]
    with Pillow.open("out.jpg") as result:
        own = result.getexif()
        assert [float(own[0x011A]), float(own[0x011B]), own[0x0128]] == [150, 150, 2]
    assert srgan("in.jpg", "-o", "out.webp", "--dpi", "200", "--strip")[0] == 0
    code, _, err = srgan("in.jpg", "-o", "a.jpg", "--dpi", "200", "--scale", "2")
    assert code == 0, err
    with Pillow.open("a.jpg") as result:
        assert result.size == (80, 60)
        assert result.info["dpi"] == (200, 200)


def test_stdin_goes_to_stdout_where_that_is_no_terminal(
    srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(here / "a.png")
    data = (here / "a.png").read_bytes()
    code, out, err = srgan("-", stdin=data)
    assert code == 0, err
    assert Pillow.open(io.BytesIO(out)).size == (48, 36)
    assert tree(here) == {"a.png"}
    assert srgan("-", "--name", "b{ext}", stdin=data)[0] == 0
    assert tree(here) == {"a.png", "b.png"}


def test_what_is_passed_over_in_folders_is_reported(srgan: Run, here: Path) -> None:
    picture(here / "in/a.png")
    picture(here / "in/deep/b.png")
    for name in ("x.NEF", "y.nef", "z.MOV", "notes.txt"):
        (here / "in" / name).write_bytes(b"")
    _, out, _ = srgan("in", "-o", "out/", "--dry-run")
    assert b"2 NEF (camera raw files" in out
    assert b"1 MOV (videos)" in out
    assert b"--recursive" in out
    assert b"TXT" not in out


def test_a_switch_in_the_config_file_is_undone_for_one_run(
    srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "config.toml").write_text("[upscale]\nensemble = true\nlossless = true\nquality = 50\n")
    monkeypatch.setenv("SRGAN_CONFIG", str(here / "config.toml"))
    made: list[UpscaleOptions] = []
    monkeypatch.setattr("srgan_cli.upscaling.session.prepare", lambda options, **_: made.append(options) or 1 / 0)
    for arguments in ([], ["--no-ensemble", "--no-lossless"]):
        with contextlib.suppress(ZeroDivisionError):
            srgan("in.png", "-o", "out.webp", *arguments)
    assert [one.engine.ensemble for one in made][-1] is False
    assert (made[-1].write.lossless, made[-1].write.quality) == (False, 50)
