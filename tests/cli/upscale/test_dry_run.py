"""`srgan upscale`: dry runs and help, both without torch; and `srgan doctor`."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from srgan_cli.cli import cli, main
from srgan_cli.errors import ExitCode
from tests.cli.upscale.commands import Run, events
from tests.upscaling.pictures import picture, tree

# ------------------------------------------------------------------------------------------------------------- dry runs


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


# ----------------------------------------------------------------------------------------------------------------- help


def test_help_is_instant_and_without_torch(here: Path) -> None:
    loaded, out = heavy_imports_of(call("--help"), here)
    assert loaded == set()
    assert "upscale" in out

    def seconds(*arguments: str) -> float:
        """Of the processor: what the clock says depends on who shares the machine."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # 0.1 s on an idle machine; one of three attempts should run undisturbed.
    assert any(seconds("-m", "srgan_cli", "--help") < 0.9 + 2 * seconds("-c", "pass") for _ in range(3))


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
