"""`srgan upscale`: its exit codes, and messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from tests.cli.upscale.commands import Run, events
from tests.faults import at_call, disk_full
from tests.upscaling.pictures import cut_short, picture, tree

# ------------------------------------------------------------------------------------------------------- the exit codes


def bad_and_good(_here: Path) -> None:
    picture(Path("a.png"))
    Path("bad.png").write_bytes(b"no picture")


def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fault(*_args: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr("srgan_cli.engine.chain.Chain.subpixels", fault)


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Upscaler, "upscale_rows", fault)


@pytest.mark.parametrize(
    ("code", "arguments", "fault"),
    [
        (0, ["a.png", "-o", "out.png"], None),
        (0, ["a.png", "-o", "new/folder/out.webp"], None),
        (0, ["a.png"], None),
        (0, ["a.png", "-o", "/dev/null", "--format", "png"], None),
        (0, ["a.png", "--dry-run"], None),
        (0, ["a.png", "--quality", "80"], None),  # folders are mixed: it is for those of them that have a quality
        (1, ["a.png", "bad.png", "-o", "out/"], None),
        (1, ["a.png", "missing.png", "-o", "out/"], None),
        (1, ["bad.png", "a.png", "-o", "out/", "--fail-fast"], None),
        (1, ["a.png", "-o", "/".join(["z" * 200] * 25) + "/out.png"], None),  # a longer path than Linux takes
        (1, ["a.png", "-o", "x" * 256 + "/"], None),
        (1, ["a.png", "-o", "x" * 252 + ".png"], None),
        (2, ["a.png", "-o", ""], None),
        (2, [], None),
        (2, ["a.png", "--scale", "1"], None),
        (2, ["a.png", "--scale", "17"], None),
        (2, ["a.png", "--scale", "x"], None),
        (2, ["a.png", "--scale", "2", "--width", "9"], None),
        (2, ["a.png", "--width", "3"], None),
        (2, ["a.png", "--fit", "large"], None),
        (2, ["a.png", "--tile", "0"], None),
        (2, ["a.png", "--tile", "-1"], None),
        (2, ["a.png", "--tile", "²"], None),
        (2, ["a.png", "--device", "tpu"], None),
        (2, ["a.png", "--precision", "int8"], None),
        (2, ["a.png", "--quality", "0"], None),
        (2, ["a.png", "--quality", "80", "--format", "png"], None),
        (2, ["a.png", "--png-level", "10"], None),
        (2, ["a.png", "--format", "psd"], None),
        (2, ["a.png", "--background", "nocolour"], None),
        (2, ["a.png", "--name", "{nothing}"], None),
        (2, ["a.png", "--no-such-option"], None),
        (2, ["a.png", "-o", "a.png"], None),
        (2, ["a.png", "-o", "a.png", "--overwrite"], None),
        (2, ["a.png", "-o", "out.xyz"], None),
        (2, ["a.png", "-o", "there.png"], None),
        (2, ["a.png", "--overwrite", "--resume"], None),
        (2, ["a.png", "bad.png", "-o", "one.png"], None),
        (2, ["a.png", "-o", "-", "--json"], None),
        (2, ["-", "--files-from", "-"], None),
        (2, ["--files-from", "no-list.txt"], None),
        (3, ["missing.png"], None),
        (3, ["x" * 252 + ".png"], None),
        (3, ["bad.png"], None),
        (3, ["bad.png", "missing.png", "-o", "out/"], None),
        (3, ["empty/"], None),
        (3, ["bad.png", "--dry-run"], None),
        (3, ["--files-from", "empty.txt"], None),
        (4, ["a.png", "-m", "no-such-model"], None),
        (4, ["a.png", "-m", "missing.safetensors"], None),
        (4, ["a.png", "-m", "x" * 256], None),
        (4, ["a.png", "-m", "bad.safetensors"], None),
        (4, ["a.png", "-m", "empty/"], None),
        (5, ["a.png", "--device", "cuda:99"], None),
        (5, ["a.png", "-o", "out.png"], out_of_memory),
        (130, ["a.png", "-o", "out.png"], interrupt),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_exit_codes(
    srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch, code: int, arguments: list[str],
    fault: Callable[[pytest.MonkeyPatch], None] | None,
) -> None:  # fmt: skip
    bad_and_good(here)
    picture(Path("there.png"))
    Path("empty").mkdir()
    Path("empty.txt").touch()
    Path("bad.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    if fault is not None:
        fault(monkeypatch)
    before = tree(here)
    got, out, err = srgan(*arguments, stdin=b"")
    assert got == code, err
    if "--dry-run" not in arguments:
        assert out == b""
    if code == 0:
        assert ": 48×36, " in err or "--dry-run" in arguments
    if code not in (0, 1):
        assert err.strip() or out.strip(), "an error is reported"
        assert tree(here) == before, "and nothing has been made"
    if code in (2, 4, 5):
        assert err.startswith(("srgan: ", "Usage: ")) or "note: out of memory" in err, err


def test_exit_code_1_when_a_result_cannot_be_written(srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        picture(here / "in" / f"{name}.png")
    monkeypatch.setattr(writing, "encode", at_call(3, encode, disk_full))
    code, _, err = srgan("in", "-o", "out/")
    assert code == 1
    assert "c.png" in err
    assert "disk is full" in err
    assert "2 done, 1 failed" in err


# ------------------------------------------------------------------------------------------------------------- messages


def test_events(srgan: Run, here: Path) -> None:
    picture(here / "in/a.png")
    picture(here / "in/b.png")
    picture(here / "out/b.png")
    (here / "in/c.png").write_bytes(b"")
    code, out, err = srgan("in", "-o", "out/", "--skip-existing", "--json")
    assert code == 1
    told = events(out)
    assert [event["event"] for event in told if event["event"] not in ("progress", "detail")] == [
        "plan", "skipped", "failed", "started", "done", "summary",
    ]  # fmt: skip
    by_kind = {event["event"]: event for event in told}
    assert by_kind["plan"]["pictures"] == 1
    assert by_kind["skipped"]["source"] == "in/b.png"
    assert by_kind["failed"]["source"] == "in/c.png"
    assert by_kind["failed"]["reason"]
    assert by_kind["done"]["target"] == "out/a.png"
    assert (by_kind["done"]["width"], by_kind["done"]["height"]) == (48, 36)
    assert by_kind["progress"]["done"] == by_kind["progress"]["total"] == 48 * 36
    summary = by_kind["summary"]
    assert (summary["done"], summary["skipped"], summary["failed"], summary["exit_code"]) == (1, 1, 1, 1)
    assert "c.png" in err, "people are told too"


def test_events_hold_names_of_any_bytes(srgan: Run, here: Path) -> None:
    name = os.fsdecode(b"\xff\n.png")
    picture(here / name)
    code, out, _ = srgan("--json", "--", name)
    assert code == 0
    assert {event["source"] for event in events(out) if "source" in event} == {name}


def test_quiet_says_nothing_but_errors(srgan: Run, here: Path) -> None:
    bad_and_good(here)
    code, out, err = srgan("a.png", "-o", "out.png", "-q")
    assert (code, out, err) == (0, b"", "")
    code, out, err = srgan("a.png", "bad.png", "-o", "out/", "-q")
    assert (code, out) == (1, b"")
    assert "bad.png" in err
    assert len(err.splitlines()) == 1


def test_verbose_tells_each_picture_and_why(srgan: Run, here: Path) -> None:
    picture(here / "a.png")
    _, _, err = srgan("a.png", "-o", "out.png", "-v", "--precision", "fp32")
    assert "a.png -> out.png" in err
    assert "48x36" in err
    assert "device cpu: asked for" in err
    assert "precision fp32: asked for" in err


def test_no_colours_and_no_progress_bar_in_a_pipe(srgan: Run, here: Path) -> None:
    bad_and_good(here)
    _, _, err = srgan("a.png", "bad.png", "-o", "out/")
    assert "\x1b" not in err
    assert "\r" not in err
    assert "what failed" not in err or err.count("bad.png") >= 2


def test_each_failure_is_one_line_and_listed_at_the_end(srgan: Run, here: Path) -> None:
    picture(here / "in/a.png")
    for number in range(3):
        (here / f"in/bad{number}.png").write_bytes(b"")
    cut_short(here / "in/cut.jpg")
    _, _, err = srgan("in", "-o", "out/")
    for name in ("bad0.png", "bad1.png", "bad2.png", "cut.jpg"):
        assert sum(name in line for line in err.splitlines()) == 2
    assert "1 done, 4 failed" in err.splitlines()[-1]
    assert "\n\n" not in err


def test_names_cannot_command_the_terminal(srgan: Run, here: Path) -> None:
    name = "\x1b[31mred\x1b]0;title\x07.png"
    (here / name).write_bytes(b"")
    picture(here / "a.png")
    _, _, err = srgan("a.png", name, "-o", "out/")
    assert "\x1b" not in err
    assert "\x07" not in err
    assert "red" in err


def test_markup_in_names_is_no_markup(srgan: Run, here: Path) -> None:
    picture(here / "[red]a[/].png")
    (here / "[bold]b.png").write_bytes(b"")
    code, _, err = srgan(here / "[red]a[/].png", "[bold]b.png", "-o", "out/", "-v")
    assert code == 1
    assert "[red]a[/].png" in err
    assert "[bold]b.png" in err
