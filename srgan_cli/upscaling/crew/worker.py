"""A worker: makes its units with the same stages as a run without workers."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.upscaling import batch
from srgan_cli.upscaling.crew.messages import (
    AccessChecked,
    Advanced,
    Brief,
    CheckAccess,
    Computed,
    Done,
    Event,
    Failed,
    Pictures,
    Said,
    Started,
    Strip,
    StripComputed,
    StripDone,
    Survey,
    Surveyed,
    Unit,
    UnitEnded,
)
from srgan_cli.upscaling.inputs import STREAM, Failure
from srgan_cli.upscaling.ledger import identity
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.plan import Job, Plan, Skip
from srgan_cli.upscaling.session import Session
from srgan_cli.upscaling.warming import warm

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler


# Parts of a picture that are not final yet are reported at this interval: a message for each layer of a network would
# cost more than it shows.
_PART_SECONDS = 0.5


class Worker:
    """`say` is called with events, from any of its threads."""

    def __init__(self, brief: Brief, say: Callable[[Event], None]) -> None:
        self._brief, self._say = brief, say
        self._session = Session(brief.options, brief.selections, Plan(()), brief.settings_key, time.perf_counter())
        self._upscalers: dict[tuple[str, tuple[int, ...], int], Upscaler] = {}
        self._told: set[tuple[str, ...]] = set()  # variants share their networks
        self._error: DeviceError | WeightsError | None = None
        warm(brief.options.engine.device)

    def do(self, unit: Unit) -> UnitEnded:
        """Make a unit. Returns its final event; after an error nothing more is started."""
        if self._error is not None:
            return UnitEnded(self._error)
        try:
            ended = self._make_unit(unit)
        except KeyboardInterrupt:
            return UnitEnded()
        except (DeviceError, WeightsError) as err:
            ended = UnitEnded(err)
        except Exception as err:  # noqa: BLE001 - a defect must not leave the others waiting
            ended = UnitEnded(DeviceError(f"a worker ran into a defect in srgan: {type(err).__name__}: {err}"))
        self._error = ended.error
        return ended

    def _make_unit(self, unit: Unit) -> UnitEnded:
        if isinstance(unit, Pictures):
            return self._without_files(unit.jobs[0]) if unit.without_files else self._pictures(unit.jobs)
        if isinstance(unit, CheckAccess):
            return self._check_access(unit)
        if isinstance(unit, Survey):
            return self._survey(unit)
        return self._strip(unit)

    def _upscaler(self, job: Job) -> Upscaler:
        key = job.model, job.scales, job.variant
        if key not in self._upscalers:
            self._upscalers[key] = self._brief.make(self._session, job, lambda text: self._say(Said(text, False)))
            facts = self._session.facts(job, self._upscalers[key])
            for sentence in facts if facts not in self._told else ():
                self._say(Said(sentence, True))
            self._told.add(facts)
        return self._upscalers[key]

    def _pictures(self, jobs: tuple[Job, ...]) -> UnitEnded:
        tally = Tally()
        return self._make(jobs, self._brief.options, tally, _UnitObserver(self._say, tally), None)

    def _without_files(self, job: Job) -> UnitEnded:
        """A picture that arrived with its job, and is returned with its name."""
        tally, stream, options = Tally(), io.BytesIO(), self._brief.options
        options = replace(options, write=replace(options.write, keep_time=False))  # published by the leading process
        reporter = _UnitObserver(self._say, tally, job.target, stream)
        return self._make((replace(job, target=STREAM),), options, tally, reporter, stream)

    def _make(
        self,
        jobs: tuple[Job, ...],
        options: UpscaleOptions,
        tally: Tally,
        reporter: _UnitObserver,
        stream: io.BytesIO | None,
    ) -> UnitEnded:
        key, assign = self._brief.settings_key, self._session.assign
        batch.run_handed(jobs, options, key, self._upscaler, reporter, assign, tally, stream)
        return UnitEnded(tally.error, tally.network_seconds, tally.network_pixels, reporter.seconds())

    def _check_access(self, check: CheckAccess) -> UnitEnded:
        sees = (check.source is None or check.source.is_file()) and (check.probe is None or _holds(*check.probe))
        self._say(AccessChecked(sees))
        return UnitEnded()

    def _survey(self, survey: Survey) -> UnitEnded:
        upscaler = self._upscaler(survey.job)
        tile_px, band_px, halo_px = upscaler.bands_of(survey.job.header.width, survey.job.header.channels)
        sees = survey.probe is not None and _holds(*survey.probe)
        self._say(Surveyed(upscaler.scale, tile_px, band_px, halo_px, sees))
        return UnitEnded()

    def _strip(self, strip: Strip) -> UnitEnded:
        job, rows = strip.job, strip.rows
        upscaler = self._upscaler(job)
        scale, dtype = upscaler.scale, np.dtype(np.uint8 if job.canvas_depth == 8 else np.uint16)
        shape = job.header.height * scale, job.header.width * scale, job.header.channels
        began = time.perf_counter()
        is_due = _Interval()

        def computed(low_px: int) -> None:
            if is_due():
                self._say(StripComputed(rows.start, low_px))

        if strip.scratch is not None:
            whole = np.memmap(strip.scratch, dtype, "r+", shape=shape)
            high = whole[rows.start * scale : rows.stop * scale]
            upscaler.upscale_strip(strip.low, rows, high, strip.tile_px, computed)
            whole.flush()
        else:
            high = np.empty((rows.core * scale, *shape[1:]), dtype)
            upscaler.upscale_strip(strip.low, rows, high, strip.tile_px, computed)
        self._say(StripDone(rows, None if strip.scratch is not None else high))
        return UnitEnded(None, time.perf_counter() - began, rows.core * shape[1] * scale)


def _holds(path: Path, token: str) -> bool:
    try:
        return path.read_text(encoding="ascii") == token
    except (OSError, ValueError):
        return False


class _Interval:
    """True when called for the first time after another `_PART_SECONDS`."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._last < _PART_SECONDS:
            return False
        self._last = now
        return True


class _UnitObserver:
    """The observer of a worker's runs."""

    def __init__(
        self,
        say: Callable[[Event], None],
        tally: Tally,
        target: Path | None = None,
        stream: io.BytesIO | None = None,
    ) -> None:
        self._say, self._tally, self._stream = say, tally, stream
        self._target = target  # the bytes of a picture written to the stream
        self._begun: float | None = None
        self._is_due = _Interval()

    def seconds(self) -> float:
        """Since the first picture was started."""
        return 0.0 if self._begun is None else time.perf_counter() - self._begun

    def _target_of(self, job: Job) -> Path:
        return job.target if self._target is None else self._target

    def started(self, job: Job) -> None:
        self._begun = self._begun or time.perf_counter()
        self._say(Started(self._target_of(job), job.model, job.why, job.made_by))

    def advanced(self, job: Job, network_pixels: int) -> None:
        self._say(Advanced(self._target_of(job), network_pixels))

    def resumed(self, job: Job, network_pixels: int) -> None:
        self._say(Advanced(self._target_of(job), network_pixels, resumed=True))

    def computed(self, job: Job, network_pixels: int) -> None:
        if self._is_due():
            self._say(Computed(self._target_of(job), network_pixels))

    def done(self, job: Job, seconds: float, notes: tuple[str, ...]) -> None:
        data = None if self._stream is None else self._stream.getvalue()
        result = "" if data is not None else identity(job.target)
        damaged = any(one.target == job.target for one in self._tally.damaged)
        self._say(Done(self._target_of(job), seconds, notes, result, damaged, data))

    def failed(self, failure: Failure) -> None:
        self._say(Failed(failure if self._target is None else replace(failure, target=self._target)))

    def skipped(self, skip: Skip) -> None:
        raise AssertionError("a worker makes what it is given")

    def note(self, sentence: str) -> None:
        self._say(Said(sentence, False))

    def detail(self, sentence: str) -> None:
        self._say(Said(sentence, True))
