"""Several runs in one folder at the same time, and shards of a run."""

from __future__ import annotations

import queue
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import main
from srgan_cli.config import Shard, WriteOptions
from srgan_cli.errors import SettingsError
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from srgan_cli.upscaling import claims, record_storage, sharing
from srgan_cli.upscaling.ledger import Ledger, identity
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.plan import Job, Skip
from srgan_cli.upscaling.record_storage import FILE_NAME
from srgan_cli.upscaling.session import Session
from tests.faults import at_call, disk_full
from tests.upscaling.batch import runs
from tests.upscaling.pictures import picture, tree
from tests.upscaling.test_claims import dead, elsewhere

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.02)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The folder `in` and a single run's results for it; no test changes them."""
    folder = tmp_path_factory.mktemp("alone")
    for number in range(12):
        picture(folder / "in" / ("sub" * (number % 3 == 0)) / f"{number:02}.png", 20 + number, 16, seed=number)
    session(folder, model).run(Silent())
    return folder


@pytest.fixture
def twelve(tmp_path: Path, alone: Path) -> Path:
    shutil.copytree(alone / "in", tmp_path / "in")
    return tmp_path


def session(folder: Path, model: Path, **options: Any) -> Session:
    return runs.session(folder / "in", model, **{"recursive": True, **options})


def test_what_others_have_made_is_found_without_listing_the_folder(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of a million results takes half a second to list."""
    made = session(twelve, model, resume=True)
    session(twelve, model, resume=True).run(Silent())
    listed = []
    real = record_storage.parts_of
    monkeypatch.setattr(record_storage, "parts_of", lambda folder: listed.append(folder) or real(folder))
    tally = made.run(Silent())
    assert len(tally.skips) == 12
    assert len(listed) <= 1


class Meeting(Silent):
    """Waits at its first picture until all are there, so that the runs go on side by side."""

    def __init__(self, all_there: threading.Barrier) -> None:
        self._all_there, self._begun = all_there, False
        self.skips: list[Skip] = []
        self.notes: list[str] = []

    def started(self, job: object) -> None:
        if not self._begun:
            self._begun = True
            self._all_there.wait(30)

    def skipped(self, skip: Any) -> None:
        self.skips.append(skip)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def run_at_once(sessions: list[Session]) -> list[Tally]:
    together = threading.Barrier(len(sessions))
    with ThreadPoolExecutor(len(sessions)) as pool:
        return list(pool.map(lambda one: one.run(Meeting(together)), sessions))


@pytest.mark.parametrize("how", ["plain", "resume", "overwrite"])
@pytest.mark.parametrize("count", [2, 3])  # times AHEAD: what is there
def test_runs_in_one_folder_divide_the_work(twelve: Path, alone: Path, model: Path, how: str, count: int) -> None:
    if how == "overwrite":
        session(twelve, model).run(Silent())
    options = {} if how == "plain" else {how: True}
    tallies = run_at_once([session(twelve, model, **options) for _ in range(count)])
    made = [job.source for tally in tallies for job in tally.done]
    assert sorted(made) == sorted((twelve / "in").rglob("*.png")), "each once"
    assert all(tally.done for tally in tallies)
    assert all(len(tally.done) + len(tally.skips) == 12 for tally in tallies)
    assert {skip.reason for tally in tallies for skip in tally.skips} == {"another process has made it"}
    assert [(tally.exit_code, tally.failures) for tally in tallies] == [(0, [])] * count
    assert tree(twelve / "out") == tree(alone / "out"), "no claim and no further record is left"
    for path in (alone / "out").rglob("*.png"):
        assert path.read_bytes() == (twelve / "out" / path.relative_to(alone / "out")).read_bytes()
    assert not session(twelve, model, resume=True).plan.jobs


def test_what_one_run_fails_at_is_tried_by_the_other(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "encode", at_call(2, encode, disk_full))
    tallies = run_at_once([session(twelve, model, resume=True) for _ in range(2)])
    assert sorted(len(tally.failures) for tally in tallies) == [0, 1]
    assert sum(len(tally.done) for tally in tallies) == 12
    assert len(tree(twelve / "out")) == 13


def test_a_run_waits_for_what_another_makes(twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes it over when that one is gone."""
    ready = session(twelve, model, resume=True)
    (twelve / "out").mkdir()
    dead(twelve / "out", "01.png")
    elsewhere(twelve / "out")
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.3)
    watch = Meeting(threading.Barrier(1))
    tally = ready.run(watch)
    assert tally.done[-1].source.name == "01.png"
    assert len(tally.done) == 12
    assert watch.notes == ["1 picture is being made by other processes; waiting for it"]
    hidden = sorted(name for name in tree(twelve / "out") if name.startswith("."))
    assert hidden[1:] == [FILE_NAME], "besides what the other machine's process renewed, which is swept away later"
    assert hidden[0].startswith(".srgan-claim.")


@pytest.mark.parametrize("is_ours", [True, False])
def test_what_a_killed_run_left_is_taken_over_and_cleaned_up(twelve: Path, model: Path, is_ours: bool) -> None:
    ready = session(twelve, model, resume=True)
    session(twelve, model, inputs=(twelve / "in" / "01.png",), output=twelve / "alone" / "01.png").run(Silent())
    (twelve / "out").mkdir()
    dead(twelve / "out", "01.png")
    job = next(job for job in ready.plan.jobs if job.target.name == "01.png")
    # Killed between the result's name and the record's second line.
    there = (twelve / "alone" / "01.png").read_bytes() if is_ours else picture(twelve / "mine.png", 3, 3).read_bytes()
    job.target.write_bytes(there)
    Ledger.load(twelve / "out").begin(job.target, identity(job.source), ready.settings_key)
    (twelve / "out" / ".01.png.00000000.0123456789ab.part").write_bytes(b"not this one's")
    tally = ready.run(Silent())
    assert (len(tally.done), len(tally.skips), len(tally.failures)) == ((11, 1, 0) if is_ours else (11, 0, 1))
    assert job.target.read_bytes() == there, "as it was left, or as somebody else has put it there"
    assert Ledger.load(twelve / "out").holds(job.target) == is_ours
    hidden = [name for name in tree(twelve / "out") if name.rpartition("/")[2].startswith(".")]
    assert sorted(hidden) == [".01.png.00000000.0123456789ab.part", FILE_NAME]


def test_a_process_that_stood_still_yields_to_the_one_that_took_over(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.0)
    slow, quick = session(twelve, model), session(twelve, model)
    tallies: list[Tally] = []

    class Still(Silent):
        def started(self, job: Any) -> None:
            if job.source.name == "02.png":
                tallies.append(quick.run(Silent()))

    first = slow.run(Still())
    assert (first.exit_code, tallies[0].exit_code) == (0, 0)
    assert first.failures == tallies[0].failures == []
    assert len({job.source for job in (*first.done, *tallies[0].done)}) == 12


# -------------------------------------------------------------------------------------------------------------- shards


def jobs_of(folder: Path, model: Path, shard: Shard | None, **options: Any) -> list[Job]:
    return list(session(folder, model, shard=shard, **options).plan.jobs)


@pytest.mark.parametrize("options", [{}, {"output": None}, {"name_pattern": "{stem}_{index}{ext}"}], ids=str)
@pytest.mark.parametrize("count", [1, 3, 7])
def test_shards_are_the_whole_plan_in_parts(twelve: Path, model: Path, count: int, options: dict[str, Any]) -> None:
    whole = jobs_of(twelve, model, None, **options)
    parts = [jobs_of(twelve, model, Shard(k, count), **options) for k in range(1, count + 1)]
    assert sorted(job.target for part in parts for job in part) == sorted(job.target for job in whole)
    assert {job.source: job.target for part in parts for job in part} == {job.source: job.target for job in whole}


def test_names_that_meet_are_in_one_shard(tmp_path: Path, model: Path) -> None:
    for name in "abcdefgh":
        picture(tmp_path / "in" / f"{name}.png")
        picture(tmp_path / "in" / f"{name.upper()}.bmp")
    options = {"write": WriteOptions(format="png")}
    whole = jobs_of(tmp_path, model, None, **options)
    parts = [jobs_of(tmp_path, model, Shard(k, 5), **options) for k in range(1, 6)]
    assert sorted(job.target for part in parts for job in part) == sorted(job.target for job in whole)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "x", "1", "1/2/3", "-1/3"])
def test_a_shard_that_makes_no_sense(text: str) -> None:
    with pytest.raises(SettingsError, match="shard"):
        Shard.parse(text)


def test_the_command_takes_shards(twelve: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["upscale", str(twelve / "in"), "-r", "-o", str(twelve / "out"), "--model", str(model), "--scale", "2"]
    for part in ("1/2", "2/2"):
        assert main([*command, "--shard", part, "--device", "cpu"]) == 0
    assert len(tree(twelve / "out")) == 13
    assert main([*command, "--shard", "3/2"]) == 2
    assert "--shard must be K/N" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- the last ones


class Others:
    """In the place of `Records`: the first picture is another process', all others are free."""

    def __init__(self, *, meets: bool) -> None:
        self._meets = meets

    def take(self, job: Job) -> bool:
        return not (self._meets and job.source.name == "01.png")

    def state(self, job: Job) -> str:
        return "unknown"

    def release(self, job: Job) -> None: ...


@pytest.mark.parametrize(("meets", "most"), [(False, sharing.AHEAD), (True, 2)])
def test_towards_the_end_less_is_kept_from_others(twelve: Path, model: Path, meets: bool, most: int) -> None:
    made = session(twelve, model)
    share = sharing.Share(made.plan, made.options, Others(meets=meets), Silent(), Tally())  # type: ignore[arg-type]
    taken: queue.SimpleQueue[Job] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: [taken.put(job) for job in share.jobs()])
    thread.start()
    for _ in range(7):  # what is left then are four or five
        share.settle(taken.get(timeout=10))
    time.sleep(0.1)
    assert taken.qsize() == most
    share.end()
    thread.join(10)
    assert not thread.is_alive()


def test_a_folder_that_cannot_be_written_is_no_sign_of_other_processes(twelve: Path, model: Path) -> None:
    class Broken(Others):
        def take(self, job: Job) -> bool:
            raise PermissionError("not here")

    made, tally = session(twelve, model), Tally()
    records = Broken(meets=False)
    share = sharing.Share(made.plan, made.options, records, Silent(), tally)  # type: ignore[arg-type]
    assert not list(share.jobs())
    assert len(tally.failures) == 12
    assert not share._has_met_others


def test_the_record_is_not_read_again_for_each_picture_that_is_done(
    twelve: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(twelve, model, resume=True).run(Silent())
    loaded: list[Path] = []
    real = Ledger.load
    monkeypatch.setattr(Ledger, "load", lambda folder, *more: loaded.append(folder) or real(folder, *more))
    assert not session(twelve, model, resume=True).plan.jobs
    assert loaded.count(twelve / "out") <= 2, "by names, and by what is done; not for each picture"
