"""Failing pictures, writers and devices affect only what they must."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import Upscaler
from srgan_cli.errors import (
    DefectError,
    DeviceError,
    OutOfMemoryError,
    WeightsError,
)
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.reading import open_picture
from srgan_cli.upscaling import intake, pipeline
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.patience import Patience
from tests.faults import at_call, disk_full
from tests.upscaling.batch.runs import Recorder, results, session
from tests.upscaling.pictures import cut_short, picture


def raising(error: BaseException) -> Callable[..., Any]:
    def fault(*_args: object, **_options: object) -> None:
        raise error

    return fault


# --------------------------------------------------------------------------------------------------------- bad pictures


@pytest.mark.parametrize("ahead", [True, False], ids=["read ahead", "read row by row"])
def test_one_bad_picture_in_the_middle(five: Path, model: Path, ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    (five / "c.png").unlink()
    cut_short(five / "c.jpg")
    if not ahead:
        monkeypatch.setattr(pipeline, "READ_AHEAD_BYTES", 0)
    watch = Recorder()
    report = session(five, model).run(watch)
    assert [job.source.name for job in report.done] == ["a.png", "b.png", "d.png", "e.png"]
    (failure,) = report.failures
    assert failure.source == five / "c.jpg"
    assert failure.unreadable
    assert watch.of("failed") == ["c.jpg"]
    assert report.exit_code == 1
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def test_a_picture_that_changed_after_the_plan(five: Path, model: Path) -> None:
    ready = session(five, model)
    picture(five / "b.png", 77, 5)
    (five / "d.png").unlink()
    report = ready.run(Recorder())
    assert {failure.source.name for failure in report.failures} == {"b.png", "d.png"}
    assert results(five.parent / "out") == {"a.png", "c.png", "e.png"}


def test_failures_of_the_plan_are_told_and_counted(five: Path, model: Path) -> None:
    (five / "bad.png").write_bytes(b"")
    watch = Recorder()
    report = session(five, model).run(watch)
    assert watch.events[0] == ("failed", "bad.png")
    assert len(report.done) == 5
    assert report.exit_code == 1


def test_fail_fast_begins_nothing_after_a_failure(five: Path, model: Path) -> None:
    (five / "c.png").unlink()
    cut_short(five / "c.jpg")
    watch = Recorder()
    report = session(five, model, fail_fast=True).run(watch)
    assert watch.of("started")[:2] == ["a.png", "b.png"]
    assert "d.png" not in watch.of("started")
    assert [job.source.name for job in report.done] == ["a.png", "b.png"], "what was finished is written"
    assert report.exit_code == 1
    assert results(five.parent / "out") == {"a.png", "b.png"}


# ---------------------------------------------------------------------------------------------------- writers that fail


def test_a_disk_that_is_full_at_the_third_picture(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "encode", at_call(3, encode, disk_full))
    report = session(five, model).run(Recorder())
    (failure,) = report.failures
    assert failure.source.name == "c.png"
    assert "disk is full" in failure.reason
    assert not failure.unreadable
    assert report.exit_code == 1
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def test_a_disk_that_fills_while_a_picture_is_written(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = encode

    def half(pixels: Any, file: Any, *args: Any) -> Any:
        file.write(b"\x89PNG half")
        disk_full()

    monkeypatch.setattr(writing, "encode", at_call(3, real, half))
    report = session(five, model).run(Recorder())
    assert [failure.source.name for failure in report.failures] == ["c.png"]
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def test_a_disk_that_is_full_when_it_is_synced(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(source: str | Path, target: str | Path, **options: Any) -> None:
        if Path(target).name == "b.png":  # claims are links, too
            disk_full()
        real(source, target, **options)

    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(Path, "replace", disk_full)
    report = session(five, model).run(Recorder())
    assert [failure.source.name for failure in report.failures] == ["b.png"]
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EROFS, errno.ENOTCONN])
def test_an_output_folder_that_a_drive_does_not_give(
    five: Path, model: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = session(five, model)
    monkeypatch.setattr("srgan_cli.upscaling.places.open_folder", raising(OSError(number, os.strerror(number))))
    watch = Recorder()
    report = ready.run(watch)
    assert [failure.source.name for failure in report.failures] == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert all("cannot be written: " in failure.reason for failure in report.failures)
    assert watch.of("failed") == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert report.exit_code == 1
    quick = session(five, model, fail_fast=True)
    assert len(quick.run(Recorder()).failures) == 1


def test_no_room_for_a_scratch_file(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    monkeypatch.setattr(os, "posix_fallocate", at_call(2, os.posix_fallocate, disk_full))
    report = session(five, model).run(Recorder())
    (failure,) = report.failures
    assert failure.source.name == "b.png"
    assert "disk is full" in failure.reason
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_a_result_that_was_there_survives_a_writer_that_fails(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = picture(five.parent / "out/c.png", 3, 3).read_bytes()
    monkeypatch.setattr(writing, "encode", at_call(3, encode, disk_full))
    session(five, model, overwrite=True).run(Recorder())
    assert (five.parent / "out/c.png").read_bytes() == old


def test_a_defect_in_the_writer_costs_one_picture(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "encode", at_call(2, encode, raising(ZeroDivisionError("a defect"))))
    tally = session(five, model, queue_bytes=1).run(Recorder())
    _reported_as_a_defect(tally, "b.png")
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_a_defect_in_the_reader_costs_one_picture(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = session(five, model)
    monkeypatch.setattr(intake, "open_picture", at_call(3, open_picture, raising(ZeroDivisionError("a defect"))))
    _reported_as_a_defect(ready.run(Recorder()), "c.png")
    assert results(five.parent / "out") == {"a.png", "b.png", "d.png", "e.png"}


def _reported_as_a_defect(tally: Tally, name: str) -> None:
    assert [failure.source.name for failure in tally.failures] == [name]
    assert tally.failures[0].kind is DefectError
    assert "Please report this message" in tally.failures[0].reason
    assert tally.exit_code == 1


def test_a_damaged_picture_is_made_when_that_is_accepted(five: Path, model: Path) -> None:
    whole = (five / "c.png").read_bytes()
    data = cut_short(five / "bad.jpg").read_bytes() + b"\xff\xd9"
    (five / "bad.jpg").write_bytes(data)
    refused = session(five, model).run(Recorder())
    assert ([f.source.name for f in refused.failures], refused.exit_code) == (["bad.jpg"], 1)
    assert "premature end" in refused.failures[0].reason
    watch = Recorder()
    accepted = session(five, model, accept_damaged=True, overwrite=True).run(watch)
    assert (len(accepted.done), len(accepted.damaged), accepted.exit_code) == (6, 1, 1)
    assert whole == (five / "c.png").read_bytes()
    again = session(five, model, accept_damaged=True, resume=True)
    assert [job.source.name for job in again.plan.jobs] == ["bad.jpg"]  # it is not forgotten that it was damaged


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".gif", ".jp2"])
def test_what_is_left_of_any_format_is_made_when_that_is_accepted(suffix: str, tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    bad, good = folder / f"bad{suffix}", picture(folder / "good.png", 12, 9)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(bad)
    data = bad.read_bytes()
    bad.write_bytes(data[: int(0.8 * len(data))])
    refused = session(folder, model, inputs=(bad, good)).run(Recorder())
    assert (len(refused.done), len(refused.failures), refused.exit_code) == (1, 1, 1)
    assert "damaged or incomplete" in refused.failures[0].reason
    made = session(folder, model, inputs=(bad, good), accept_damaged=True, overwrite=True).run(Recorder())
    assert (len(made.done), len(made.damaged), len(made.failures), made.exit_code) == (2, 1, 0, 1)


def test_a_picture_that_takes_too_long_is_given_up(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = session(five, model, timeout_s=0.5)
    slow = at_call(2, encode, lambda *a, **k: (time.sleep(0.7), writing_encode(*a, **k))[1])
    writing_encode = encode
    monkeypatch.setattr(writing, "encode", slow)
    tally = ready.run(Recorder())
    assert [failure.source.name for failure in tally.failures] == ["b.png"]
    assert "--timeout 0.5 seconds" in tally.failures[0].reason
    assert results(five.parent / "out") == {"a.png", "c.png", "d.png", "e.png"}


def test_a_slow_picture_is_warned_of_once() -> None:
    said: list[str] = []
    patience = Patience(None, 0.0, said.append)
    patience._spent = 31.0
    patience.check()
    patience.check()
    assert len(said) == 1
    assert "more than 10 times what was expected" in said[0]
    Patience(None, None, said.append).check()
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["started", "advanced", "done"])
def test_an_observer_that_fails_ends_the_run_and_is_no_pictures_fault(five: Path, model: Path, kind: str) -> None:
    """As when the reader of `--json` closes its end."""

    class Gone(Recorder):
        pass

    def gone(*_args: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    watch = Gone()
    setattr(watch, kind, gone)
    failed: list[Failure] = []
    cast(Any, watch).failed = failed.append
    with pytest.raises(BrokenPipeError):
        session(five, model, queue_bytes=1).run(watch)
    assert failed == []
    results(five.parent / "out")


# ---------------------------------------------------------------------------------------------------- devices that fail


@pytest.mark.parametrize("error", [DeviceError("no"), OutOfMemoryError("no"), WeightsError("not finite")])
def test_a_device_that_fails_ends_the_run_and_what_was_done_is_kept(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Upscaler, "upscale_rows", at_call(3, Upscaler.upscale_rows, raising(error)))
    report = session(five, model).run(Recorder())
    assert type(report.error) is type(error)
    assert report.exit_code == report.error.exit_code
    assert results(five.parent / "out") == {"a.png", "b.png"}


def test_weights_that_vanish_before_the_run(five: Path, model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(model.read_bytes())
    ready = session(five, own)
    own.unlink()
    report = ready.run(Recorder())
    assert isinstance(report.error, WeightsError)
    assert report.exit_code == 4
