"""A run of several pictures: each gets its result, within the memory limit."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srgan_cli import Upscaler, load_model
from srgan_cli.config import EngineOptions, WriteOptions
from srgan_cli.errors import (
    PictureError,
    UnreadablePictureError,
)
from srgan_cli.imaging import writing
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.reading import open_picture
from srgan_cli.sizes import Size
from srgan_cli.upscaling import intake, pipeline
from srgan_cli.upscaling.budget import ByteBudget
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.plan import Skip
from tests.faults import at_call, disk_full
from tests.upscaling.batch.runs import Recorder, pixels_of, results, session
from tests.upscaling.pictures import cut_short, picture, tree

# ---------------------------------------------------------------------------------------------------------------------


def test_every_picture_gets_its_own_result(five: Path, model: Path) -> None:
    watch = Recorder()
    report = session(five, model).run(watch)
    assert report.exit_code == 0
    assert results(five.parent / "out") == {"a.png", "b.png", "c.png", "d.png", "e.png"}
    upscaler = Upscaler(load_model(model), EngineOptions("cpu", "fp32", 32))
    for name in "abcde":
        low, high = pixels_of(five / f"{name}.png"), pixels_of(five.parent / "out" / f"{name}.png")
        assert np.abs(high.astype(int) - upscaler.upscale(low)).max() <= 1
    assert watch.of("started") == watch.of("done") == [f"{name}.png" for name in "abcde"]
    assert sum(watch.of("advanced")) == report.network_pixels == sum((20 + n) * 16 * 16 for n in range(5))
    assert report.output_pixels == report.network_pixels
    assert 0 < report.network_seconds <= report.seconds


def test_the_exact_size_is_made_by_resampling(five: Path, model: Path) -> None:
    session(five / "a.png", model, size=Size(scale=2.5), output=five.parent / "out.png").run(Recorder())
    assert pixels_of(five.parent / "out.png").shape == (40, 50, 3)


def test_the_tree_is_kept(five: Path, model: Path) -> None:
    picture(five / "deep/er/f.png")
    assert session(five, model, recursive=True).run(Recorder()).exit_code == 0
    assert "deep/er/f.png" in results(five.parent / "out")


def test_the_time_is_kept_when_asked(five: Path, model: Path) -> None:
    os.utime(five / "a.png", ns=(1_000_000_000, 1_234_567_890_000_000_000))
    session(five, model, write=WriteOptions(keep_time=True)).run(Recorder())
    assert (five.parent / "out/a.png").stat().st_mtime_ns == 1_234_567_890_000_000_000


# ------------------------------------------------------------------------------------------------------------ resources


@pytest.mark.parametrize("queue_bytes", [1, 5_000, 40_000, 1 << 30])
def test_no_more_bytes_are_held_than_allowed(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch, queue_bytes: int
) -> None:
    peaks: dict[int, int] = {}

    class Watched(ByteBudget):
        def take(self, count: int) -> None:
            super().take(count)
            with self._changed:
                assert self._used <= self._limit or self._used == count, "one too large gets in only alone"
                peaks[self._limit] = max(peaks.get(self._limit, 0), self._used)

    monkeypatch.setattr(pipeline, "ByteBudget", Watched)
    report = session(five, model, queue_bytes=queue_bytes).run(Recorder())
    assert report.exit_code == 0
    assert set(peaks) == {queue_bytes // 2, queue_bytes}
    largest = 24 * 16 * 16 * 3
    assert peaks[queue_bytes] <= max(queue_bytes, largest)


def test_a_budget_gives_back_all_that_was_taken(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Watched(ByteBudget):
        def __init__(self, limit: int) -> None:
            super().__init__(limit)
            made.append(self)

    monkeypatch.setattr(pipeline, "ByteBudget", Watched)
    monkeypatch.setattr(writing, "encode", at_call(2, encode, disk_full))
    (five / "c.png").unlink()
    cut_short(five / "c.jpg")
    session(five, model, queue_bytes=1).run(Recorder())
    assert [budget._used for budget in made] == [0, 0]


def test_the_next_picture_is_read_while_one_is_upscaled(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = session(five, model)
    opened, real_open = threading.Semaphore(0), open_picture
    seen: list[list[bool]] = []

    def opening(*args: Any, **options: Any) -> Any:
        result = real_open(*args, **options)
        opened.release()
        return result

    real_run = Upscaler.upscale_rows

    def waiting(*args: Any, **options: Any) -> None:
        if not seen:
            seen.append([opened.acquire(timeout=10) for _ in range(2)])
        real_run(*args, **options)

    monkeypatch.setattr(intake, "open_picture", opening)
    monkeypatch.setattr(Upscaler, "upscale_rows", waiting)
    assert ready.run(Recorder()).exit_code == 0
    assert seen == [[True, True]]


def test_a_picture_is_written_while_the_next_is_upscaled(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second, real_run, real_encode, calls, waited = threading.Event(), Upscaler.upscale_rows, encode, [], []

    def running(*args: Any, **options: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            second.set()
        real_run(*args, **options)

    def encoding(*args: Any, **options: Any) -> Any:
        waited.append(second.wait(10))
        return real_encode(*args, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", running)
    monkeypatch.setattr(writing, "encode", encoding)
    session(five, model).run(Recorder())
    assert all(waited)


def test_one_upscaler_serves_all_pictures(five: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = Upscaler.__init__

    def counted(self: Upscaler, *args: Any, **options: Any) -> None:
        made.append(1)
        real(self, *args, **options)

    monkeypatch.setattr(Upscaler, "__init__", counted)
    session(five, model).run(Recorder())
    assert len(made) == 1


def test_large_results_grow_in_scratch_files_that_vanish(
    five: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    seen: list[set[str]] = []
    real = Upscaler.upscale_rows

    def looking(*args: Any, **options: Any) -> None:
        seen.append({name for name in tree(five.parent / "out") if "scratch" in name})
        real(*args, **options)

    monkeypatch.setattr(Upscaler, "upscale_rows", looking)
    report = session(five, model).run(Recorder())
    assert report.exit_code == 0
    assert all(seen)
    assert len(results(five.parent / "out")) == 5


# ----------------------------------------------------------------------------------------------------------- exit codes


_GOOD: Any = object()


_BAD = Failure(Path("x"), "why", UnreadablePictureError)


_UNWRITTEN = Failure(Path("y"), "why", PictureError)


_SKIP = Skip(Path("z"), Path("z2"), "done")


@pytest.mark.parametrize(
    ("tally", "code"),
    [
        (Tally(), 0),
        (Tally(done=[_GOOD]), 0),
        (Tally(skips=[_SKIP]), 0),
        (Tally(done=[_GOOD], skips=[_SKIP]), 0),
        (Tally(done=[_GOOD], failures=[_BAD]), 1),
        (Tally(skips=[_SKIP], failures=[_BAD]), 1),
        (Tally(failures=[_UNWRITTEN]), 1),
        (Tally(failures=[_BAD, _UNWRITTEN]), 1),
        (Tally(failures=[_BAD]), 3),
        (Tally(failures=[_BAD, _BAD]), 3),
        (Tally(interrupted=True), 130),
        (Tally(done=[_GOOD], failures=[_BAD], interrupted=True), 130),
    ],
)
def test_the_exit_code_follows_from_the_tally(tally: Tally, code: int) -> None:
    assert tally.exit_code == code
