"""A large picture divided among workers, band by band, whichever worker fails or dies."""

from __future__ import annotations

import io
import re
import threading
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from srgan_cli.config import EngineOptions
from srgan_cli.engine.rows import ArrayRows
from srgan_cli.engine.tiles import Span
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError, PictureError
from srgan_cli.imaging.reading import read_image
from srgan_cli.upscaling import journal
from srgan_cli.upscaling.crew.large import CrewUpscaler, UndividedError, _Making
from srgan_cli.upscaling.crew.lead import brief_of, lead
from srgan_cli.upscaling.crew.messages import Event, Strip, StripDone, Surveyed
from srgan_cli.upscaling.crew.roster import Roster
from srgan_cli.upscaling.plan import Job
from tests.faults import Nearest, model_of
from tests.upscaling import crews
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import SPLIT, Killed, Threads, by_threads, is_as_without_a_crew, session
from tests.upscaling.pictures import picture

pytestmark = pytest.mark.timeout(120)


def test_a_large_picture_is_made_band_by_band(large: Path, model: Path, scratch: bool) -> None:
    tally, watch, crew = by_threads(session(large, model, **SPLIT))
    assert (tally.exit_code, len(tally.done)) == (0, 2)
    strips = [unit for _, unit in crew.units if isinstance(unit, Strip)]
    assert len(strips) == 2 * 9
    assert all((strip.scratch is not None) == scratch for strip in strips)
    assert sum(watch.of("advanced")) == sum(job.network_pixels for job in tally.done)
    assert is_as_without_a_crew(large, model)


def test_rows_that_are_ready_before_those_above_them_are_told_again_when_these_are(large: Path, model: Path) -> None:
    """Even if they are as many as what was told before: final rows end what was told of parts."""
    job = session(large, model, **SPLIT).plan.jobs[0]
    width = job.header.width
    # The third band is ready first.
    events = [[("cpu:2", StripDone(Span(32, 32, 48, 48), None))], [("cpu:1", StripDone(Span(0, 0, 16, 16), None))]]

    class Scripted:
        busy = True
        crew = SimpleNamespace(interrupt=lambda: None)

        def wait(self, _seconds: float) -> list[tuple[str, StripDone]]:
            return events.pop(0)

        def free(self) -> list[str]:
            if not events:
                self.busy = False
                raise Killed
            return []

    making = _Making(Scripted(), job, Surveyed(2, 16, 16, 0, True), None, None, {})  # type: ignore[arg-type]
    for worker in ("cpu:1", "cpu:2"):
        making._out[worker] = deque([None])
    told: list[tuple[str, int]] = []
    with pytest.raises(Killed):
        making.run(
            ArrayRows(np.zeros((1, 1, 3), np.uint8)), np.zeros((1, 1, 3), np.uint8),
            lambda rows: told.append(("final", rows)), lambda px: told.append(("part", px)), 0,
        )  # fmt: skip
    assert told == [("part", 16 * width), ("final", 16), ("part", 16 * width)]


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


def test_a_worker_that_dies_while_a_picture_is_given_up_is_replaced(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers no more, so the next picture would wait for it for ever."""
    given_up = threading.Event()
    real = _Making._take_in

    def take_in(making: Any, worker: str, event: Event, out: Any) -> None:
        real(making, worker, event, out)
        if making._job.source.name == "a.png" and making._ready:
            raise PictureError("a fault was injected")

    def deed(name: str, number: int, job: Job) -> None:
        if name == "cpu:2" and job.source.name == "a.png":
            assert given_up.wait(60)
            raise Killed

    monkeypatch.setattr(_Making, "_take_in", take_in)
    monkeypatch.setattr(Threads, "recall", lambda _crew: given_up.set())
    tally, _, crew = by_threads(session(large, model, **SPLIT), deed)
    assert [failure.source.name for failure in tally.failures] == ["a.png"]
    assert ([job.source.name for job in tally.done], crew.replaced) == (["b.png"], ["cpu:2"])


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
    assert len([unit for _, unit in crew.units if isinstance(unit, Strip)]) < 18
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
    assert watch.of("note") == [f"{source}: made by one worker, since the model blends its tiles"]
    pixels = read_image(target if to_file else stream.getvalue(), max_pixels=10**6).pixels
    low = read_image(source, max_pixels=10**6).pixels
    assert np.array_equal(pixels, low.repeat(2, axis=0).repeat(2, axis=1))


def test_what_a_model_that_fades_its_tiles_is_asked_to_enlarge_is_not_divided_either(
    large: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--grain auto` enlarges parts of a picture before its first band."""
    monkeypatch.setattr(
        crews,
        "load_upscaler",
        lambda *_: Upscaler(model_of(Nearest(2, halo_px=None)), EngineOptions("cpu", "fp32", 64)),
    )
    made = session(large, model, **SPLIT)
    crew = Threads(brief_of(made), ("cpu:1", "cpu:2"))
    upscaler = CrewUpscaler(Roster(crew, Recorder()), made.assign(made.plan.jobs[0]))
    try:
        with pytest.raises(UndividedError):
            upscaler.upscale(np.zeros((16, 16, 3), np.uint8))
        assert len(crew.workers()) == 2
    finally:
        crew.close()
