"""`srgan upscale` as a person or a script uses it: exit codes, streams, lists, events."""

from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import cli, main
from srgan_cli.errors import ExitCode
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from srgan_cli.upscaling.engine import Upscaler
from tests.faults import at_call, disk_full, save_tiny
from tests.upscaling.pictures import cut_short, picture, tree

pytestmark = pytest.mark.timeout(120)

Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors", 4, features=4)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


@pytest.fixture
def srgan(model: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`srgan upscale ARGUMENTS` in this process -> exit code, stdout, stderr."""

    def run(*arguments: str | Path, stdin: bytes | None = None) -> tuple[int, bytes, str]:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", _Stdin(stdin))
        settings = [] if "--device" in arguments else ["--device", "cpu"]
        settings += [] if "--precision" in arguments else ["--precision", "fp32"]
        settings += [] if "-m" in arguments else ["-m", str(model)]
        code = main(["upscale", *settings, *map(str, arguments)])
        out, err = capfdbinary.readouterr()
        assert b"Traceback" not in err
        return code, out, err.decode()

    return run


def child(*arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "srgan_cli", *arguments], input=stdin, capture_output=True, timeout=60, cwd=cwd
    )


def size_of(file: Path | bytes) -> tuple[int, int]:
    with Pillow.open(io.BytesIO(file) if isinstance(file, bytes) else file) as result:
        result.load()
        return result.size


# ---------------------------------------------------------------------------------------------------- the exit codes


def bad_and_good(_here: Path) -> None:
    picture(Path("a.png"))
    Path("bad.png").write_bytes(b"no picture")


def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fault(*_args: object, **_options: object) -> None:
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr("srgan_cli.upscaling.chain.Chain.subpixels", fault)


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
        (0, ["a.png", "--dry-run"], None),
        (0, ["a.png", "--quality", "80"], None),  # folders are mixed: it is for those of them that have a quality
        (1, ["a.png", "bad.png", "-o", "out/"], None),
        (1, ["a.png", "missing.png", "-o", "out/"], None),
        (1, ["bad.png", "a.png", "-o", "out/", "--fail-fast"], None),
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
        (3, ["bad.png"], None),
        (3, ["bad.png", "missing.png", "-o", "out/"], None),
        (3, ["empty/"], None),
        (3, ["bad.png", "--dry-run"], None),
        (3, ["--files-from", "empty.txt"], None),
        (4, ["a.png", "-m", "no-such-model"], None),
        (4, ["a.png", "-m", "missing.safetensors"], None),
        (4, ["a.png", "-m", "bad.safetensors"], None),
        (4, ["a.png", "-m", "empty/"], None),
        (5, ["a.png", "--device", "cuda:99"], None),
        (5, ["a.png", "-o", "out.png"], out_of_memory),
        (130, ["a.png", "-o", "out.png"], interrupt),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
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
        assert err.strip() or out.strip(), "an error is told"
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


# ------------------------------------------------------------------------------------------------- stdin and stdout


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
    done = child("upscale", "-", "-o", "-", "-m", str(model), "--device", "cpu", stdin=data)
    assert done.returncode == 0, done.stderr
    assert size_of(done.stdout) == (48, 36)


def test_a_reader_that_goes_away_is_no_traceback(here: Path, model: Path) -> None:
    for i in range(4):
        picture(here / "in" / f"{i}.png", seed=i)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "srgan_cli", "upscale", "in", "-o", "out/", "--json", "--device", "cpu"]
    try:
        done = subprocess.run([*command, "-m", str(model)], stdout=write, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert not [name for name in tree(here / "out") if name.endswith(".part")]


# ---------------------------------------------------------------------------------------------------- lists of names


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


def test_the_list_of_what_failed_may_be_impossible_to_write(srgan: Run, here: Path) -> None:
    picture(here / "a.png")
    code, _, err = srgan("a.png", "--failed", "no/folder/list.txt")
    assert code == 2
    assert "--failed" in err


# ---------------------------------------------------------------------------------------------------------- messages


def events(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


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


# ----------------------------------------------------------------------------------------------------------- dry runs


def test_a_dry_run_tells_the_plan_and_does_nothing(srgan: Run, here: Path) -> None:
    long = "a rather long name, as scanners and people give them, of more than eighty characters in all.png"
    picture(here / "in" / long, 20, 10)
    picture(here / "in/b.png", 30, 10)
    (here / "in/bad.png").write_bytes(b"")
    before = tree(here)
    code, out, err = srgan("in", "-o", "out/", "--dry-run", "--scale", "2.5")
    text = out.decode()
    assert code == 1, err
    assert tree(here) == before
    assert not (here / "out").exists()
    assert f"in/{long}" in text, "a name in a pipe is whole"
    assert f"out/{long}" in text
    assert "50x25" in text
    assert "75x25" in text
    assert "resampled" in text
    assert "bad.png" in text
    assert "2 to do" in text
    assert "memory" in text


def test_a_dry_run_as_events(srgan: Run, here: Path) -> None:
    picture(here / "in/a.png", 20, 10)
    code, out, _ = srgan("in", "-o", "out/", "-n", "--json")
    assert code == 0
    planned, total = events(out)
    assert planned["event"] == "planned"
    assert (planned["width"], planned["height"], planned["networks"]) == (80, 40, [4])
    assert total["event"] == "total"
    assert total["pictures"] == 1
    assert total["network_pixels"] == 3200
    assert tree(here) == {"in/a.png"}


def test_a_dry_run_knows_the_time_after_a_run(srgan: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    picture(here / "large.png", 600, 500)
    picture(here / "a.png")
    assert srgan("large.png", "-o", "out.png")[0] == 0
    code, out, _ = srgan("a.png", "-n")
    assert code == 0
    assert b"time: about" in out
    (*_, total) = events(srgan("a.png", "-n", "--json")[1])
    assert total["estimated_seconds"] > 0
    assert total["measured_on"]["device"] == "cpu"


_HEAVY = ("torch", "torchvision", "cv2", "spandrel")


def heavy_imports_of(code: str, cwd: Path) -> tuple[set[str], str]:
    """Run code in a fresh interpreter -> which heavy modules it has loaded, and its stdout."""
    tell = f"\nimport sys; sys.stderr.write('LOADED ' + ' '.join(m for m in {_HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + tell], capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rsplit("LOADED", 1)[1].split()), done.stdout


def call(*arguments: str) -> str:
    return f"from srgan_cli.cli import main; code = main({list(arguments)!r}); assert code == 0, code"


@pytest.mark.parametrize("model_of", ["bundled", "own"])
def test_a_dry_run_is_without_torch(here: Path, model: Path, model_of: str) -> None:
    picture(here / "in/a.png")
    picture(here / "in/b.jpg")
    options = ["-m", str(model)] if model_of == "own" else []
    loaded, out = heavy_imports_of(call("upscale", "in", "-o", "out/", "--dry-run", *options), here)
    assert loaded == set()
    assert "2 to do" in out
    assert tree(here) == {"in/a.png", "in/b.jpg"}


# -------------------------------------------------------------------------------------------------------------- help


def test_help_is_instant_and_without_torch(here: Path) -> None:
    loaded, out = heavy_imports_of(call("--help"), here)
    assert loaded == set()
    assert "upscale" in out

    def seconds(arguments: Sequence[str]) -> float:
        def once() -> float:
            # Of the processor, and the least of three: what the clock says depends on who shares the machine.
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=60)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        return min(once() for _ in range(3))

    took = seconds(["-m", "srgan_cli", "--help"])
    # 0.1 s on a machine of its own.
    assert took < 0.9 + 2 * seconds(["-c", "pass"])


@pytest.mark.parametrize("command", sorted(cli.list_commands(None)))  # type: ignore[arg-type]
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: srgan {command}")
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("arguments", [["-h"], ["upscale", "-h"], ["upscale"]])
def test_help_is_easily_asked_for(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) in (0, 2)
    shown = capsys.readouterr()
    assert "Usage: srgan" in shown.out + shown.err
    assert "Options:" in shown.out + shown.err


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2), (["\udcff"], 2)])
def test_the_command_itself(arguments: list[str], code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    assert "Traceback" not in capfd.readouterr().err


def test_help_tells_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert all(f"{int(code)} {code.meaning}" in out for code in ExitCode)


# ----------------------------------------------------------------------------------------------------------- options


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
    done = child("upscale", name, bad, "-o", "out/", "-v", "-m", str(model), "--device", "cpu", cwd=here)
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
    picture(here / "a.png", 50, 40)
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


# ------------------------------------------------------------------------------------------------------------- doctor


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
        (["a.png", "-o", "b.png", "--format", "jpeg"], "another format"),
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
    assert b"2 NEF (raw files of cameras" in out
    assert b"1 MOV (films)" in out
    assert b"--recursive" in out
    assert b"TXT" not in out
