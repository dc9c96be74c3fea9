"""What users type by habit: options of other programs, mistyped commands, scales as other programs write them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from srgan_cli.cli import main
from srgan_cli.errors import ExitCode
from tests.upscaling.pictures import picture


@pytest.fixture(autouse=True)
def _here(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRGAN_CONFIG", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["in.jpg"], "srgan upscale in.jpg"),
        (["photos/"], "srgan upscale photos/"),
        (["-i", "in.jpg"], "without an option"),
        (["upscale", "-i", "in.jpg"], "without an option"),
        (["upscale", "in.jpg", "-t", "256"], "--tile"),
        (["upscale", "in.jpg", "-g", "0"], "--device"),
        (["upscale", "in.jpg", "--gpu", "0"], "--device"),
        (["upscale", "in.jpg", "-f", "png"], "--format"),
        (["upscale", "in.jpg", "-x"], "--ensemble"),
        (["upscale", "in.jpg", "-V"], "--version"),
        (["upscale", "in.jpg", "-w", "1000"], "--width"),
        (["upscale", "in.jpg", "-c", "80"], "--quality"),
        (["upscale", "in.jpg", "-z", "4"], "--scale"),
        (["upscale", "in.jpg", "-dn", "0.5"], "--model photo"),
        (["upscale", "in.jpg", "--tile_pad", "10"], "without seams"),
        (["upscale", "in.jpg", "--face_enhance"], "no model for faces"),
        (["upscale", "in.jpg", "--jobs", "4"], "in parallel"),
        (["train", "--hr-dir", "photos", "--resume"], "the same command resumes the run in --out by itself"),
        (["upscale", "in.jpg", "--list-models"], "srgan models list"),
        (["upscale", "in.jpg", "--copy-exif"], "--strip drops it"),
        (["compare", "a.jpg", "ftp://x/b.jpg", "-o", "c.html"], "ftp://x/b.jpg is an address"),
        (["compare", "a.jpg", "file:///tmp/a.jpg", "-o", "c.html"], "without file://"),
        (["watch", "s3://bucket/in", "-o", "out"], "s3://bucket/in is an address"),
        (["watch", ".", "-o", "s3://bucket/out"], "s3://bucket/out is an address"),
        (["train", "--hr-dir", "photos", "https://a.b/photos"], "https://a.b/photos is an address"),
        (["train", "--hr-dir", "photos", "--out", "s3://bucket/run"], "s3://bucket/run is an address"),
        (["evaluate", "--hr-dir", "in", "--csv", "s3://bucket/a.csv"], "s3://bucket/a.csv is an address"),
        (["upscale", "a.jpg", "--failed", "s3://bucket/a.txt"], "s3://bucket/a.txt is an address"),
        (["upscale", "a.jpg", "-m", "https://a.b/x4.pth"], "srgan models add https://a.b/x4.pth"),
    ],
)
def test_options_of_other_programs_are_answered_with_ours(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["upscale", ""],
        ["upscale", "a.jpg", "-o", ""],
        ["upscale", "a.jpg", "-m", ""],
        ["upscale", "a.jpg", "--failed", ""],
        ["upscale", "--files-from", ""],
        ["train", "--hr-dir", ""],
        ["train", "--hr-dir", "photos", ""],
        ["train", "--hr-dir", "photos", "--lr-dir", ""],
        ["train", "--hr-dir", "photos", "--val-dir", ""],
        ["train", "--hr-dir", "photos", "--out", ""],
        ["train", "--hr-dir", "photos", "--config", ""],
        ["train", "--hr-dir", "photos", "--init", ""],
        ["train", "--hr-dir", "photos", "--preview", ""],
        ["evaluate", "--hr-dir", ""],
        ["evaluate", "--hr-dir", "in", "--save", ""],
        ["evaluate", "--hr-dir", "in", "-m", ""],
        ["compare", "a.jpg", "", "-o", "c.html"],
        ["compare", "a.jpg", "b.jpg", "-o", ""],
        ["serve", "-m", ""],
        ["serve", "--host", ""],
        ["export", ""],
        ["export", "fast", "-o", ""],
    ],
)
def test_an_unset_variable_is_no_name(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty name would otherwise be the folder one is in."""
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "(an unset variable?)" in err, err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "photos"], "unexpected extra argument (photos): pictures are given with --hr-dir FOLDER"),
        (["evaluate", "--hr-dir", "in", "out"], "pictures are given with --hr-dir FOLDER"),
        (["train", "--hr-dir", "photos", "--config", "bytes.toml"], "it is not text in UTF-8"),
        (["compare", "-", "a.jpg", "-o", "c.html"], "does not read stdin"),
        (["upscale", "dead.jpg"], "dead.jpg cannot be opened: it is a link to something that does not exist"),
        (["upscale", ".", "-n", "--include", "*.gif", "--exclude", "b"], "with --include *.gif --exclude b"),
        (["upscale", "a.jpg", "--page", "0"], "not 0\n"),
        (["upscale", "a.jpg", "--page", "5-3"], "not 5-3\n"),
        (["upscale", "a.jpg", "--seed", "9" * 30], "--seed must be a whole number from 0 to 4611686018427387903"),
        (["upscale", "a.jpg", "--shard", "1/999999999999"], "N up to 1000000"),
        (["upscale", "a.jpg", "--name", ""], "--name is empty (an unset variable?)"),
    ],
)
def test_a_mistake_is_answered_with_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bytes.toml").write_bytes(b"\xff\xfe\x00")
    Path("dead.jpg").symlink_to("nowhere.jpg")
    assert main(arguments) in (2, 3)
    assert words in capsys.readouterr().err


def test_numbers_may_have_a_decimal_comma(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(here / "a.png")
    command = ["upscale", "a.png", "-n", "--scale", "2,5", "--timeout", "1,5", "--grain", "0,5"]
    assert main([*command, "--detail", "0,5"]) == 0
    assert "a_x2.5.png" in capsys.readouterr().out
    assert main([*command, "--detail", "0,5.1"]) == 2
    assert "'0,5.1' is not a number" in capsys.readouterr().err


def test_words_may_be_in_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hr-dir", "photos", "--preset", "Photo", "--precision", "FP32", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert 'preset = "photo"' in out
    assert 'precision = "fp32"' in out


@pytest.mark.parametrize(("mistyped", "meant"), [("upscael", "upscale"), ("eval", "evaluate"), ("modles", "models")])
def test_a_mistyped_command_is_recognised(mistyped: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([mistyped, "a.png"]) == ExitCode.USAGE
    assert f"{mistyped} is not a command; did you mean {meant}?" in capsys.readouterr().err


def test_a_suggested_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["my cat.jpg"]) == ExitCode.USAGE
    assert "srgan upscale 'my cat.jpg'" in capsys.readouterr().err


@pytest.mark.parametrize("written", ["2", "2x", "x2", "2.0X", "×2", "2,0"])
def test_a_scale_may_be_written_as_other_programs_write_it(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("a.png"), 20, 10)
    assert main(["upscale", "a.png", "--dry-run", "--json", "--scale", written]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["width"] == 40


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--scale", "big", "'big' is not a number"),
        ("--scale", "x", "'x' is not a number"),
        ("--dpi", "print", "'print' is not a number"),
        ("--quality", "high", "'high' is not a whole number"),
        ("--seed", "1.5", "'1.5' is not a whole number"),
    ],
)
def test_what_is_no_number_is_refused_in_plain_words(
    option: str, value: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["upscale", "a.png", option, value]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["train", "-w", "9"], ["train", "-j", "9"], ["evaluate", "--suffix", "x"]])
def test_no_command_is_said_to_have_an_option_of_another(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert f"No such option '{arguments[1]}'" in capsys.readouterr().err


def test_the_version_by_habit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-V"]) == 0
    assert "version" in capsys.readouterr().out


def test_an_address_that_is_a_file_is_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    if os.name == "nt":
        pytest.skip("no such names")
    picture(Path("https:/a.png"))
    assert main(["upscale", "https://a.png", "-n"]) == 0
