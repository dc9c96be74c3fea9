"""Ctrl-C and signals end a run without partial results, and it can be resumed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srgan_cli import Upscaler
from srgan_cli.cli import main
from srgan_cli.config import EngineOptions
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests import commands
from tests.faults import at_call
from tests.upscaling.batch.runs import Recorder, pixels_of, results, session
from tests.upscaling.pictures import picture, tree

# --------------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("scratch", [False, True], ids=["in memory", "in a scratch file"])
def test_ctrl_c_while_the_second_picture_is_upscaled(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
) -> None:
    if scratch:
        monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)

    def half_way(upscaler: Upscaler, source: Any, out: Any, *, on_rows: Callable[[int], None], **_: Any) -> None:
        out[:8] = 1
        on_rows(2)
        raise KeyboardInterrupt

    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(2, Upscaler.upscale_rows, half_way))
    report = session(five, model).run(Recorder())
    assert report.interrupted
    assert report.exit_code == 130
    assert results(five.parent / "out") <= {"a.png"}
    assert {job.source.name for job in report.done} == {Path(n).name for n in results(five.parent / "out")}


def test_ctrl_c_while_a_picture_is_encoded(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, real_run = threading.Event(), Upscaler.upscale_rows

    def slow(pixels: Any, file: Any, *args: Any) -> Any:
        encoding.set()
        for _ in range(3000):
            file.write(b"x")
            time.sleep(0.01)
        raise AssertionError("it was not stopped")

    def interrupted(*_args: Any, **_options: Any) -> None:
        assert encoding.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "encode", slow)
    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(2, real_run, interrupted))
    began = time.monotonic()
    report = session(five, model).run(Recorder())
    assert report.exit_code == 130
    assert time.monotonic() - began < 20
    assert results(five.parent / "out") == set()


def test_ctrl_c_while_the_writer_catches_up(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_encode, calls = encode, []

    def late(*args: Any) -> Any:
        calls.append(1)
        time.sleep(0.2)  # by now everything else is done
        if len(calls) == 1:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # where the kernel delivers Ctrl-C
            time.sleep(0.2)
        return real_encode(*args)

    monkeypatch.setattr(writing, "encode", late)
    report = session(five, model).run(Recorder())
    assert report.exit_code == 130
    assert len(report.done) < 5
    assert {f"{job.target.name}" for job in report.done} == results(five.parent / "out")


@pytest.mark.parametrize("scratch", [False, True], ids=["in memory", "in a scratch file"])
def test_resume_after_ctrl_c_gives_what_an_undisturbed_run_gives(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, scratch: bool
) -> None:
    if scratch:
        monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    small = EngineOptions("cpu", "fp32", 4)
    session(five, model, output=five.parent / "plain", engine=small).run(Recorder())

    real, calls = Upscaler.upscale_rows, []

    def stopped(upscaler: Upscaler, source: Any, out: Any, *, on_rows: Callable[[int], None], **more: Any) -> None:
        calls.append(1)
        rows = []

        def count(number: int) -> None:
            on_rows(number)
            rows.append(number)
            if len(calls) == 3 and len(rows) == 2:
                raise KeyboardInterrupt

        real(upscaler, source, out, on_rows=count, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", stopped)
        first = session(five, model, engine=small, resume=True).run(Recorder())
    assert first.interrupted
    second = session(five, model, engine=small, resume=True).run(Recorder())
    assert second.exit_code == 0
    assert len(first.done) + len(second.done) == 5
    assert len(second.skips) == len(first.done)
    assert results(five.parent / "out") == results(five.parent / "plain")
    for name in "abcde":
        again, plain = (pixels_of(five.parent / f / f"{name}.png") for f in ("out", "plain"))
        assert np.abs(again.astype(int) - plain).max() <= 1


# ---------------------------------------------------------------------------------------------------- signals, for real


_SLOWLY = """
import time
from srgan_cli.engine.upscaler import Upscaler
real = Upscaler.upscale_rows
def slow(*args, **options):
    time.sleep(0.1)
    real(*args, **options)
Upscaler.upscale_rows = slow
"""


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        signal.SIGKILL,
    ],
    ids=["INT", "TERM", "HUP", "KILL"],
)
def test_a_run_that_is_killed_goes_on_with_resume(
    tmp_path: Path, model: Path, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    many = {f"{i:02}.png" for i in range(20)}
    for i, name in enumerate(sorted(many)):
        picture(tmp_path / "in" / name, seed=i)
    out = tmp_path / "out"
    arguments = ["upscale", f"{tmp_path / 'in'}", "-o", f"{out}/", "-m", f"{model}", "--device", "cpu"]
    with commands.Command(*arguments, prelude=_SLOWLY) as child:
        deadline = time.monotonic() + 150  # a busy machine takes a while
        while not (out / "03.png").exists() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(number)
        stdout, said = child.communicate(timeout=20)
    stderr = said.decode()
    if number == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL
        for left in tree(out) - many - {FILE_NAME}:
            assert left.startswith("."), "no program takes it for a picture"
    else:
        assert child.returncode == 130, stderr
        assert "interrupted" in stderr
        assert "Traceback" not in stderr
        assert tree(out) <= many | {FILE_NAME}
    assert stdout == b""

    done = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
    assert 4 <= len(done) < 20
    assert main([*arguments, "--resume", "--json"]) == 0
    assert {path.name for path in out.glob("*.png")} == many
    again = {name for name, when in done.items() if (out / name).stat().st_mtime_ns != when}
    # Between a result's last rename and the record's line a run may be killed; that one is made again.
    assert len(again) <= (1 if number == signal.SIGKILL else 0)
    assert capfd.readouterr().out.count('"event": "done"') == 20 - len(done) + len(again)
