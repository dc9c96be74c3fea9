"""One large picture, divided among all workers band by band: bands are independent except for their context."""

from __future__ import annotations

import contextlib
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from srgan_cli.engine.rows import RowSource, RowWindow
from srgan_cli.engine.tiles import Span, next_rows
from srgan_cli.errors import DeviceError, PictureError, WeightsError
from srgan_cli.files import discard, publish_text
from srgan_cli.imaging.image import Pixels
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling.crew.messages import (
    Event,
    Strip,
    StripComputed,
    StripDone,
    Survey,
    Surveyed,
    UnitEnded,
    WorkerLost,
)
from srgan_cli.upscaling.crew.roster import TRIES, Roster
from srgan_cli.upscaling.plan import Job

_POLL_SECONDS = 0.5
Probe: TypeAlias = "tuple[Path, str]"  # a file, and its content


class UndividedError(DeviceError):
    """The model's tiles are blended, so a band cannot be made independently."""


class CrewUpscaler:
    """Replaces an `Upscaler` for one job: its bands are made by the workers."""

    def __init__(self, roster: Roster, job: Job) -> None:
        self._roster, self._job = roster, job
        self.scale = job.network_scale

    def first_row(self, done_rows: int) -> int:
        return done_rows

    def upscale_rows(
        self,
        source: RowSource,
        out: Pixels,
        *,
        on_rows: Callable[[int], None] | None = None,
        on_part: Callable[[int], None] | None = None,
        first_row: int = 0,
    ) -> None:
        """Like `Upscaler.upscale_rows`; `on_rows` is called for rows in order. Raises `UndividedError`."""
        scratch = _path_of(out, self._job)
        with _probing(scratch) as probe:
            answers = self._survey(probe)
            cut = _common(answers)
            _refuse_blending(cut)
            seeing = {worker: answer.sees_probe for worker, answer in answers.items()}
            making = _Making(self._roster, self._job, cut, scratch, probe, seeing)
            making.run(source, out, on_rows or (lambda _rows: None), on_part or (lambda _px: None), first_row)

    def upscale(self, low: Pixels) -> Pixels:
        """(H, W, C) -> (H·scale, W·scale, C), by one of the workers. Raises `UndividedError`."""
        cut = _common(self._survey(None))
        _refuse_blending(cut)
        header = replace(self._job.header, width=low.shape[1], height=low.shape[0], channels=low.shape[2])
        job = replace(self._job, header=header)
        strip = Strip(job, Span(0, 0, len(low), len(low)), np.ascontiguousarray(low), cut.tile_px, None)
        for _ in range(TRIES):
            self._roster.await_one()
            self._roster.give(self._roster.idle()[0], strip)
            made: Pixels | None = None
            while self._roster.busy:
                for one, event in self._roster.wait(_POLL_SECONDS):
                    if isinstance(event, StripDone):
                        made = event.high
                    elif isinstance(event, (UnitEnded, WorkerLost)):
                        self._roster.settle(one, event)
            if made is not None:
                return made
        raise PictureError(f"each of the {TRIES} workers that tried to make a part of it has ended")

    def _survey(self, probe: Probe | None) -> dict[str, Surveyed]:
        """How each current worker would cut the picture."""
        answers: dict[str, Surveyed] = {}
        while not answers or self._roster.busy:
            for worker in self._roster.idle():
                if worker not in answers:
                    self._roster.give(worker, Survey(self._job, probe))
            for worker, event in self._roster.wait(_POLL_SECONDS):
                if isinstance(event, Surveyed):
                    answers[worker] = event
                elif isinstance(event, (UnitEnded, WorkerLost)):
                    if isinstance(event, WorkerLost):
                        answers.pop(worker, None)
                    self._roster.settle(worker, event)
        return answers


@contextlib.contextmanager
def _probing(scratch: Path | None) -> Iterator[Probe | None]:
    """A file beside the scratch file: a worker that sees it can write its rows there."""
    if scratch is None:
        yield None
        return
    token = secrets.token_hex(16)
    probe = scratch.with_name(f".srgan-probe.{token[:8]}"), token
    publish_text(*probe)
    try:
        yield probe
    finally:
        discard(probe[0])


def _common(answers: dict[str, Surveyed]) -> Surveyed:
    """A way of cutting the picture that all of them support."""
    several = list(answers.values())
    return Surveyed(
        several[0].scale,
        min(one.tile_px for one in several),
        min(one.band_px for one in several),
        max(one.halo_px for one in several),
        all(one.sees_probe for one in several),
    )


def _refuse_blending(cut: Surveyed) -> None:
    if cut.tile_px == 0:
        raise UndividedError("this model blends its tiles, so its pictures are not made in bands")


def _freight(strip: Strip, scale: int) -> int:
    """How many bytes are transferred with it, to the worker and (if it does not see the scratch file) back."""
    back = 0 if strip.scratch is not None else strip.rows.core * scale**2 * strip.low[0].size
    return strip.low.nbytes + back * strip.job.canvas_depth // 8


def _path_of(out: Pixels, job: Job) -> Path | None:
    """The scratch file's path, if the result grows in one: other processes cannot use handles."""
    name = getattr(out, "filename", None)
    if name is not None and isinstance(job.target, StorePath):  # for a result that is being written
        return Path(name).parent.resolve() / Path(name).name
    return None if name is None else job.target.parent.absolute() / Path(name).name


class _Making:
    """One picture in progress."""

    def __init__(
        self,
        roster: Roster,
        job: Job,
        cut: Surveyed,
        scratch: Path | None,
        probe: Probe | None,
        seeing: dict[str, bool],
    ) -> None:
        self._roster, self._job, self._cut, self._scratch = roster, job, cut, scratch
        self._probe, self._seeing = probe, seeing
        self._out: dict[str, deque[Strip | None]] = {}  # the strips of each worker, in order; None: a unit without one
        self._waiting: deque[Strip] = deque()
        self._tries: Counter[int] = Counter()
        self._ready: dict[int, int] = {}  # finished strips below unfinished ones: first row to last
        self._computed: dict[int, int] = {}  # first rows of strips that are not in order yet, and their computed low px
        self._left = 1  # number of strips that are not cut yet

    def run(
        self,
        source: RowSource,
        out: Pixels,
        on_rows: Callable[[int], None],
        on_part: Callable[[int], None],
        first_row: int,
    ) -> None:
        strips = self._strips(source, first_row)
        done, told = first_row, 0
        try:
            while done < self._job.header.height or self._roster.busy:
                self._hand_out(strips)
                for worker, event in self._roster.wait(_POLL_SECONDS):
                    self._take_in(worker, event, out)
                while done in self._ready:
                    stop = self._ready.pop(done)
                    self._computed.pop(done, None)
                    on_rows(stop - done)
                    done, told = stop, 0  # what is computed of the others has to be told again
                if (part := sum(self._computed.values())) != told:
                    on_part(part)
                    told = part
        except BaseException as err:
            self._settle_down(goes_on=isinstance(err, Exception) and not isinstance(err, (DeviceError, WeightsError)))
            raise

    def _strips(self, source: RowSource, first_row: int) -> Iterator[Strip]:
        """The same bands that one device would make, each with its context."""
        header, cut = self._job.header, self._cut
        window, top = RowWindow(source), first_row
        while top < header.height:
            rows = next_rows(top, header.height, cut.band_px, cut.halo_px)
            low = window.take(rows.begin, rows.end, keep_from=rows.begin)
            self._left = -(-(header.height - rows.stop) // cut.band_px)
            yield Strip(self._job, rows, np.ascontiguousarray(low), cut.tile_px, None)
            top = rows.stop

    def _hand_out(self, strips: Iterator[Strip]) -> None:
        for worker in self._roster.free():
            if worker not in self._seeing:  # it has joined since, or replaced another
                if worker not in self._roster.busy:
                    self._out.setdefault(worker, deque()).append(None)
                    self._roster.give(worker, Survey(self._job, self._probe))
                continue
            if worker in self._roster.busy and self._is_last_round():
                return
            strip = self._waiting.popleft() if self._waiting else next(strips, None)
            if strip is None:
                return
            strip = replace(strip, scratch=self._scratch if self._seeing[worker] else None)
            if not self._roster.reserve(worker, _freight(strip, self._cut.scale)):
                self._waiting.appendleft(strip)
                return
            self._out.setdefault(worker, deque()).append(strip)
            self._roster.hand(worker, strip)

    def _is_last_round(self) -> bool:
        """Whether the remaining strips should go to the workers that become idle first."""
        return len(self._waiting) + self._left < self._roster.count

    def _take_in(self, worker: str, event: Event, out: Pixels) -> None:
        if isinstance(event, StripDone) and self._out.get(worker):
            rows = event.rows
            if event.high is not None:
                out[rows.start * self._cut.scale : rows.stop * self._cut.scale] = event.high
            self._ready[rows.start] = rows.stop
            self._computed[rows.start] = rows.core * self._job.header.width
            self._out[worker][0] = None
        elif isinstance(event, StripComputed):
            self._computed[event.row] = event.low_px
        elif isinstance(event, Surveyed):
            self._seeing[worker] = event.sees_probe
        elif isinstance(event, (UnitEnded, WorkerLost)):
            if isinstance(event, WorkerLost):
                self._seeing.pop(worker, None)
            self._take_back(worker, event)
            self._roster.settle(worker, event)

    def _take_back(self, worker: str, event: UnitEnded | WorkerLost) -> None:
        """Take back a worker's unfinished strips: all of them if it has died or failed. It was working on the first."""
        given = self._out.get(worker, deque())
        ended = len(given) if isinstance(event, WorkerLost) or event.error is not None else min(1, len(given))
        strips = [strip for strip in (given.popleft() for _ in range(ended)) if strip is not None]
        self._waiting.extendleft(reversed(strips))
        for strip in strips:
            self._computed.pop(strip.rows.start, None)
        if isinstance(event, WorkerLost) and strips:
            first_row = strips[0].rows.start
            self._tries[first_row] += 1
            if self._tries[first_row] >= TRIES:
                raise PictureError(
                    f"each of the {TRIES} workers that tried to make its rows from {first_row} on has ended, "
                    f"the last with {event.how}"
                )

    def _settle_down(self, *, goes_on: bool) -> None:
        """Wait for what was started, so that no worker writes into a scratch file that is released. If the run goes on,
        workers that end meanwhile are replaced, or the next picture would wait for them for ever."""
        (self._roster.crew.recall if goes_on else self._roster.crew.interrupt)()
        ended: list[tuple[str, UnitEnded | WorkerLost]] = []
        while self._roster.busy:
            for worker, event in self._roster.crew.wait(_POLL_SECONDS):
                self._roster.note(worker, event)
                if isinstance(event, WorkerLost) or (isinstance(event, UnitEnded) and event.error is not None):
                    ended.append((worker, event))
        for worker, event in ended if goes_on else ():
            self._roster.settle(worker, event)
