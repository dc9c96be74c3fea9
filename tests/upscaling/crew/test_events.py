"""The events of a run with workers are those of a run without, except for order, workers' names and times."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import console
from srgan_cli.cli.console import Watch
from srgan_cli.engine import bands
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError
from srgan_cli.upscaling import journal
from srgan_cli.upscaling.crew import worker
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.session import Session
from tests.faults import at_call
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import Killed, Threads, by_threads, session
from tests.upscaling.pictures import cut_short, picture

pytestmark = pytest.mark.timeout(120)


def told(made: Session, capsys: pytest.CaptureFixture[str], run: Callable[[Watch], Tally]) -> list[dict[str, Any]]:
    """The events of a run in order of their content, without what differs from run to run."""
    with Watch(made, quiet=True, verbose=False, as_json=True) as watch:
        tally = run(watch)
    watch.finish(tally)
    events = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    for event in events:
        event.pop("seconds", None)
        event.pop("network_seconds", None)
        if event["event"] in ("detail", "note"):
            event["text"] = re.sub(r"^cpu:\d: ", "", event["text"])
    return sorted(events, key=json.dumps)


@pytest.mark.parametrize("count", [1, 2])
def test_a_crew_reports_what_a_run_without_one_does(
    twelve: Path, model: Path, capsys: pytest.CaptureFixture[str], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for order, workers' names and times, and the progress inside a picture that takes long: pictures that are
    refused when they are looked at, too."""
    monkeypatch.setattr(console, "_EVENT_SECONDS", 10**9)
    cut_short(twelve / "in" / "bad.jpg")
    picture(twelve / "in" / "changed.png", 9, 9)
    picture(twelve / "in" / "gone.png", 9, 9)
    picture(twelve / "in" / "with_alpha.png", 20, 16, mode="RGBA")
    (twelve / "in" / "no.png").write_bytes(b"no picture")

    def spoilt(out: str) -> Session:
        for name in ("changed", "gone"):
            picture(twelve / "in" / f"{name}.png", 9, 9)
        made = session(twelve, model, output=twelve / out)
        picture(twelve / "in" / "changed.png", 11, 9)
        (twelve / "in" / "gone.png").unlink()
        picture(twelve / out / "05.png", 3, 3)
        return made

    made = spoilt("out")
    alone = told(made, capsys, made.run)
    shutil.rmtree(twelve / "out")
    made = spoilt("out")
    crew = Threads(brief_of(made), tuple(f"cpu:{number}" for number in range(1, count + 1)))
    assert told(made, capsys, lambda watch: lead(made, crew, watch)) == alone
    begun = {Path(event["source"]).name for event in alone if event["event"] == "started"}
    assert not begun & {"changed.png", "gone.png", "no.png"}
    assert {Path(event["source"]).name for event in alone if event["event"] == "failed"} == {
        "bad.jpg", "changed.png", "gone.png", "no.png", "05.png",
    }  # fmt: skip


def test_progress_of_a_picture_that_is_made_again_begins_again(
    twelve: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A worker dies when it has made the last row."""
    real, deaths = Upscaler.upscale_rows, iter([True])

    def upscale_rows(self: Upscaler, source: Any, out: Any, **options: Any) -> None:
        real(self, source, out, **options)
        if next(deaths, False):
            raise Killed

    made = session(twelve, model)
    crew = Threads(brief_of(made), ("cpu:1", "cpu:2"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", upscale_rows)
        events = told(made, capsys, lambda watch: lead(made, crew, watch))
    assert len(crew.replaced) == 1
    assert all(event["done"] <= event["total"] for event in events if event["event"] == "progress")
    assert next(event for event in events if event["event"] == "summary")["done"] == 12


@pytest.mark.parametrize("split_pixels", [10**9, 1000], ids=["one worker", "all workers"])
def test_progress_inside_a_picture_is_reported_with_workers_too(
    large: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, split_pixels: int
) -> None:
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    monkeypatch.setattr(worker, "_PART_SECONDS", 0.0)
    monkeypatch.setattr(console, "_EVENT_SECONDS", 0.0)
    made = session(large, model, split_pixels=split_pixels)
    crew = Threads(brief_of(made), ("cpu:1", "cpu:2"))
    with Watch(made, quiet=True, verbose=False, as_json=True) as watch:
        lead(made, crew, watch)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for job in made.plan.jobs:
        done = [row["done"] for row in rows if row["event"] == "progress" and row["source"] == str(job.source)]
        band_px = 8 * 40 * 16  # a tile's rows
        assert done[-1] == job.network_pixels
        assert any(px % band_px for px in done[:-1]), "between two bands"
        assert all(0 < px <= job.network_pixels for px in done)


def test_what_was_told_as_done_is_not_taken_back(
    large: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the first rows that become final, when others are further."""
    monkeypatch.setattr(console, "_EVENT_SECONDS", 0.0)
    made = session(large, model)
    job = made.plan.jobs[0]
    with Watch(made, quiet=True, verbose=False, as_json=True) as watch:
        watch.started(job)
        watch.computed(job, 500)
        watch.advanced(job, 300)
        watch.computed(job, 150)
        watch.computed(job, 220)
        watch.advanced(job, 500)
        watch.started(job)  # again, since its worker has ended
        watch.advanced(job, 100)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["done"] for row in rows if row["event"] == "progress"] == [500, 500, 520, 800, 100]


def test_rows_of_an_earlier_run_are_reported_as_such_by_workers(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they do not count for the speed."""
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 1000)
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)

    def fail(*_: Any) -> None:
        raise DeviceError("a fault was injected")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bands.HostRunner, "start", at_call(5, bands.HostRunner.start, fail))
        assert session(large, model).run(Recorder()).exit_code == 5
    tally, watch, _ = by_threads(session(large, model))
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    (resumed,) = watch.of("resumed")
    assert resumed > 0
    assert resumed + sum(watch.of("advanced")) == sum(job.network_pixels for job in tally.done)
