"""Shared by all commands: headings, the user's own defaults, completion."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import srgan_cli.cli
from srgan_cli.cli import cli, main
from srgan_cli.cli.command import Command
from srgan_cli.errors import ExitCode
from tests.commands import Command as RunningCommand
from tests.upscaling.pictures import picture


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRGAN_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text("")
    return tmp_path


def config(text: str) -> None:
    Path("config.toml").write_text(text)


def planned(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    picture(Path("a.png"), 20, 10)
    assert main(["upscale", "a.png", "--dry-run", "--json", *arguments]) == 0
    return dict(json.loads(capsys.readouterr().out.splitlines()[0]))


# ------------------------------------------------------------------------------------------------------------- help


def test_help_has_headings_the_most_used_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upscale", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    headings = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert headings == ["Size", "Model", "Inputs", "Output", "Metadata", "Compute", "Many pictures", "Options"]
    size = lines.index("Size:")
    assert "--scale" in lines[size + 1]


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_no_line_of_a_list_of_commands_is_cut_off(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*arguments, "--help"]) == 0
    commands = capsys.readouterr().out.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


SHARED = (
    "--degradation", "--device", "--json", "--model", "--no-config", "--output", "--overwrite", "--quiet", "--scale",
    "--tile", "--verbose", "--vgg-weights",
)  # fmt: skip


@pytest.mark.parametrize("option", SHARED)
def test_an_option_of_several_commands_is_declared_once(option: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(srgan_cli.cli.__file__).parent.glob("*.py")]
    declared = re.compile(rf'\(\s*(?:"-\w",\s*)?"{option}",')
    assert sum(len(declared.findall(source)) for source in sources) == 1


def test_every_option_of_a_command_is_in_its_help_once(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("upscale", "train", "evaluate", "compare", "doctor"):
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert isinstance(command, Command)
        main([name, "--help"])
        out = capsys.readouterr().out
        for param in command.params:
            if option := [one for one in param.opts if one.startswith("--")]:
                assert out.count(f"{option[0]} ") + out.count(f"{option[0]}\n") + out.count(f"{option[0]},") >= 1


def test_originals_and_small_pictures_have_the_same_names_in_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train", "evaluate", "compare"):
        main([command, "--help"])
        assert "--hr-dir, --high-dir" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- defaults


def test_a_config_file_the_environment_and_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config('[upscale]\nscale = 2\nformat = "webp"\n')
    assert planned(capsys)["width"] == 40
    assert planned(capsys)["target"] == "a_x2.webp"
    monkeypatch.setenv("SRGAN_UPSCALE_SCALE", "3")
    assert planned(capsys)["width"] == 60
    assert planned(capsys, "--scale", "8")["width"] == 160
    assert planned(capsys, "--no-config")["width"] == 80


def test_another_size_on_the_command_line_puts_out_the_default_one(capsys: pytest.CaptureFixture[str]) -> None:
    config("[upscale]\nscale = 2\n")
    assert planned(capsys, "--width", "50")["width"] == 50
    assert planned(capsys, "--print", "A6", "--dpi", "30")["width"] == 175


@pytest.mark.parametrize(
    ("defaults", "arguments", "target"),
    [
        ("format = 'webp'", ["-o", "b.png"], "b.png"),
        ("format = 'webp'", ["--name", "b.png"], "b.png"),
        ("format = 'webp'", ["-o", "out"], "out/a.webp"),
        ("format = 'webp'\nlossless = true", ["-o", "b.jpg"], "b.jpg"),
        ("quality = 80", ["--format", "PNG"], "a_x4.png"),
        ("quality = 80", ["--format", "webp", "--lossless"], "a_x4.webp"),
        ("lossless = true", ["--format", "webp", "--quality", "70"], "a_x4.webp"),
        ("bit-depth = '16'", ["--format", "jpg"], "a_x4.jpg"),
        ("png-level = 9\ntiff-layout = 'tile'", ["-o", "b.jpg"], "b.jpg"),
        ("name = 'large-{stem}.webp'", ["-o", "b.png"], "b.png"),
        ("name = 'large-{stem}{ext}'", ["-o", "out"], "out/large-a.png"),
        ("detail = 0.5", ["--model", "fast"], "a_x4.png"),
        ("detail = 0.5", ["--model", "srgan@0.6"], "a_x4.png"),
        ("model = 'srgan-noise'\nvariation = 0.5", ["--model", "fast"], "a_x4.png"),
        ("model = 'srgan-noise'\nvariants = 2", ["--model", "auto"], "a_x4.png"),
        ("model = 'srgan-noise'\nvariants = 2", ["--ensemble"], "a_x4.png"),
        ("model = 'srgan-noise'\nvariants = 2\ngrain = 0.5", ["--ensemble"], "a_x4-v1.png"),
        ("model = 'srgan-noise'\nvariation = 0.5", ["--ensemble"], "a_x4.png"),
        ("model = 'srgan-noise'\nensemble = true", ["--variation", "0.5"], "a_x4.png"),
        ("model = 'srgan-noise'\nensemble = true", ["--variants", "2"], "a_x4-v1.png"),
    ],
)
def test_a_default_gives_way_to_what_does_not_go_with_it(
    defaults: str, arguments: list[str], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config(f"[upscale]\n{defaults}\n")
    assert planned(capsys, *arguments)["target"] == target


def test_what_does_not_go_together_on_the_command_line_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("a.png"))
    for arguments in (
        ["-o", "b.png", "--format", "webp"],
        ["--format", "png", "--quality", "80"],
        ["-o", "b.png", "--quality", "80"],
        ["-o", "b.jpg", "--png-level", "9"],
        ["-o", "b.jpg", "--tiff-layout", "tile"],
        ["-o", "b.png", "--name", "c{ext}"],
    ):
        assert main(["upscale", "a.png", "-n", *arguments]) == ExitCode.USAGE


def test_settings_of_all_commands_stand_before_the_sections(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config('model = "fast"\n')
    assert planned(capsys)["model"] == "fast"
    monkeypatch.setenv("SRGAN_MODEL", "fidelity")
    assert planned(capsys)["model"] == "fidelity"
    config('model = "fast"\n[upscale]\nmodel = "photo"\n')
    monkeypatch.delenv("SRGAN_MODEL")
    assert planned(capsys)["model"] == "photo"


def test_lists_and_switches_have_defaults_too(capsys: pytest.CaptureFixture[str]) -> None:
    picture(Path("in/a.png"))
    picture(Path("in/b.png"))
    picture(Path("in/deep/c.png"))
    config('[upscale]\nrecursive = true\nexclude = ["b.*"]\n')
    assert main(["upscale", "in", "-o", "out/", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "2 to do" in out
    assert "deep" in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale = 2", "section"),
        ("[upscal]\nscale = 2", "did you mean [upscale]?"),
        ("[pictures]\nscale = 2", "sections are called like commands"),
        ("[upscale]\nqualty = 3", "did you mean quality"),
        ("[upscale]\nscale = 'large'", "is not a number"),
        ("[upscale]\nscale = 'large'", "config.toml"),
        ("[upscale", "TOML"),
        ("[upscale]\nno-config = true", "unknown setting"),
    ],
)
def test_mistakes_in_the_config_file_are_reported(text: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    config(text)
    picture(Path("a.png"))
    assert main(["upscale", "a.png", "-n"]) == 2
    assert words in capsys.readouterr().err
    assert main(["upscale", "a.png", "-n", "--no-config"]) == 0


def test_a_config_file_that_is_named_must_be_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SRGAN_CONFIG", "none.toml")
    assert main(["upscale", "a.png", "-n"]) == 2
    assert "none.toml" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"_SRGAN_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("srgan up", "upscale"),
        ("srgan upscale --model pho", "photo-x4"),
        ("srgan upscale --format we", "webp"),
        ("srgan upscale --only", "--only-enlarge"),
        ("srgan upscale --device cu", "cuda"),
    ],
)
def test_what_is_completed(words: str, expected: str) -> None:
    environment = {**os.environ, "_SRGAN_COMPLETE": "bash_complete", "COMP_WORDS": words,
                   "COMP_CWORD": str(len(words.split()) - 1)}  # fmt: skip
    code = "from srgan_cli.cli import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert f"plain,{expected}" in done.stdout.splitlines()


@pytest.mark.skipif(sys.platform == "win32" or shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [("srgan up", "upscale"), ("srgan upscale -m pho", "photo photo-x2 photo-x4"), ("srgan upscale -m runs/", "")],
)
def test_bash_offers_what_is_completed(words: str, offered: str, here: Path) -> None:
    """An offer of files must not replace the names of models."""
    program = here / "srgan"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m srgan_cli "$@"\n')
    program.chmod(0o755)
    script = (
        f'eval "$(srgan completion bash)"; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); '
        '_srgan_completion srgan 2>/dev/null; echo "${COMPREPLY[*]}"'
    )
    environment = {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "--norc", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == offered, done.stderr


# -------------------------------------------------------------------------------------------------------- documents

ROOT = Path(__file__).parents[2]


def test_the_page_on_upscaling_has_the_exit_codes_and_every_option() -> None:
    page = (ROOT / "docs" / "UPSCALE.md").read_text(encoding="utf-8")
    for code in ExitCode:
        assert f"| {code:d} | {code.meaning} |" in page
    command = cli.get_command(None, "upscale")  # type: ignore[arg-type]
    assert command is not None
    names = [name for param in command.params if not isinstance(param, click.Argument) for name in param.opts]
    missing = [name for name in names if name.startswith("--") and name not in page and name != "--output"]
    assert missing == []


# --------------------------------------------------------------------------------------------------- standard streams


def _in_shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line.replace("srgan", f"{sys.executable} -m srgan_cli")],
                          capture_output=True, text=True)  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="a shell")
def test_a_closed_stream_is_not_the_next_file(here: Path) -> None:
    """The first file that is opened would get stderr's number, and what libraries say there would go into it."""
    program = "from srgan_cli.cli import main; import os, sys; main(['--version']); " + (
        "open('found', 'w').write(str([os.fstat(n).st_rdev == os.stat(os.devnull).st_rdev for n in range(3)]))"
    )
    (here / "run.py").write_text(program)
    assert subprocess.run(["sh", "-c", f"{sys.executable} run.py <&- >&- 2>&-"], cwd=here).returncode == 0
    assert (here / "found").read_text() == "[True, True, True]"
    empty = _in_shell("srgan upscale - -o out.png --dry-run <&-")
    assert empty.returncode == ExitCode.NOTHING_READABLE
    assert "the input is empty" in empty.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
def test_a_full_disk_behind_stdout_is_a_sentence() -> None:
    ran = _in_shell("srgan models list --json >/dev/full")
    assert ran.returncode == ExitCode.SOME_FAILED
    assert ran.stderr.strip() == "srgan: stdout cannot be written: no space left on device"


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--hr-dir", LONG, "--out", "run"],
        ["train", "--hr-dir", ".", "--out", LONG],
        ["train", "--config", LONG, "--hr-dir", ".", "--out", "run"],
        ["evaluate", "--hr-dir", LONG],
        ["evaluate", "--hr-dir", ".", "--json", LONG],
        ["compare", LONG, LONG, "-o", "page.html"],
        ["compare", "a.png", "a.png", "-o", f"{LONG}.html"],
        ["export", "fast-x4", "-o", LONG],
        ["models", "add", LONG],
        ["models", "show", LONG],
        ["watch", LONG, "-o", "out"],
        ["upscale", "--files-from", LONG],
        ["upscale", "a.png", "--failed", LONG],
    ],
    ids=lambda words: " ".join(words).replace(LONG, "LONG"),
)
def test_a_name_that_the_file_system_refuses_is_a_sentence(
    arguments: list[str], here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even looking whether it is there succeeds, and an exception would be all that Python has to say."""
    picture(here / "a.png")
    assert main(arguments) in (1, 2, 3, 4)
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert len(said.strip()) > 20


@pytest.mark.skipif(sys.platform == "win32", reason="a folder in use cannot be removed there")
def test_a_folder_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    """A library that torch loads would end the process, whatever names are given."""
    gone = tmp_path / "gone"
    gone.mkdir()
    with RunningCommand("upscale", "a.png", prelude="import os; os.rmdir(os.getcwd())", cwd=gone) as command:
        _, said = command.communicate()
    assert command.returncode == ExitCode.USAGE
    assert said.decode().strip() == "srgan: the current folder no longer exists: change to another one (cd)"


@pytest.mark.skipif(sys.platform == "win32", reason="homes are found in another way there")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["upscale", "a.png", "--dry-run"], 0),
        (["upscale", "a.png", "--dry-run", "-m", "~"], 4),
        (["upscale", "a.png", "--dry-run", "-m", "~nobody of that name/x.pth"], 4),
        (["train", "--hr-dir", "~nobody of that name", "--out", "run"], 3),
        (["models", "list"], 0),
        (["doctor"], 0),
    ],
)
def test_without_a_home_directory(
    arguments: list[str], code: int, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in a container, with a user ID that has no account."""
    picture(here / "a.png")
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "SRGAN_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    assert main(arguments) == code
    assert "Traceback" not in capfd.readouterr().err


def test_a_home_of_somebody_else_holds_no_defaults(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `su` or `sudo -u`, which may keep HOME."""
    picture(here / "a.png")
    monkeypatch.delenv("SRGAN_CONFIG", raising=False)
    monkeypatch.setattr("srgan_cli.cli.defaults.config_folder", lambda: here / "a.png" / "srgan")
    assert main(["upscale", "a.png", "--dry-run"]) == 0
    monkeypatch.setattr("srgan_cli.cli.defaults.config_folder", lambda: here / LONG)  # as little to be looked at
    assert main(["upscale", "a.png", "--dry-run"]) == 0
