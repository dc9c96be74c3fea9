"""Pictures handed out to workers: each is made once and bit-identical, whichever worker fails or dies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DefectError, DeviceError, SettingsError, WeightsError
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.crew.messages import Pictures
from srgan_cli.upscaling.crew.roster import UNITS
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import Killed, Threads, by_threads, is_as_without_a_crew, session
from tests.upscaling.pictures import cut_short, picture

pytestmark = pytest.mark.timeout(120)


def test_pictures_are_divided_and_are_the_same(twelve: Path, model: Path) -> None:
    tally, watch, crew = by_threads(session(twelve, model))
    assert (tally.exit_code, len(tally.done)) == (0, 12)
    assert {worker for worker, _ in crew.units} == {"cpu:1", "cpu:2"}
    assert sorted(watch.of("done")) == sorted(watch.of("started")) == sorted(p.name for p in (twelve / "in").iterdir())
    assert sum(watch.of("advanced")) == tally.network_pixels == sum(job.network_pixels for job in tally.done)
    assert is_as_without_a_crew(twelve, model)
    assert not session(twelve, model).plan.jobs, "the record knows them all"
    rows = [json.loads(row) for row in (twelve / "out" / FILE_NAME).read_text().splitlines() if row]
    assert len(rows) == 24


def test_a_device_that_fails_is_left_out_and_its_pictures_are_made(twelve: Path, model: Path) -> None:
    def deed(name: str, number: int, job: Job) -> None:
        if name == "cpu:2":
            raise DeviceError("a fault was injected")

    tally, watch, crew = by_threads(session(twelve, model), deed, count=3)
    assert (tally.exit_code, len(tally.done), tally.failures) == (0, 12, [])
    assert watch.of("note") == ["cpu:2 is left out, and 2 others continue: a fault was injected"]
    assert len([worker for worker, _ in crew.units if worker == "cpu:2"]) <= UNITS
    assert is_as_without_a_crew(twelve, model)


def test_the_last_device_that_fails_ends_the_run(twelve: Path, model: Path) -> None:
    def deed(name: str, number: int, job: Job) -> None:
        if number > 4:
            raise DeviceError("a fault was injected")

    tally, watch, _ = by_threads(session(twelve, model), deed)
    assert tally.exit_code == 5
    assert 3 <= len(tally.done) <= 4
    assert len(watch.of("note")) == 1
    assert len(list((twelve / "out").glob("*.png"))) == len(tally.done)
    tally, _, _ = by_threads(session(twelve, model))
    assert (tally.exit_code, is_as_without_a_crew(twelve, model)) == (0, True)


def test_weights_that_are_damaged_end_the_run_at_once(twelve: Path, model: Path) -> None:
    def deed(name: str, number: int, job: Job) -> None:
        raise WeightsError("not finite")

    tally, watch, _ = by_threads(session(twelve, model), deed)
    assert (tally.exit_code, tally.done, watch.of("note")) == (4, [], [])


def test_a_worker_that_dies_is_replaced_and_its_pictures_are_made(twelve: Path, model: Path) -> None:
    def deed(name: str, number: int, job: Job) -> None:
        if number in (1, 5):
            raise Killed

    tally, watch, crew = by_threads(session(twelve, model), deed)
    assert (tally.exit_code, len(tally.done), tally.failures) == (0, 12, [])
    assert len(crew.replaced) == 2
    assert all("has ended with signal SIGKILL; another takes its place" in note for note in watch.of("note"))
    assert is_as_without_a_crew(twelve, model)


def test_a_picture_that_kills_its_workers_fails_after_three(twelve: Path, model: Path) -> None:
    def deed(name: str, number: int, job: Job) -> None: ...

    made = session(twelve, model)
    crew = Threads(brief_of(made), ("cpu:1", "cpu:2"), deed)
    poisonous = made.plan.jobs[3].target
    real = Upscaler.upscale_rows

    def upscale_rows(self: Upscaler, source: Any, out: Any, **options: Any) -> None:
        if out.shape[1] == 23 * 2:
            raise Killed
        real(self, source, out, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", upscale_rows)
        tally = lead(made, crew, Recorder())
    (failure,) = tally.failures
    assert (failure.target, failure.kind, tally.exit_code) == (poisonous, DefectError, 1)
    assert failure.reason == ("each of the 3 workers that tried to make it has ended, the last with signal SIGKILL")
    assert len(tally.done) == 11
    assert [unit.jobs[0].target for _, unit in crew.units if isinstance(unit, Pictures)].count(poisonous) >= 2


def test_bad_pictures_are_reported_as_without_a_crew(twelve: Path, model: Path) -> None:
    cut_short(twelve / "in" / "bad.jpg")
    tally, watch, _ = by_threads(session(twelve, model))
    assert (len(tally.done), tally.exit_code, watch.of("failed")) == (12, 1, ["bad.jpg"])
    assert "premature end" in tally.failures[0].reason


def test_fail_fast_begins_nothing_more(twelve: Path, model: Path) -> None:
    cut_short(twelve / "in" / "000.jpg")
    tally, _, _ = by_threads(session(twelve, model, fail_fast=True))
    assert tally.cut_short
    assert tally.exit_code == 1
    assert len(tally.done) < 12


def test_a_result_that_appears_meanwhile_is_left_alone(twelve: Path, model: Path) -> None:
    made = session(twelve, model)
    mine = picture(twelve / "out" / "05.png", 3, 3).read_bytes()
    tally, _, _ = by_threads(made)
    assert [failure.source.name for failure in tally.failures] == ["05.png"]
    assert (twelve / "out" / "05.png").read_bytes() == mine
    with pytest.raises(SettingsError, match=r"05\.png exists, but no earlier run made it"):
        session(twelve, model)


def test_workers_of_one_machine_share_what_may_be_held(twelve: Path, model: Path) -> None:
    brief = brief_of(session(twelve, model))
    assert brief.for_one_of(1) == brief
    assert brief.for_one_of(4).options.queue_bytes == 128 << 20
    assert brief.for_one_of(1000).options.queue_bytes == 64 << 20
    small = brief_of(session(twelve, model, queue_bytes=5))
    assert small.for_one_of(2).options.queue_bytes == 5
