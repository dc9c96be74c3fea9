"""Workers that do not see the files: what is sent to them and back, and its limits."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path

import pytest

from srgan_cli.upscaling.crew import file_access, worker
from srgan_cli.upscaling.crew import lead as lead_module
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.crew.messages import CheckAccess, Pictures, Strip, Survey
from srgan_cli.upscaling.crew.roster import Roster
from srgan_cli.upscaling.crew.weights_transfer import packed, unpacked
from srgan_cli.upscaling.plan import Job
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import SPLIT, Killed, Threads, by_threads, is_as_without_a_crew, session
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.timeout(120)


def test_workers_that_see_nothing_get_pictures_and_send_results_back(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies is replaced, and its successor is checked for access again."""
    monkeypatch.setattr(worker, "_holds", lambda *_: False)
    monkeypatch.setattr(Threads, "sees_all", False)
    (twelve / "in" / "05.png").write_bytes(b"no picture")
    picture(twelve / "out" / "07.png", 9, 9)  # not made by srgan

    def deed(name: str, number: int, job: Job) -> None:
        if number == 4:
            raise Killed

    made = session(twelve, model, overwrite=True, resume=False)
    (twelve / "in" / "06.png").unlink()
    tally, watch, crew = by_threads(made, deed)
    assert sorted(failure.source.name for failure in tally.failures) == ["05.png", "06.png"]
    assert len(tally.done) == 10
    units = [unit for _, unit in crew.units if isinstance(unit, Pictures)]
    assert all(unit.without_files and len(unit.jobs) == 1 and unit.jobs[0].data for unit in units)
    assert len([unit for _, unit in crew.units if isinstance(unit, CheckAccess)]) == 3
    assert any("does not see the folders" in sentence for sentence in watch.of("detail"))
    picture(twelve / "in" / "06.png", 26, 16, seed=6)
    (twelve / "in" / "05.png").unlink()
    again = session(twelve, model)
    assert [job.source.name for job in again.plan.jobs] == ["06.png"], "the record knows the others"
    again.run(Recorder())
    assert is_as_without_a_crew(twelve, model)
    assert not list((twelve / "out").glob(".srgan-probe*"))


def test_a_folder_that_takes_no_probe_does_not_end_the_run(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Threads, "sees_all", False)
    monkeypatch.setattr(file_access, "publish_text", refuse)
    tally, _, _ = by_threads(session(twelve, model))
    assert (tally.exit_code, len(tally.done)) == (0, 12)
    assert is_as_without_a_crew(twelve, model)


class Loads:
    """The maximum number of bytes in transit between the lead process and its workers."""

    def __init__(self, patch: pytest.MonkeyPatch, limit: int) -> None:
        self.most = 0
        self.fits: list[bool] = []
        patch.setattr(lead_module, "free_host_bytes", lambda: 4 * limit)
        real = Roster.reserve

        def reserve(roster: Roster, worker: str, freight: int) -> bool:
            got = real(roster, worker, freight)
            self.fits.append(got)
            self.most = max(self.most, sum(map(sum, roster._freight.values())))
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


def test_rows_that_travel_are_bounded_in_bytes(large: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = Loads(monkeypatch, 12_000)
    tally, _, _ = by_threads(session(large, model, **SPLIT, queue_bytes=1), lambda *_: time.sleep(0.02), count=4)
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    assert 0 < loads.most <= 12_000
    assert not all(loads.fits)
    assert is_as_without_a_crew(large, model)


def test_each_worker_is_asked_whether_it_sees_the_scratch_file(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three sees nothing, and another dies and comes back without files."""
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
    second = [unit for name, unit in crew.units if name == "cpu:2"]
    again = next(n for n, unit in enumerate(second) if n and isinstance(unit, Survey))
    until_death, since = second[:again], second[again:]
    assert all(unit.scratch for unit in until_death if isinstance(unit, Strip))
    assert not any(unit.scratch for unit in since if isinstance(unit, Strip))
    assert all(unit.scratch for name, unit in crew.units if name == "cpu:1" and isinstance(unit, Strip))
    assert not any(unit.scratch for name, unit in crew.units if name == "cpu:3" and isinstance(unit, Strip))
    assert not list((large / "out").glob(".srgan-probe*"))
    assert is_as_without_a_crew(large, model)


def test_weights_go_along_to_where_they_are_not(twelve: Path, model: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(model.read_bytes())
    made = session(twelve, own)
    weights = packed(brief_of(made))
    assert list(weights.values()) == [model.read_bytes()]
    assert unpacked(brief_of(made), weights) == brief_of(made), "they are here"
    own.unlink()
    crew, watch = Threads(unpacked(brief_of(made), weights), ("cpu:1",)), Recorder()
    tally = lead(made, crew, watch)
    assert (tally.exit_code, len(tally.done)) == (0, 12)
    assert is_as_without_a_crew(twelve, model)
