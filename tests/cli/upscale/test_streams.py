"""`srgan upscale`: stdin, stdout, and lists of names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from srgan_cli.cli import name_lists
from tests import commands
from tests.cli.upscale.commands import Run, size_of
from tests.upscaling.pictures import picture, tree

# ----------------------------------------------------------------------------------------------------- stdin and stdout


def test_a_stream_in_and_a_stream_out(srgan: Run, here: Path) -> None:
    data = picture(here / "a.jpg").read_bytes()
    code, out, err = srgan("-", "-o", "-", "--format", "png", stdin=data)
    assert code == 0, err
    assert out.startswith(b"\x89PNG")
    assert size_of(out) == (48, 36)
    code, out, _ = srgan("-", "-o", "-", stdin=data)
    assert out.startswith(b"\xff\xd8"), "without --format as it came"


def test_a_stream_in_and_a_file_out(srgan: Run, here: Path) -> None:
    code, out, _ = srgan("-", "-o", "b.webp", stdin=picture(here / "a.png").read_bytes())
    assert (code, out) == (0, b"")
    assert size_of(here / "b.webp") == (48, 36)


@pytest.mark.parametrize("data", [b"", b"text"])
def test_a_stream_that_is_no_picture(srgan: Run, data: bytes) -> None:
    code, out, err = srgan("-", "-o", "-", stdin=data)
    assert (code, out) == (3, b"")
    assert "stdin" in err or "-" in err


def test_streams_between_processes(here: Path, model: Path) -> None:
    data = picture(here / "a.png").read_bytes()
    done = commands.run("upscale", "-", "-o", "-", "-m", str(model), "--device", "cpu", stdin=data)
    assert done.returncode == 0, done.stderr
    assert size_of(done.stdout) == (48, 36)


def test_a_terminal_gets_no_picture(srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = srgan(picture(here / "a.png"), "-o", "-")
    assert (code, out) == (2, b"")
    assert "to the terminal: give a file" in err
    code, out, _ = srgan("a.png", "-o", "-", "--dry-run")
    assert code == 0, "a dry run writes text"


def test_a_reader_that_goes_away_is_no_traceback(here: Path, model: Path) -> None:
    for i in range(4):
        picture(here / "in" / f"{i}.png", seed=i)
    command = ("upscale", "in", "-o", "out/", "--json", "--device", "cpu", "-m", str(model))
    with commands.Command(*command) as running:
        running.stdout.close()
        _, said = running.communicate()
    assert running.returncode == 1
    assert b"Traceback" not in said, said.decode()
    assert not [name for name in tree(here / "out") if name.endswith(".part")]


# ------------------------------------------------------------------------------------------------------- lists of names


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
@pytest.mark.parametrize("through", ["file", "stdin"])
def test_names_from_a_list(srgan: Run, here: Path, separator: bytes, through: str) -> None:
    names = ["a.png", "with space.png", "ü.png", "-dash.png", os.fsdecode(b"\xff.png")]
    if separator == b"\0":
        names.append("line\nbreak.png")
    for number, name in enumerate(names):
        picture(here / name, seed=number)
    data = separator.join(map(os.fsencode, names))
    (here / "list").write_bytes(data)
    code, _, err = srgan("--files-from", "list" if through == "file" else "-", "-o", "out/", stdin=data)
    assert code == 0, err
    assert {path.name for path in (here / "out").glob("*.png")} == set(names)


def test_a_list_and_arguments_add_up(srgan: Run, here: Path) -> None:
    picture(here / "a.png")
    picture(here / "b.png")
    (here / "list").write_text("\nb.png\n\n")
    code, _, err = srgan("a.png", "--files-from", "list", "-o", "out/")
    assert code == 0
    assert "2 done" in err


def test_what_failed_can_be_tried_again(srgan: Run, here: Path) -> None:
    odd = [os.fsdecode(b"in/\xff\nx.png"), "in/b c.png"]
    for number, name in enumerate(["in/a.png", *odd]):
        picture(here / name, seed=number)
    whole = {name: Path(name).read_bytes() for name in odd}
    for name in odd:
        Path(name).write_bytes(b"")
    code, _, _ = srgan("in", "-o", "out/", "--failed", "failed.txt")
    assert code == 1
    for name, data in whole.items():
        Path(name).write_bytes(data)
    code, _, err = srgan("--files-from", "failed.txt", "-o", "out/", "--failed", "failed.txt")
    assert code == 0, err
    assert "2 done" in err
    assert {path.name for path in (here / "out").glob("*.png")} == {Path(name).name for name in ["a.png", *odd]}
    assert Path("failed.txt").read_bytes() == b"", "nothing failed any more"


def test_the_list_of_what_failed_replaces_nothing_but_such_a_list(srgan: Run, here: Path) -> None:
    picture(here / "a.png")
    (here / "notes.txt").write_text("to do: everything\n", encoding="utf-8")
    (here / "empty.txt").touch()
    for name in ("a.png", "notes.txt"):
        before = (here / name).read_bytes()
        code, _, err = srgan("a.png", "-o", "b.png", "--failed", name)
        assert code == 2
        assert f"--failed {name} exists already and is no list of pictures" in err
        assert (here / name).read_bytes() == before
    assert not (here / "b.png").exists()
    (here / "list.txt").write_text("a.png\n", encoding="utf-8")
    assert srgan("a.png", "-o", "a.png", "--failed", "list.txt")[0] == 2
    assert (here / "list.txt").read_text(encoding="utf-8") == "a.png\n", "a run that does not begin keeps it"
    for name in ("list.txt", "empty.txt"):
        code, _, err = srgan("a.png", "-o", "b.png", "--overwrite", "--failed", name)
        assert code == 0, err
        assert (here / name).read_bytes() == b""


def test_of_a_long_list_only_the_beginning_is_examined(srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lists, "_MAX_CHECKED_BYTES", 9)
    picture(here / "a.png")
    (here / "list.txt").write_text("x.png\ny.png\n", encoding="utf-8")
    assert srgan("a.png", "-o", "b.png", "--failed", "list.txt")[0] == 0
    (here / "long.txt").write_text("one line of text\n", encoding="utf-8")
    assert srgan("a.png", "-o", "c.png", "--failed", "long.txt")[0] == 2


def test_a_picture_is_no_list_of_names(srgan: Run, here: Path) -> None:
    picture(here / "a.png")
    code, _, err = srgan("--files-from", "a.png", "-o", "out/")
    assert code == 2
    assert "--files-from a.png is no list of names: give a picture itself as an INPUT" in err


def test_the_list_of_what_failed_may_be_impossible_to_write(srgan: Run, here: Path) -> None:
    picture(here / "a.png")
    code, _, err = srgan("a.png", "--failed", "no/folder/list.txt")
    assert code == 2
    assert "--failed" in err
