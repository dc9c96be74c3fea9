"""Several workers for one run: everything is made once and to the bit, whoever fails or dies."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srgan_cli.config import EngineOptions, RayOptions, WorkerOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DefectError, DeviceError, SettingsError, WeightsError
from srgan_cli.imaging.reading import read_image
from srgan_cli.sizes import Size
from srgan_cli.upscaling import journal
from srgan_cli.upscaling.crew import lead as lead_module
from srgan_cli.upscaling.crew import worker
from srgan_cli.upscaling.crew.lead import brief_of, crew_of, lead
from srgan_cli.upscaling.crew.luggage import packed, unpacked
from srgan_cli.upscaling.crew.messages import Look, Pictures, Piece
from srgan_cli.upscaling.crew.roster import Roster
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.session import Session
from srgan_cli.upscaling.shelves import FILE_NAME
from tests.faults import Nearest, model_of
from tests.upscaling import crews
from tests.upscaling.batch import runs
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import Deed, Killed, Threads, third_dies_and_fifth_fails
from tests.upscaling.pictures import cut_short, picture, tree

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    for number in range(12):
        picture(tmp_path / "in" / f"{number:02}.png", 20 + number, 16, seed=number)
    return tmp_path


def session(folder: Path, model: Path, **options: Any) -> Session:
    return runs.session(
        folder / "in",
        model,
        **{"engine": EngineOptions("cpu", "fp32", 8), "resume": True, "size": Size(scale=2), **options},
    )


def by_threads(made: Session, deed: Deed = lambda *_: None, *, count: int = 2) -> tuple[Tally, Recorder, Threads]:
    crew = Threads(brief_of(made), tuple(f"cpu:{number}" for number in range(1, count + 1)), deed)
    watch = Recorder()
    return lead(made, crew, watch), watch, crew


def is_as_without_a_crew(folder: Path, model: Path, **options: Any) -> bool:
    assert not session(folder, model, output=folder / "alone", **options).run(Recorder()).failures
    assert tree(folder / "out") == tree(folder / "alone")
    return all(
        (folder / "out" / path.name).read_bytes() == path.read_bytes() for path in (folder / "alone").glob("*.png")
    )


# ----------------------------------------------------------------------------------------------------------- pictures


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
    assert watch.of("note") == ["cpu:2 is left out, and 2 others go on: a fault was injected"]
    assert len([worker for worker, _ in crew.units if worker == "cpu:2"]) == 1
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


def test_a_picture_that_kills_whoever_makes_it_fails_after_three(twelve: Path, model: Path) -> None:
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


# ------------------------------------------------------------------------------------------------------ large pictures


def test_workers_that_see_nothing_get_pictures_and_send_results_back(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever dies is replaced, and whoever has its name then is asked again."""
    monkeypatch.setattr(worker, "_holds", lambda *_: False)
    monkeypatch.setattr(Threads, "sees_all", False)
    (twelve / "in" / "05.png").write_bytes(b"no picture")
    picture(twelve / "out" / "07.png", 9, 9)  # by nobody

    def deed(name: str, number: int, job: Job) -> None:
        if number == 4:
            raise Killed

    made = session(twelve, model, overwrite=True, resume=False)
    (twelve / "in" / "06.png").unlink()
    tally, watch, crew = by_threads(made, deed)
    assert sorted(failure.source.name for failure in tally.failures) == ["05.png", "06.png"]
    assert len(tally.done) == 10
    units = [unit for _, unit in crew.units if isinstance(unit, Pictures)]
    assert all(unit.blind and len(unit.jobs) == 1 and unit.jobs[0].data for unit in units)
    assert len([unit for _, unit in crew.units if isinstance(unit, Look)]) == 3
    assert any("does not see the folders" in sentence for sentence in watch.of("detail"))
    picture(twelve / "in" / "06.png", 26, 16, seed=6)
    (twelve / "in" / "05.png").unlink()
    again = session(twelve, model)
    assert [job.source.name for job in again.plan.jobs] == ["06.png"], "the record knows the others"
    again.run(Recorder())
    assert is_as_without_a_crew(twelve, model)
    assert not list((twelve / "out").glob(".srgan-probe*"))


class Loads:
    """What is on its way between a crew and who leads it: the most at a time, in bytes."""

    def __init__(self, patch: pytest.MonkeyPatch, limit: int) -> None:
        self.most = 0
        self.fits: list[bool] = []
        patch.setattr(lead_module, "free_host_bytes", lambda: 4 * limit)
        real = Roster.reserve

        def reserve(roster: Roster, worker: str, freight: int) -> bool:
            got = real(roster, worker, freight)
            self.fits.append(got)
            self.most = max(self.most, sum(roster._freight[one] for one in roster.busy))
            return got

        patch.setattr(Roster, "reserve", reserve)


@pytest.mark.parametrize(("limit", "together"), [(1, 1), (5_000, 2), (1 << 30, 4)])
def test_what_travels_to_workers_and_back_is_bounded_in_bytes(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch, limit: int, together: int
) -> None:
    monkeypatch.setattr(worker, "_holds", lambda *_: False)
    monkeypatch.setattr(Threads, "sees_all", False)
    made = session(twelve, model, queue_bytes=1)
    largest = max(job.source.stat().st_size + job.needed_bytes(made.options.write) for job in made.plan.jobs)
    loads = Loads(monkeypatch, limit * largest // 2_000)
    tally, _, _ = by_threads(made, lambda *_: time.sleep(0.02), count=4)
    assert (len(tally.done), tally.failures) == (12, [])
    assert loads.most <= max(largest, limit * largest // 2_000)
    assert (not all(loads.fits)) == (together < 4)
    assert is_as_without_a_crew(twelve, model)


def test_weights_go_along_to_where_they_are_not(twelve: Path, model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(model.read_bytes())
    made = session(twelve, own)
    luggage = packed(brief_of(made))
    assert list(luggage.values()) == [model.read_bytes()]
    assert unpacked(brief_of(made), luggage) == brief_of(made), "they are here"
    own.unlink()
    crew, watch = Threads(unpacked(brief_of(made), luggage), ("cpu:1",)), Recorder()
    tally = lead(made, crew, watch)
    assert (tally.exit_code, len(tally.done)) == (0, 12)
    assert is_as_without_a_crew(twelve, model)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Pictures with and without transparency, that are made band by band."""
    picture(tmp_path / "in" / "a.png", 40, 70)
    picture(tmp_path / "in" / "b.png", 40, 70, mode="RGBA", seed=1)
    return tmp_path


SPLIT: dict[str, Any] = {"split_pixels": 1000}


@pytest.fixture(params=["scratch", "memory"])
def scratch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "scratch":
        monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 1000)
    return bool(request.param == "scratch")


def test_each_worker_is_asked_whether_it_sees_the_scratch_file(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three sees nothing, and another dies and comes back blind."""
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 1000)
    real, blind = worker._holds, {"srgan-cpu:3"}
    monkeypatch.setattr(worker, "_holds", lambda *a: threading.current_thread().name not in blind and real(*a))

    def deed(name: str, number: int, job: Job) -> None:
        time.sleep(0.01)
        if name == "cpu:2" and "srgan-cpu:2" not in blind:
            blind.add("srgan-cpu:2")
            raise Killed

    tally, _, crew = by_threads(session(large, model, **SPLIT), deed, count=3)
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    first, *more = [unit.scratch for name, unit in crew.units if name == "cpu:2" and isinstance(unit, Piece)]
    assert first is not None
    assert not any(more)
    assert all(unit.scratch for name, unit in crew.units if name == "cpu:1" and isinstance(unit, Piece))
    assert not any(unit.scratch for name, unit in crew.units if name == "cpu:3" and isinstance(unit, Piece))
    assert not list((large / "out").glob(".srgan-probe*"))
    assert is_as_without_a_crew(large, model)


def test_rows_that_travel_are_bounded_in_bytes(large: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = Loads(monkeypatch, 12_000)
    tally, _, _ = by_threads(session(large, model, **SPLIT, queue_bytes=1), lambda *_: time.sleep(0.02), count=4)
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    assert 0 < loads.most <= 12_000
    assert not all(loads.fits)
    assert is_as_without_a_crew(large, model)


def test_workers_of_one_machine_share_what_may_be_held(twelve: Path, model: Path) -> None:
    brief = brief_of(session(twelve, model))
    assert brief.for_one_of(1) == brief
    assert brief.for_one_of(4).options.queue_bytes == 128 << 20
    assert brief.for_one_of(1000).options.queue_bytes == 64 << 20
    small = brief_of(session(twelve, model, queue_bytes=5))
    assert small.for_one_of(2).options.queue_bytes == 5


def test_a_large_picture_is_made_band_by_band(large: Path, model: Path, scratch: bool) -> None:
    tally, watch, crew = by_threads(session(large, model, **SPLIT))
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    pieces = [unit for _, unit in crew.units if isinstance(unit, Piece)]
    assert len(pieces) == 2 * 9
    assert all((piece.scratch is not None) == scratch for piece in pieces)
    assert sum(watch.of("advanced")) == sum(job.network_pixels for job in tally.done)
    assert is_as_without_a_crew(large, model)


@pytest.mark.parametrize("fault", [DeviceError("a fault was injected"), Killed()], ids=["fails", "dies"])
def test_bands_of_a_worker_that_is_lost_are_made_by_others(
    large: Path, model: Path, scratch: bool, fault: BaseException
) -> None:
    def deed(name: str, number: int, job: Job) -> None:
        if number == 4:
            raise fault

    tally, watch, _ = by_threads(session(large, model, **SPLIT), deed)
    assert (tally.exit_code, len(tally.done), len(watch.of("note"))) == (0, 2, 1)
    assert is_as_without_a_crew(large, model)


def test_a_large_picture_goes_on_where_it_was_when_all_devices_failed(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 1000)
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)

    def deed(name: str, number: int, job: Job) -> None:
        if number > 6:
            raise DeviceError("a fault was injected")

    tally, _, _ = by_threads(session(large, model, **SPLIT), deed)
    assert (tally.exit_code, tally.done) == (5, [])
    tally, watch, crew = by_threads(session(large, model, **SPLIT))
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    assert any("resuming at row" in note for note in watch.of("note"))
    assert len([unit for _, unit in crew.units if isinstance(unit, Piece)]) < 18
    assert is_as_without_a_crew(large, model)


def test_rows_that_kill_every_worker_fail_one_picture(large: Path, model: Path) -> None:
    picture(large / "in" / "small.png", 10, 10)

    def deed(name: str, number: int, job: Job) -> None:
        if job.source.name == "a.png":
            raise Killed

    # Networks are loaded once for a model, so that the deed is of the job that came first.
    tally, _, _ = by_threads(session(large, model, inputs=(large / "in" / "a.png",), **SPLIT), deed, count=4)
    (failure,) = tally.failures
    assert re.search(r"each of the 3 workers that tried to make its rows from \d+ on has ended", failure.reason)
    assert tally.exit_code == 1


@pytest.mark.parametrize("to_file", [True, False])
def test_a_large_picture_of_a_model_that_fades_its_tiles_is_made_by_one_worker(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch, to_file: bool
) -> None:
    def fading(*_: Any) -> Upscaler:
        return Upscaler(model_of(Nearest(2, halo_px=None)), EngineOptions("cpu", "fp32", 64))

    monkeypatch.setattr(crews, "load_upscaler", fading)
    source, target = large / "in" / "a.png", large / "out.png" if to_file else Path("-")
    made = session(large, model, inputs=(source,), output=target, resume=to_file, **SPLIT)
    crew, watch, stream = Threads(brief_of(made), ("cpu:1", "cpu:2")), Recorder(), io.BytesIO()
    tally = lead(made, crew, watch, stream)
    assert (tally.exit_code, len(tally.done)) == (0, 1)
    assert watch.of("note") == [f"{source}: made by one worker, since the model fades its tiles together"]
    pixels = read_image(target if to_file else stream.getvalue(), max_pixels=10**6).pixels
    low = read_image(source, max_pixels=10**6).pixels
    assert np.array_equal(pixels, low.repeat(2, axis=0).repeat(2, axis=1))


# ----------------------------------------------------------------------------------------------------- real processes


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_processes_that_die_and_fail_leave_nothing_undone(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (twelve / "count").mkdir()
    monkeypatch.setenv("SRGAN_TEST_COUNT", str(twelve / "count"))
    picture(twelve / "in" / "large.png", 60, 60)
    made = session(twelve, model, engine=EngineOptions("cpu:3x1", "fp32", 8), split_pixels=1000)
    made = replace(made, make=third_dies_and_fifth_fails)
    watch = Recorder()
    tally = lead(made, crew_of(brief_of(made)), watch)
    assert (tally.exit_code, len(tally.done), tally.failures) == (0, 13, [])
    assert any("has ended with signal SIGKILL" in note for note in watch.of("note"))
    assert any("is left out, and 2 others go on: a fault was injected" in note for note in watch.of("note"))
    assert is_as_without_a_crew(twelve, model)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 100
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_run_that_is_ended_goes_on_and_leaves_no_worker(twelve: Path, model: Path, number: signal.Signals) -> None:
    for more in range(60):
        picture(twelve / "in" / f"more{more}.png", 90, 90, seed=more)
    command = [sys.executable, "-m", "srgan_cli", "upscale", str(twelve / "in"), "-o", str(twelve / "out"), "--resume",
               "--model", str(model), "--scale", "2", "--device", "cpu:2x1", "--precision", "fp32", "--tile", "8",
               "-q"]  # fmt: skip
    process = subprocess.Popen(command)
    wait_for(lambda: len(list((twelve / "out").glob("*.png"))) >= 3)
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    workers = listed.stdout.split()
    process.send_signal(number)
    code = process.wait(60)
    assert code in (130, -9) or len(list((twelve / "out").glob("*.png"))) == 72
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    if number == signal.SIGINT:
        assert all(name.endswith(".png") or name == FILE_NAME for name in tree(twelve / "out"))
        assert not [name for name in tree(twelve / "out") if name.endswith(".part")]
    tally, _, _ = by_threads(session(twelve, model))
    assert (tally.exit_code, tally.failures) == (0, [])
    assert is_as_without_a_crew(twelve, model)


# -------------------------------------------------------------------------------------------------------------- names


def test_devices_and_their_workers() -> None:
    assert EngineOptions("cuda:0,cuda:1").workers == (
        WorkerOptions("cuda:0", "cuda:0"),
        WorkerOptions("cuda:1", "cuda:1"),
    )
    assert EngineOptions("cpu:2x8").workers == (WorkerOptions("cpu:1", "cpu", 8), WorkerOptions("cpu:2", "cpu", 8))
    assert [one.has_several_devices for one in map(EngineOptions, ("cpu", "cuda:1", "auto"))] == [False] * 3
    assert all(one.has_several_devices for one in map(EngineOptions, ("cuda:all", "cpu:1x1", "cpu,cuda:0")))


@pytest.mark.parametrize("device", ["cpu:0x1", "cpu:1x0", "cpu:2", "all", "cuda:all:1", "cpu,", ",cpu", "cpu:2x"])
def test_devices_that_make_no_sense(device: str) -> None:
    with pytest.raises(SettingsError, match="device"):
        EngineOptions(device)


def test_all_of_devices_that_there_are_not(twelve: Path, model: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there are some")
    with pytest.raises(DeviceError, match="there is no such device here"):
        session(twelve, model, engine=EngineOptions("cuda:all")).run(Recorder())


def test_one_network_runs_on_one_device() -> None:
    from tests.faults import tiny_model

    with pytest.raises(SettingsError, match="several devices"):
        Upscaler(tiny_model(), EngineOptions("cpu:2x1"))


@pytest.mark.parametrize("address", ["photos/", "", "ray:/x", "in.jpg"])
def test_what_is_no_cluster(address: str) -> None:
    with pytest.raises(SettingsError, match="ray"):
        RayOptions(address)


def test_ray_that_is_missing_is_a_sentence(twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match="--ray needs Ray: pip install"):
        session(twelve, model, ray=RayOptions()).run(Recorder())
