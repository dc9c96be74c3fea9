"""Links where a run writes: nothing outside the output folder is ever changed, and no file with a second name."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.files import part_name
from srgan_cli.upscaling import journal, plan
from srgan_cli.upscaling.ledger import Ledger
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.record_storage import FILE_NAME
from srgan_cli.upscaling.session import prepare
from tests.links import hard, pipe, symbolic
from tests.upscaling.pictures import picture

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="links need rights there"),
    pytest.mark.timeout(60),  # a pipe that is waited for is a defect
]
SECRET = b"not ours\n"


def run(folder: Path, model: Path, observer: Silent | None = None, **options: object) -> Tally:
    """in/ -> out/."""
    chosen = UpscaleOptions(
        inputs=(folder / "in",),
        output=folder / "out",
        model=str(model),
        engine=EngineOptions(device="cpu", precision="fp32"),
        **options,  # type: ignore[arg-type]
    )
    return prepare(chosen).run(observer or Silent())


def dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside.with_name("not there yet"))


def to_folder(path: Path, outside: Path) -> None:
    path.symlink_to(outside.parent)


NAMES = {
    "record": FILE_NAME,
    "journal": f".{part_name(Path('a.png'))}.srgan-journal",
    "scratch": f".{part_name(Path('a.png'))}.srgan-scratch",
    "lock": f".{part_name(Path('a.png'))}.srgan-scratch.lock",
}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("link", [symbolic, hard, dangling, pipe, to_folder])
@pytest.mark.parametrize("name", NAMES)
def test_own_files_lead_nowhere_else(
    name: str,
    link: Callable[[Path, Path], None],
    resume: bool,
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)  # every result has a scratch file
    monkeypatch.setattr(plan, "CANVAS_BYTES", 0)
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)  # and a journal
    picture(tmp_path / "in" / "a.png", 20, 16)
    (tmp_path / "out").mkdir()
    outside = tmp_path / "outside" / "file"
    outside.parent.mkdir()
    outside.write_bytes(SECRET)
    link(tmp_path / "out" / NAMES[name], outside)
    tally = run(tmp_path, model, resume=resume)
    assert not tally.failures
    assert outside.read_bytes() == SECRET
    assert [path.name for path in outside.parent.iterdir()] == ["file"]
    record = tmp_path / "out" / FILE_NAME
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [FILE_NAME, "a.png"]
    assert record.is_file()
    assert not record.is_symlink()
    assert Ledger.load(tmp_path / "out").holds(tmp_path / "out" / "a.png")


def test_a_record_with_a_second_name_is_gone_on_with_in_a_copy(tmp_path: Path, model: Path) -> None:
    """As after `cp -al out backup`: the run knows what is done, and the backup stays as it is."""
    picture(tmp_path / "in" / "a.png", 20, 16)
    run(tmp_path, model)
    backup = tmp_path / "backup"
    os.link(tmp_path / "out" / FILE_NAME, backup)
    before = backup.read_bytes()
    picture(tmp_path / "in" / "b.png", 20, 16)
    tally = run(tmp_path, model, resume=True)
    assert [len(tally.done), len(tally.skips)] == [1, 1]
    assert backup.read_bytes() == before


@pytest.mark.parametrize("link", [symbolic, hard])
def test_a_result_replaces_a_link_and_not_what_it_leads_to(
    link: Callable[[Path, Path], None], tmp_path: Path, model: Path
) -> None:
    picture(tmp_path / "in" / "a.png", 20, 16)
    (tmp_path / "out").mkdir()
    outside = tmp_path / "precious.png"
    outside.write_bytes(SECRET)
    link(tmp_path / "out" / "a.png", outside)
    assert not run(tmp_path, model, overwrite=True).failures
    assert outside.read_bytes() == SECRET
    assert (tmp_path / "out" / "a.png").stat().st_size > 100


def test_a_pipe_under_a_results_name_is_not_waited_for(tmp_path: Path, model: Path) -> None:
    picture(tmp_path / "in" / "a.png", 20, 16)
    picture(tmp_path / "in" / "b.png", 20, 16)
    (tmp_path / "out").mkdir()
    os.mkfifo(tmp_path / "out" / "a.png")
    tally = run(tmp_path, model, overwrite=True)
    assert ["a device or a pipe" in failure.sentence for failure in tally.failures] == [True]
    assert len(tally.done) == 1


def test_a_pipe_that_was_named_is_written_to_and_holds_nothing_to_overwrite(tmp_path: Path, model: Path) -> None:
    source, target = picture(tmp_path / "a.png", 20, 16), tmp_path / "pipe.png"
    os.mkfifo(target)
    options = UpscaleOptions((source,), target, model=str(model), engine=EngineOptions("cpu", "fp32"))
    reader = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert prepare(options).run(Silent()).exit_code == 0
        assert os.read(reader, 8) == b"\x89PNG\r\n\x1a\n"
    finally:
        os.close(reader)


@pytest.mark.parametrize("depth", ["sub", "sub/below"])
def test_a_linked_folder_below_the_output_is_not_written_through(depth: str, tmp_path: Path, model: Path) -> None:
    picture(tmp_path / "in" / "a.png", 20, 16)
    picture(tmp_path / "in" / "sub" / "below" / "b.png", 20, 16)
    outside = tmp_path / "outside"
    (outside / "below").mkdir(parents=True)
    (outside / "below" / "b.png").write_bytes(SECRET)
    place = tmp_path / "out" / depth
    place.parent.mkdir(parents=True)
    place.symlink_to(outside if depth == "sub" else outside / "below")
    tally = run(tmp_path, model, recursive=True, overwrite=True)
    assert ["is a link" in failure.sentence for failure in tally.failures] == [True]
    assert len(tally.done) == 1
    assert (outside / "below" / "b.png").read_bytes() == SECRET
    assert len(list(outside.rglob("*"))) == 2


def test_an_output_folder_that_is_a_link_itself_was_named(tmp_path: Path, model: Path) -> None:
    picture(tmp_path / "in" / "sub" / "a.png", 20, 16)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    assert not run(tmp_path, model, recursive=True).failures
    assert (tmp_path / "elsewhere" / "sub" / "a.png").is_file()


class Meddling(Silent):
    """Does something when the second picture begins."""

    def __init__(self, deed: Callable[[], None]) -> None:
        self.deed, self.begun = deed, 0
        self.notes: list[str] = []

    def started(self, job: object) -> None:
        self.begun += 1
        if self.begun == 2:
            self.deed()

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_folder_that_is_moved_and_replaced_by_a_link_keeps_the_results(
    below: str, tmp_path: Path, model: Path
) -> None:
    for name in "abc":
        picture(tmp_path / "in" / below / f"{name}.png", 20, 16)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def deed() -> None:
        (tmp_path / "out").rename(tmp_path / "moved")
        (tmp_path / "out").symlink_to(elsewhere)

    meddling = Meddling(deed)
    tally = run(tmp_path, model, meddling, recursive=True)
    assert len(tally.done) == 3 or not sys.platform.startswith("linux")
    assert list(elsewhere.iterdir()) == []
    if sys.platform.startswith("linux"):
        names = [path.relative_to(tmp_path / "moved").as_posix() for path in (tmp_path / "moved").rglob("*.png")]
        assert sorted(names) == [(Path(below) / f"{name}.png").as_posix() for name in "abc"]
        assert any("was moved or replaced" in note for note in meddling.notes)
        record = Ledger.load(tmp_path / "moved")
        assert all(record.holds(tmp_path / "moved" / below / f"{name}.png") for name in "abc")


def test_a_subfolder_that_becomes_a_link_is_not_written_through(tmp_path: Path, model: Path) -> None:
    for name in "abc":
        picture(tmp_path / "in" / "sub" / f"{name}.png", 20, 16)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def deed() -> None:
        (tmp_path / "out" / "sub").rename(tmp_path / "moved")
        (tmp_path / "out" / "sub").symlink_to(elsewhere)

    tally = run(tmp_path, model, Meddling(deed), recursive=True)
    assert list(elsewhere.iterdir()) == []
    assert len(tally.failures) >= 1
    assert all("is a link" in failure.sentence and str(tmp_path) in failure.sentence for failure in tally.failures)


def test_an_output_folder_that_is_removed_is_a_sentence(tmp_path: Path, model: Path) -> None:
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png", 20, 16)

    def deed() -> None:
        for path in (tmp_path / "out").iterdir():
            path.unlink()
        (tmp_path / "out").rmdir()

    tally = run(tmp_path, model, Meddling(deed))
    assert len(tally.failures) >= 1
    assert all("/proc" not in failure.sentence for failure in tally.failures)
