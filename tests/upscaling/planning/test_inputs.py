"""The pictures of a run, and faulty ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.config import WriteOptions
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.sizes import Size
from srgan_cli.upscaling.ledger import Ledger, identity
from tests.upscaling.pictures import picture
from tests.upscaling.planning.plans import KEY, names, planned

# -------------------------------------------------------------------------------------------------------- what is found


def test_hidden_files_and_folders_are_left_out(here: Path) -> None:
    for name in ("a.png", ".b.png", "._a.png", ".hidden/c.png", "d/.e.png"):
        picture(here / "in" / name)
    assert [source for source, _ in names(planned(["in"], "out/", recursive=True))] == ["in/a.png"]
    assert len(planned(["in/.b.png"], "out/").jobs) == 1, "who names a file means it"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ("*.jpg",)}, {"b.jpg"}),
        ({"include": ("*.JPG", "c.*")}, {"b.jpg", "deep/c.PNG"}),
        ({"include": ("deep/*",)}, {"deep/c.PNG", "deep/er/d.webp"}),
        ({"exclude": ("*.png",)}, {"b.jpg", "deep/er/d.webp"}),
        ({"exclude": ("deep/*",)}, {"a.png", "b.jpg"}),
        ({"include": ("*.png",), "exclude": ("a.*",)}, {"deep/c.PNG"}),
        ({}, {"a.png", "b.jpg", "deep/c.PNG", "deep/er/d.webp"}),
    ],
)
def test_globs_choose_from_folders(photos: Path, options: dict[str, Any], expected: set[str]) -> None:
    made = planned([photos], "out/", recursive=True, **options)
    assert {Path(source).relative_to(photos).as_posix() for source, _ in names(made)} == expected


def test_globs_do_not_touch_what_was_named(photos: Path) -> None:
    assert len(planned([photos / "a.png"], "out/", exclude=("*",)).jobs) == 1


def test_the_output_folder_inside_the_input_is_not_walked(photos: Path) -> None:
    picture(photos / "large/a.png")
    picture(photos / "large/deep/c.PNG")
    made = planned([photos], photos / "large", recursive=True, overwrite=True)
    assert not [source for source, _ in names(made) if "large" in source]
    assert len(made.jobs) == 4


def test_pictures_of_other_kinds_are_reported(here: Path) -> None:
    picture(here / "in/a.png")
    for name in ("b.dds", "c.SGI", "d.cbr", "e.txt", "f"):
        (here / "in" / name).write_bytes(b"?")
    [note] = [note for note in planned(["in"], "out/").notes if "skipped in folders" in note]
    assert all(f"1 {kind} (not a format srgan reads)" in note for kind in ("DDS", "SGI", "CBR")), note
    assert "TXT" not in note


def test_results_of_this_folder_are_not_taken_for_pictures(photos: Path) -> None:
    picture(photos / "a_x4.png", 48, 36)
    made = planned([photos], skip_existing=True)
    assert [source for source, _ in names(made)] == ["photos/b.jpg"]
    assert [skip.source.name for skip in made.skips] == ["a.png"]


def test_results_of_a_run_with_other_settings_are_not_taken_either(photos: Path) -> None:
    for job in planned([photos]).jobs:
        picture(job.target, 48, 36)
        assert job.ledger is not None
        Ledger.load(job.ledger).finish(job.target, identity(job.source), KEY)
    made = planned([photos], key="other", size=Size(scale=2))
    assert names(made) == [("photos/a.png", "photos/a_x2.png"), ("photos/b.jpg", "photos/b_x2.jpg")]


def test_results_that_only_changed_their_format_are_not_taken_either(here: Path) -> None:
    picture(here / "in/a.jpg")
    options: dict[str, Any] = {"name_pattern": "{stem}{ext}", "write": WriteOptions(format="png")}
    (job,) = planned(["in"], **options).jobs
    picture(job.target)
    assert job.ledger is not None
    Ledger.load(job.ledger).finish(job.target, identity(job.source), KEY)
    made = planned(["in"], resume=True, **options)
    assert not made.jobs
    assert [skip.source.name for skip in made.skips] == ["a.jpg"]


def test_results_of_this_folder_are_not_counted_by_index(here: Path) -> None:
    picture(here / "in/a.png")
    picture(here / "in/b.png")
    made = planned(["in"], name_pattern="{index}{ext}")
    assert names(made) == [("in/a.png", "in/1.png"), ("in/b.png", "in/2.png")]
    first = made.jobs[0]
    picture(first.target)
    assert first.ledger is not None
    Ledger.load(first.ledger).finish(first.target, identity(first.source), KEY)
    assert names(planned(["in"], name_pattern="{index}{ext}", resume=True)) == [("in/b.png", "in/2.png")]


def test_a_folder_of_results_may_be_enlarged_again(here: Path) -> None:
    picture(here / "in/a.png")
    (job,) = planned(["in"], "out/").jobs
    picture(job.target)
    Ledger.load(Path("out")).finish(job.target, identity(job.source), KEY)
    assert names(planned(["out"], "larger/")) == [("out/a.png", "larger/a.png")]


@pytest.mark.parametrize("recursive", [True, False])
def test_nothing_found_is_an_error(here: Path, recursive: bool) -> None:
    (here / "in/deep").mkdir(parents=True)
    (here / "in/notes.txt").write_text("x")
    with pytest.raises(NothingToDoError, match="no pictures") as caught:
        planned(["in"], "out/", recursive=recursive)
    assert ("--recursive" in str(caught.value)) is not recursive
    assert caught.value.exit_code == 3


def test_a_folder_that_cannot_be_listed_does_not_hide_the_others(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Any) -> Any:
        if os.fspath(path).endswith("er"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    picture(photos / "z/last.png")
    monkeypatch.setattr(os, "scandir", scandir)
    made = planned([photos], "out/", recursive=True)
    assert "photos/z/last.png" in [source for source, _ in names(made)]
    (failure,) = made.failures
    assert failure.source == photos / "deep/er"
    assert "permission" in failure.reason.lower()


# -------------------------------------------------------------------------------------------------- failures one by one


def test_a_bad_picture_leaves_the_others(photos: Path) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.jpg").write_text("I am no picture")
    (photos / "folder.png").mkdir()
    made = planned([photos, "missing.png"], "out/")
    assert len(made.jobs) == 2
    assert {failure.source.name for failure in made.failures} == {"empty.png", "text.jpg", "missing.png"}
    assert all(failure.unreadable and failure.reason for failure in made.failures)


def test_a_picture_that_cannot_be_written_leaves_the_others(here: Path) -> None:
    picture(here / "in/a.png", mode="RGBA")
    picture(here / "in/b.png")
    made = planned(["in"], "out/", write=WriteOptions(format="jpeg"))
    assert names(made) == [("in/b.png", "out/b.jpg")]
    (failure,) = made.failures
    assert "--background" in failure.reason
    assert not failure.unreadable
    laid = planned(["in"], "out/", write=WriteOptions(format="jpeg", background=(255, 255, 255)))
    assert len(laid.jobs) == 2


def test_a_picture_that_is_large_enough_leaves_the_others(here: Path) -> None:
    picture(here / "in/a.png", 100, 100)
    picture(here / "in/b.png", 40, 40)
    made = planned(["in"], "out/", size=Size(long_side=80))
    assert names(made) == [("in/b.png", "out/b.png")]
    assert "smaller" in made.failures[0].reason
    with pytest.raises(SettingsError, match="smaller"):
        planned(["in/a.png"], "out/", size=Size(long_side=80))


def test_too_many_pixels_are_refused_by_the_header(here: Path) -> None:
    picture(here / "a.png", 20, 20)
    made = planned(["a.png"], max_pixels=399)
    assert made.failures[0].unreadable
    assert "--max-pixels" in made.failures[0].reason
    assert len(planned(["a.png"], max_pixels=400).jobs) == 1


def test_fail_fast_does_not_even_start(photos: Path) -> None:
    (photos / "empty.png").write_bytes(b"")
    made = planned([photos], "out/", fail_fast=True)
    assert made.jobs == ()
    assert "empty.png" in made.failures[0].reason
    assert made.exit_code == 1


def test_a_target_that_is_a_folder_fails_alone(photos: Path, here: Path) -> None:
    (here / "out/a.png").mkdir(parents=True)
    made = planned([photos], "out/")
    assert names(made) == [("photos/b.jpg", "out/b.jpg")]
    assert "folder" in made.failures[0].reason


def test_a_file_that_cannot_be_looked_at_is_not_called_a_folder(here: Path) -> None:
    picture(here / "a.png")
    name = "n" * 300 + ".png"
    (failure,) = planned(["a.png", name], "out/").failures
    assert failure.reason.startswith(f"{name} cannot be opened: ")
