"""Results that exist already: refused, skipped, resumed."""

from __future__ import annotations

import os
import shutil
import types
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.errors import SettingsError
from srgan_cli.upscaling.ledger import Ledger, identity
from srgan_cli.upscaling.record_storage import FILE_NAME
from tests.upscaling.pictures import picture
from tests.upscaling.planning.plans import KEY, planned


@pytest.fixture
def two_done(here: Path) -> tuple[Path, Path]:
    """in/a.png with its result, by our record; in/b.png without; both into out/."""
    picture(here / "in/a.png")
    picture(here / "in/b.png")
    made = planned(["in"], "out/")
    first = made.jobs[0]
    picture(first.target, 48, 36)
    assert first.ledger == Path("out")
    ledger = Ledger.load(first.ledger)
    ledger.begin(first.target, identity(first.source), KEY)
    ledger.finish(first.target, identity(first.source), KEY)
    return first.source, first.target


def todo(**options: Any) -> list[str]:
    made = planned(["in"], "out/", **options)
    assert len(made.jobs) + len(made.skips) == 2
    return [job.source.name for job in made.jobs]


@pytest.mark.usefixtures("two_done")
def test_existing_results_are_refused_unless_told() -> None:
    with pytest.raises(SettingsError, match=r"out/a\.png exists already") as caught:
        todo()
    assert all(flag in str(caught.value) for flag in ("--overwrite", "--skip-existing", "--resume"))
    assert todo(overwrite=True) == ["a.png", "b.png"]
    assert todo(skip_existing=True) == ["b.png"]


@pytest.mark.usefixtures("two_done")
def test_resume_leaves_what_is_done() -> None:
    assert todo(resume=True) == ["b.png"]


@pytest.mark.usefixtures("two_done")
def test_resume_does_again_what_other_settings_made() -> None:
    assert todo(resume=True, key="other settings, or other weights") == ["a.png", "b.png"]


def test_resume_does_again_what_a_changed_input_made(two_done: tuple[Path, Path]) -> None:
    os.utime(two_done[0], (1, 1))
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_does_again_what_was_changed_since(two_done: tuple[Path, Path]) -> None:
    two_done[1].write_bytes(b"half a pict")
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_does_again_what_is_gone(two_done: tuple[Path, Path]) -> None:
    two_done[1].unlink()
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_does_again_what_was_only_begun(two_done: tuple[Path, Path]) -> None:
    Ledger.load(Path("out")).begin(two_done[1], identity(two_done[0]), KEY)
    assert todo(resume=True) == ["b.png"], "what was to be replaced is still there"
    two_done[1].write_bytes(b"what replaced it, before that was recorded")
    assert todo(resume=True) == ["a.png", "b.png"]


def test_resume_replaces_what_an_earlier_run_was_to_replace(two_done: tuple[Path, Path], here: Path) -> None:
    mine = picture(here / "out/b.png")
    Ledger.load(Path("out")).begin(Path("out/b.png"), identity(Path("in/b.png")), KEY, was=identity(mine))
    assert todo(resume=True) == ["b.png"]
    picture(mine, 5, 5)
    with pytest.raises(SettingsError, match=r"out/b\.png exists, but no earlier run"):
        todo(resume=True)


def test_resume_refuses_what_has_come_since_a_run_was_killed(two_done: tuple[Path, Path], here: Path) -> None:
    Ledger.load(Path("out")).begin(Path("out/b.png"), identity(Path("in/b.png")), KEY)
    assert todo(resume=True) == ["b.png"]
    for data in (b"notes", picture(here / "mine.png", 48, 36).read_bytes()):
        Path("out/b.png").write_bytes(data)
        with pytest.raises(SettingsError, match=r"out/b\.png exists, but no earlier run"):
            todo(resume=True)


def test_resume_refuses_another_picture_in_the_place_of_a_result(two_done: tuple[Path, Path]) -> None:
    picture(two_done[1], 47, 36, seed=5)
    with pytest.raises(SettingsError, match=r"out/a\.png exists, but no earlier run"):
        todo(resume=True)


@pytest.mark.usefixtures("two_done")
def test_resume_refuses_a_file_that_is_not_ours(here: Path) -> None:
    picture(here / "out/b.png")
    with pytest.raises(SettingsError, match=r"out/b\.png exists, but no earlier run"):
        todo(resume=True)


@pytest.mark.usefixtures("two_done")
def test_resume_survives_a_damaged_record(here: Path) -> None:
    record = here / "out" / FILE_NAME
    record.write_bytes(b"\xff\xfe{\n[1]\n" + record.read_bytes() + b'{"target": "b.p')
    assert todo(resume=True) == ["b.png"]


def test_the_record_moves_with_its_folder(two_done: tuple[Path, Path], here: Path) -> None:
    (here / "out").rename(here / "moved")
    made = planned(["in"], "moved/", resume=True)
    assert [job.source.name for job in made.jobs] == ["b.png"]


def test_resume_works_for_files_named_one_by_one(here: Path) -> None:
    picture(here / "a.png")
    picture(here / "b.png")
    first = planned(["a.png", "b.png"]).jobs[0]
    picture(first.target)
    assert first.ledger is not None, "a run over several files keeps a record, or it could not go on"
    Ledger.load(first.ledger).finish(first.target, identity(first.source), KEY)
    assert [job.source.name for job in planned(["a.png", "b.png"], resume=True).jobs] == ["b.png"]


def test_names_in_the_record_may_be_any_bytes(here: Path) -> None:
    name = os.fsdecode(b"\xff\n.png")
    source = picture(here / "in" / name)
    ledger = Ledger.load(here / "out")
    target = picture(here / "out" / name)
    ledger.finish(target, identity(source), KEY)
    assert Ledger.load(here / "out").state(target, identity(source), KEY) == "done"


def test_a_plan_touches_nothing(photos: Path, here: Path) -> None:
    before = sorted(here.rglob("*"))
    planned([photos], "new/folder/", recursive=True)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "left"), [({"resume": True}, {"in/b.png"}), ({"skip_existing": True}, {"in/b.png"})]
)
@pytest.mark.usefixtures("two_done")
def test_what_is_done_needs_no_room(options: dict[str, Any], left: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: types.SimpleNamespace(total=10**12, free=0))
    made = planned(["in"], "out/", **options)
    assert ({str(failure.source) for failure in made.failures}, len(made.skips), made.jobs) == (left, 1, ())
    again = planned(["in"], "out/", resume=True, key="other settings")
    assert {str(failure.source) for failure in again.failures} == {"in/a.png", "in/b.png"}
    assert all("the disk is too full" in failure.reason for failure in again.failures)
