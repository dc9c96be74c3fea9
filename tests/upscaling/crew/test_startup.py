"""Workers that are started while a run is planned: only if there is work, and ended if the plan is refused."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.errors import DeviceError, SettingsError
from srgan_cli.imaging.reading import read_header
from srgan_cli.sizes import Size
from srgan_cli.upscaling.crew import lead as lead_module
from srgan_cli.upscaling.crew import startup as startup_module
from srgan_cli.upscaling.crew.messages import Brief
from srgan_cli.upscaling.crew.startup import WorkerStartup
from srgan_cli.upscaling.session import Session, prepare
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import Threads
from tests.upscaling.pictures import picture, tree

pytestmark = pytest.mark.timeout(60)


class Agency:
    """In the place of `crew_of`: what was started, and what became of it."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __call__(self, brief: Brief) -> Threads:
        self.events.append("started")
        agency = self

        class Noted(Threads):
            def close(self) -> None:
                agency.events.append("closed")
                super().close()

        one = replace(brief, options=replace(brief.options, engine=replace(brief.options.engine, device="cpu")))
        return Noted(one, ("cpu:1", "cpu:2"))


@pytest.fixture
def agency(monkeypatch: pytest.MonkeyPatch) -> Agency:
    made = Agency()
    monkeypatch.setattr(lead_module, "crew_of", made)
    return made


@pytest.fixture
def nine(tmp_path: Path) -> Path:
    for number in range(9):
        picture(tmp_path / "in" / f"{number}.png", 20 + number, 16, seed=number)
    return tmp_path


def prepared(folder: Path, model: Path, **options: Any) -> Session:
    asked: dict[str, Any] = {
        "inputs": (folder / "in",),
        "output": folder / "out",
        "model": str(model),
        "resume": True,
        "size": Size(scale=2),
        "engine": EngineOptions("cpu:2x1", "fp32", 16),
        **options,
    }
    return prepare(UpscaleOptions(**asked), start_workers=True)


def wait_for(agency: Agency, *events: str) -> bool:
    until = time.monotonic() + 60
    while tuple(agency.events) != events and time.monotonic() < until:
        time.sleep(0.01)
    return tuple(agency.events) == events


def test_a_crew_is_started_before_the_last_header_is_read(
    nine: Path, model: Path, agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def read(source: Any, **options: Any) -> Any:
        if source.name == "8.png":
            seen.append(wait_for(agency, "started"))
        return read_header(source, **options)

    monkeypatch.setattr("srgan_cli.upscaling.inputs.read_header", read)
    made = prepared(nine, model)
    assert seen == [True]
    tally = made.run(Recorder())
    assert (tally.exit_code, len(tally.done), agency.events) == (0, 9, ["started", "closed"])
    assert not [one for one in threading.enumerate() if one.name == "srgan-startup"]


def test_nothing_is_started_where_there_is_nothing_to_do(nine: Path, model: Path, agency: Agency) -> None:
    assert prepared(nine, model).run(Recorder()).exit_code == 0
    del agency.events[:]
    again = prepared(nine, model)
    assert (again.plan.jobs, again.run(Recorder()).exit_code) == ((), 0)
    with pytest.raises(SettingsError, match="exists already"):
        prepared(nine, model, resume=False)
    assert prepared(nine, model, resume=False, skip_existing=True).plan.jobs == ()
    with pytest.raises(SettingsError, match="names one picture"):
        prepared(nine, model, output=nine / "one.png")
    assert agency.events == []


def test_what_is_left_to_do_is_found_late(nine: Path, model: Path, agency: Agency) -> None:
    """Here the results were made with other settings: only the record says so."""
    prepared(nine, model).run(Recorder())
    del agency.events[:]
    made = prepared(nine, model, seed=1, grain=0.5)
    assert (len(made.plan.jobs), agency.events) == (9, [])
    assert made.run(Recorder()).exit_code == 0
    assert agency.events == ["started", "closed"]


def test_a_plan_that_is_refused_ends_what_was_started(nine: Path, model: Path, agency: Agency) -> None:
    picture(nine / "out" / "8.png", 9, 9)
    with pytest.raises(SettingsError, match=r"8\.png exists, but no earlier run made it"):
        prepared(nine, model)
    assert agency.events in ([], ["started", "closed"])
    assert tree(nine / "out") == {"8.png"}


@pytest.mark.parametrize("error", [DeviceError("there is no such cluster"), SettingsError("no Ray")], ids=str)
def test_what_starting_raises_is_raised_by_the_run(
    nine: Path, model: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_brief: Brief) -> Threads:
        raise error

    monkeypatch.setattr(lead_module, "crew_of", refuse)
    made = prepared(nine, model)
    with pytest.raises(type(error), match=str(error)):
        made.run(Recorder())


def test_the_command_starts_nothing_for_a_dry_run(
    nine: Path, model: Path, agency: Agency, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(nine)
    command = ["upscale", "in", "-o", "out/", "--model", str(model), "--scale", "2", "--device", "cpu:2x1"]
    assert main([*command, "--dry-run"]) == 0
    assert main([*command, "--name", "same.png"]) == 2
    assert agency.events in ([], ["started", "closed"])
    del agency.events[:]
    assert main(command) == 0
    assert agency.events == ["started", "closed"]
    assert len(tree(nine / "out")) == 10


# ------------------------------------------------------------------------------------------------------------ by itself


def test_an_unused_crew_is_closed_even_if_it_starts_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_module, "_END_SECONDS", 0.05)
    going, go, closed = threading.Event(), threading.Event(), threading.Event()

    class Late:
        def close(self) -> None:
            closed.set()

    def start() -> Any:
        going.set()
        go.wait()
        return Late()

    one = WorkerStartup(start)
    one.begin()
    assert going.wait(10)
    one.close()  # does not wait for long
    go.set()
    assert closed.wait(10)


def test_one_that_was_never_begun_starts_nothing() -> None:
    def start() -> Any:
        raise AssertionError("this is not called")

    one = WorkerStartup(start, "there.is.no.such.module")
    time.sleep(0.1)
    one.close()
    assert one._ended.is_set()
