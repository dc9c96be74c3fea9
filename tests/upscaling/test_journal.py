"""Large pictures grow in a scratch file: a run that ended inside one continues there."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import Upscaler
from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.errors import DeviceError
from srgan_cli.files import lock, part_name
from srgan_cli.sizes import Size
from srgan_cli.upscaling import journal, plan
from srgan_cli.upscaling.journal import Journal
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.record_storage import FILE_NAME
from srgan_cli.upscaling.session import prepare
from tests.upscaling.pictures import picture, tree

pytestmark = pytest.mark.timeout(60)
TILE = 16
HEIGHT = 100


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    monkeypatch.setattr(plan, "CANVAS_BYTES", 0)
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)


@pytest.fixture(scope="session")
def model(tiny_x4: Path) -> Path:
    return tiny_x4


@pytest.fixture
def low(tmp_path: Path) -> Path:
    return picture(tmp_path / "in/scan.png", 30, HEIGHT)


class Watch(Silent):
    """Ends the run after some bands of the network."""

    def __init__(self, bands: int = 10**9, error: BaseException | None = None) -> None:
        self.bands, self.error, self.advances = bands, error, 0
        self.notes: list[str] = []

    def advanced(self, job: object, network_pixels: int) -> None:
        self.advances += 1
        if self.advances > self.bands:
            raise self.error or KeyboardInterrupt

    def resumed(self, job: object, network_pixels: int) -> None:
        self.advanced(job, network_pixels)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def run(low: Path, model: Path, watch: Watch, *, output: str = "out", **options: Any) -> Tally:
    settings: dict[str, Any] = {
        "inputs": (low,), "output": low.parent.parent / output, "output_is_folder": True, "model": str(model),
        "engine": EngineOptions("cpu", "fp32", TILE), "resume": True, **options,
    }  # fmt: skip
    return prepare(UpscaleOptions(**settings)).run(watch)


def pixels_of(low: Path, output: str = "out") -> Any:
    with Pillow.open(low.parent.parent / output / "scan.png") as result:
        return np.asarray(result)


def left(low: Path) -> set[str]:
    return tree(low.parent.parent / "out") - {FILE_NAME}


def rows_computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with each band's rows, as later runs compute them."""
    counted: list[int] = []
    real = Upscaler.upscale_rows

    def counting(*args: Any, on_rows: Callable[[int], None], **options: Any) -> None:
        def both(count: int) -> None:
            counted.append(count)
            on_rows(count)

        real(*args, on_rows=both, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", counting)
    return counted


STEM = f".{part_name(Path('scan.png'))}"
SCRATCH, JOURNAL = f"{STEM}.srgan-scratch", f"{STEM}.srgan-journal"
HALF_MADE = {SCRATCH, JOURNAL}


def test_an_interrupted_picture_goes_on_where_it_was(low: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(low, model, Watch(), output="plain")
    first = run(low, model, Watch(bands=3))
    assert first.exit_code == 130
    assert left(low) == HALF_MADE
    counted, watch = rows_computed(monkeypatch), Watch()
    second = run(low, model, watch)
    assert second.exit_code == 0
    assert HEIGHT - 4 * TILE <= sum(counted) <= HEIGHT - 3 * TILE + TILE
    assert any("resuming at row" in sentence for sentence in watch.notes)
    assert np.abs(pixels_of(low).astype(int) - pixels_of(low, "plain")).max() <= 1
    assert left(low) == {"scan.png"}


def test_a_disk_that_is_full_when_a_run_is_interrupted_costs_only_the_journal(
    low: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "is_due", lambda _: False)
        patch.setattr(Journal, "save", full)
        assert run(low, model, Watch(bands=3)).exit_code == 130
    assert left(low) == {SCRATCH}, "nothing is locked any more"
    assert run(low, model, Watch()).exit_code == 0
    assert left(low) == {"scan.png"}


def test_progress_of_a_run_that_goes_on_still_ends_at_the_whole(low: Path, model: Path) -> None:
    run(low, model, Watch(bands=3))
    told: list[int] = []
    watch = Watch()
    cast(Any, watch).advanced = lambda _job, count: told.append(count)
    report = run(low, model, watch)
    assert sum(told) == 30 * HEIGHT * 16
    assert report.network_pixels < 30 * HEIGHT * 16, "the speed is counted from what was computed"


def test_twice_interrupted(low: Path, model: Path) -> None:
    run(low, model, Watch(), output="plain")
    for _ in range(3):
        assert run(low, model, Watch(bands=2)).exit_code == 130
    assert run(low, model, Watch()).exit_code == 0
    assert np.abs(pixels_of(low).astype(int) - pixels_of(low, "plain")).max() <= 1


def test_without_resume_nothing_stays(low: Path, model: Path) -> None:
    assert run(low, model, Watch(bands=3), resume=False).exit_code == 130
    assert left(low) == set()


def test_a_device_that_fails_costs_nothing_that_was_done(low: Path, model: Path) -> None:
    assert isinstance(run(low, model, Watch(bands=3, error=DeviceError("lost"))).error, DeviceError)
    assert left(low) == HALF_MADE


def changed_input(low: Path) -> dict[str, Any]:
    picture(low, 30, HEIGHT, seed=5)
    return {}


@pytest.mark.parametrize(
    "change",
    [changed_input, lambda _low: {"size": Size(scale=3)}, lambda _low: {"engine": EngineOptions("cpu", "bf16", TILE)}],
    ids=["input", "size", "precision"],
)
def test_what_is_not_of_the_same_run_begins_again(
    low: Path, model: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], dict[str, Any]]
) -> None:
    run(low, model, Watch(bands=3))
    options = change(low)
    counted, watch = rows_computed(monkeypatch), Watch()
    assert run(low, model, watch, **options).exit_code == 0
    assert sum(counted) == HEIGHT
    assert watch.notes == []
    assert left(low) == {"scan.png"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda scratch, _record: scratch.unlink(),
        lambda scratch, _record: scratch.write_bytes(b"short"),
        lambda _scratch, record: record.unlink(),
        lambda _scratch, record: record.write_bytes(b"\xff{"),
        lambda _scratch, record: record.write_text("[]"),
        lambda _scratch, record: record.write_text(json.dumps({**json.loads(record.read_text()), "rows": 10**9})),
        lambda _scratch, record: record.write_text(json.dumps({**json.loads(record.read_text()), "rows": -4})),
        lambda _scratch, record: record.write_text(json.dumps({**json.loads(record.read_text()), "key": "other"})),
    ],
)
def test_damaged_remains_begin_again(
    low: Path, model: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path, Path], object]
) -> None:
    run(low, model, Watch(), output="plain")
    run(low, model, Watch(bands=3))
    folder = low.parent.parent / "out"
    damage(folder / SCRATCH, folder / JOURNAL)
    counted = rows_computed(monkeypatch)
    assert run(low, model, Watch()).exit_code == 0
    assert sum(counted) == HEIGHT
    assert np.abs(pixels_of(low).astype(int) - pixels_of(low, "plain")).max() <= 1
    assert left(low) == {"scan.png"}


def test_a_picture_that_another_process_makes_is_left_to_it(low: Path, model: Path) -> None:
    folder = low.parent.parent / "out"
    folder.mkdir()
    (folder / SCRATCH).touch()
    other = lock(folder / f"{SCRATCH}.lock")
    assert other is not None
    with other:
        report = run(low, model, Watch())
        assert "another srgan" in report.failures[0].reason
        assert left(low) == {SCRATCH, f"{SCRATCH}.lock"}
    assert run(low, model, Watch()).exit_code == 0
    assert left(low) == {"scan.png"}


def test_what_a_killed_encoder_left_is_removed_by_resume(low: Path, model: Path) -> None:
    folder = low.parent.parent / "out"
    stale, others = folder / f"{STEM}.0123456789ab.part", folder / ".scan.png.part"
    record = folder / f".{part_name(Path(JOURNAL))}.0123456789ab.part"
    picture(folder / "old.png")
    for path in (stale, others, record):
        path.write_bytes(b"half a pict")
    assert run(low, model, Watch()).exit_code == 0
    assert left(low) == {"scan.png", "old.png", others.name}


_KILLED = """
import os, sys
from pathlib import Path
from srgan_cli.upscaling.claims import Claims

Claims(Path(sys.argv[1])).take("scan.png")
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_a_run_left_that_was_killed_behind_its_result_is_removed_by_resume(low: Path, model: Path) -> None:
    folder = low.parent.parent / "out"
    assert run(low, model, Watch()).exit_code == 0
    for name in (SCRATCH, f"{SCRATCH}.lock", JOURNAL):
        (folder / name).write_bytes(b"")
    dead = subprocess.run([sys.executable, "-c", _KILLED, str(folder)])
    assert dead.returncode == -9
    assert len([name for name in left(low) if name.startswith(".srgan-claim.")]) == 2
    with lock(folder / f"{SCRATCH}.lock") or pytest.fail("locked"):
        assert run(low, model, Watch()).exit_code == 0
        assert left(low) == {"scan.png", SCRATCH, f"{SCRATCH}.lock", JOURNAL}  # somebody is at work
    (folder / f"{SCRATCH}.lock").write_bytes(b"")
    assert len(run(low, model, Watch()).skips) == 1
    assert left(low) == {"scan.png"}


def test_a_run_over_a_folder_does_not_take_remains_for_pictures(low: Path, model: Path) -> None:
    run(low, model, Watch(bands=2))
    with pytest.raises(Exception, match="no pictures"):
        prepare(UpscaleOptions(inputs=(low.parent.parent / "out",), model=str(model)))


def test_a_journal_holds_for_its_key(tmp_path: Path) -> None:
    Journal(tmp_path / "j", "one").save(12)
    assert Journal(tmp_path / "j", "one").rows() == 12
    assert Journal(tmp_path / "j", "two").rows() == 0
    Journal(tmp_path / "j", "two").remove()
    assert Journal(tmp_path / "j", "one").rows() == 0
    assert tree(tmp_path) == set()
    Journal(tmp_path / "j", "one").remove()


def test_a_journal_goes_before_the_file_it_speaks_of(low: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the first seconds of a run that began again: what an older journal says must not be believed."""
    run(low, model, Watch(), output="plain")
    run(low, model, Watch(bands=3))
    assert left(low) == HALF_MADE
    folder = low.parent.parent / "out"

    def killed(*_args: Any, **_options: Any) -> None:
        assert not (folder / JOURNAL).exists()
        assert (folder / SCRATCH).exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Upscaler, "upscale_rows", killed)
        run(low, model, Watch(), resume=False)
    assert run(low, model, Watch()).exit_code == 0
    assert np.abs(pixels_of(low).astype(int) - pixels_of(low, "plain")).max() <= 1
