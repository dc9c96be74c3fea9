"""Leads a run with several workers: one plan, one progress, one record. Pictures are handed out a few at a time."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import (
    DefectError,
    DeviceError,
    UnreadablePictureError,
    UnwritablePictureError,
    WeightsError,
    shown,
)
from srgan_cli.files import part_name, reason, stale_parts
from srgan_cli.upscaling.crew.file_access import FileAccess
from srgan_cli.upscaling.crew.messages import (
    AccessChecked,
    Advanced,
    Computed,
    Done,
    Event,
    Failed,
    Started,
    UnitEnded,
    WorkerLost,
)
from srgan_cli.upscaling.crew.outstanding import Outstanding
from srgan_cli.upscaling.crew.roster import TRIES, UNITS, Roster
from srgan_cli.upscaling.inputs import Failure
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.places import Places
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.present import exists
from srgan_cli.upscaling.records import Records
from srgan_cli.upscaling.sharing import Share

# A worker gets pictures for about this long at a time: little enough that not much is lost if it dies, and enough for
# reading, network and writing to overlap, which they do not between units. Towards the end it gets fewer.
_UNIT_SECONDS = 8.0
MAX_PICTURES = 32
# A worker gets its next unit when its current one is this close to its end: early enough that it never waits, although
# its events may arrive only once a second; late enough that no picture waits that another worker could make.
_EARLY_SECONDS = 2.5
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 20.0


class Dispatch:
    """Hands out the pictures of a share and processes the workers' events."""

    def __init__(
        self,
        options: UpscaleOptions,
        roster: Roster,
        share: Share,
        records: Records,
        observer: Observer,
        tally: Tally,
        stream: BinaryIO | None = None,
        places: Places | None = None,
    ) -> None:
        self._access = FileAccess(options, places or Places(), sees_all=roster.crew.sees_all)
        self._stream = stream  # for results without a file; None: stdout
        self._options, self._roster, self._share, self._records = options, roster, share, records
        self._observer, self._tally = observer, tally
        self._waiting: deque[Job] = deque()
        self._alone: deque[Job] = deque()  # their worker died: each is given to a worker alone
        self._out = Outstanding()
        self._speeds: dict[str, float] = {}  # px/s
        self._tries: Counter[Path] = Counter()

    def run(self) -> None:
        """Returns when all is done, by any process; the tally says how each picture ended."""
        with self._feeding() as fed, self._access.probing():
            try:
                while self._go_on(fed):
                    for worker, event in self._recorded(self._named(self._roster.wait(_POLL_SECONDS))):
                        self._take_in(worker, event)
            except KeyboardInterrupt:
                self._tally.interrupted = True
                self._interrupt()
            except (DeviceError, WeightsError) as err:
                self._tally.error = err
                self._interrupt()

    @contextlib.contextmanager
    def _feeding(self) -> Iterator[queue.SimpleQueue[Job | None]]:
        """The share's jobs, as they become available: a thread waits for those that other processes hold."""
        fed: queue.SimpleQueue[Job | None] = queue.SimpleQueue()

        def feed() -> None:
            try:
                for job in self._share.jobs():
                    fed.put(job)
            except BaseException as err:  # noqa: BLE001 - raised again in the caller's thread
                self._crash = err
            finally:
                fed.put(None)

        thread = threading.Thread(target=feed, name="srgan-feeder", daemon=True)
        thread.start()
        try:
            yield fed
        finally:
            self._share.end()
            thread.join()

    def _go_on(self, fed: queue.SimpleQueue[Job | None]) -> bool:
        """Hand out what is available; False if nothing is left."""
        with contextlib.suppress(queue.Empty):
            while not self._tally.cut_short:
                job = fed.get(timeout=_POLL_SECONDS) if self._is_starving() else fed.get_nowait()
                if job is None:
                    fed.put(None)  # for the next call
                    self._is_fed = True
                    break
                self._waiting.append(job)
        if self._options.fail_fast and self._tally.failures:
            self._tally.cut_short = True
            self._waiting.clear()
            self._alone.clear()
        if self._crash is not None:
            raise self._crash
        self._hand_out()
        return bool(self._out or self._waiting or self._alone or not (self._is_fed or self._tally.cut_short))

    _is_fed = False
    _crash: BaseException | None = None

    def _is_starving(self) -> bool:
        return not (self._waiting or self._alone or self._out or self._is_fed)

    def _hand_out(self) -> None:
        """Give units to all idle workers, with a common entry in the record: a sync takes longer than everything else
        here."""
        given: list[tuple[str, tuple[Job, ...]]] = []
        is_full = False  # with pictures in transit to workers that see no files, and back
        for worker in self._roster.free():
            if not (self._alone or self._waiting):
                break
            if is_full and self._access.lacks_files(worker):
                continue
            if worker in self._roster.busy and not self._is_nearly_done(worker):
                continue
            if not self._access.is_known(worker):
                self._out.give(worker, ())
                self._roster.give(worker, self._access.check((self._alone or self._waiting)[0]))
                continue
            jobs = (self._alone.popleft(),) if self._alone else self._next_jobs(worker)
            if self._roster.reserve(worker, self._access.freight(worker, jobs[0])):
                given.append((worker, jobs))
            else:
                self._alone.extendleft(jobs)  # it is one
                is_full = True
        for worker, jobs in self._begun(given):
            try:
                self._roster.hand(worker, self._access.unit(worker, jobs))
            except UnreadablePictureError as err:
                self._roster.release(worker)
                (job,) = jobs
                self._failed(job, Failure(job.source, str(err), type(err), job.target))
            else:
                self._out.give(worker, jobs)

    def _is_nearly_done(self, worker: str) -> bool:
        """Whether a worker that has a unit should get another."""
        if self._options.fail_fast or not self._access.is_known(worker):
            return False
        if worker not in self._speeds:
            return len(self._waiting) >= UNITS * self._roster.count
        return self._out.left(worker) < self._speeds[worker] * _EARLY_SECONDS

    def _begun(self, given: list[tuple[str, tuple[Job, ...]]]) -> list[tuple[str, tuple[Job, ...]]]:
        """The jobs that are handed out, after recording them; empty if the record cannot be written: then all of them
        have failed."""
        try:
            self._records.begin_all([job for _, jobs in given for job in jobs])
        except OSError as err:
            for worker, jobs in given:
                self._roster.release(worker)
                for job in jobs:
                    self._failed(job, _unrecorded(job, err))
            return []
        return given

    def _named(self, events: list[tuple[str, Event]]) -> list[tuple[str, Event]]:
        """The events, after publishing pictures that were sent back."""
        return [
            (worker, self._access.named(job, event))
            if isinstance(event, Done) and (job := self._out.job(worker, event.target)) is not None
            else (worker, event)
            for worker, event in events
        ]

    def _recorded(self, events: list[tuple[str, Event]]) -> list[tuple[str, Event]]:
        """The events, after recording what is done, before they have any other effect."""
        done: dict[Path, tuple[Job, str]] = {}
        damaged: list[tuple[Job, str]] = []  # which are made again
        for worker, event in events:
            if isinstance(event, Done) and (job := self._out.job(worker, event.target)) is not None:
                if event.damaged:
                    damaged.append((job, event.result))
                else:
                    done[event.target] = job, event.result
        try:
            for job, result in damaged:
                self._records.leave(job, job.source_identity, result)
            self._records.finish_all(list(done.values()))
        except OSError as err:
            failed = {target: Failed(_unrecorded(job, err)) for target, (job, _) in done.items()}
            return [(w, failed.get(event.target, event) if isinstance(event, Done) else event) for w, event in events]
        return events

    def _next_jobs(self, worker: str) -> tuple[Job, ...]:
        budget = self._speeds.get(worker, 0.0) * _UNIT_SECONDS
        fair = -(-len(self._waiting) // (2 * max(1, self._roster.count)))
        jobs: list[Job] = []
        most = 1 if self._access.lacks_files(worker) else MAX_PICTURES
        while self._waiting and len(jobs) < min(most, max(1, fair)):
            if jobs and budget < self._waiting[0].network_pixels:
                break
            jobs.append(self._waiting.popleft())
            budget -= jobs[-1].network_pixels
        return tuple(jobs)

    def _take_in(self, worker: str, event: Event) -> None:
        if isinstance(event, Started) and (job := self._out.start(worker, event)) is not None:
            self._observer.started(job)
        elif isinstance(event, Advanced) and (job := self._out.advance(worker, event)) is not None:
            (self._observer.resumed if event.resumed else self._observer.advanced)(job, event.network_pixels)
        elif isinstance(event, Computed) and (job := self._out.job(worker, event.target)) is not None:
            self._observer.computed(job, event.network_pixels)
        elif isinstance(event, Done) and (job := self._out.pop(worker, event.target)) is not None:
            self._done(job, event)
        elif isinstance(event, Failed) and (job := self._out.pop(worker, event.failure.target)) is not None:
            self._failed(job, event.failure)
        elif isinstance(event, AccessChecked):
            self._access.note(worker, event.sees)
            if not event.sees:
                self._observer.detail(f"{worker} does not see the folders: pictures are sent to it, and results back")
        elif isinstance(event, (UnitEnded, WorkerLost)):
            self._take_back(worker, event)

    def _done(self, job: Job, event: Done) -> None:
        if event.data is not None:
            stream = self._stream or sys.stdout.buffer
            stream.write(event.data)
            stream.flush()
        self._tally.done.append(job)
        self._tally.damaged += [job] * event.damaged
        self._share.settle(job)
        self._observer.done(job, event.seconds, event.notes)

    def _failed(self, job: Job, failure: Failure) -> None:
        if self._share.yields(job):
            return
        self._tally.failures.append(failure)
        self._records.withdraw(job)
        self._share.settle(job)
        self._observer.failed(failure)

    def _take_back(self, worker: str, event: UnitEnded | WorkerLost) -> None:
        if isinstance(event, UnitEnded):
            self._tally.network_seconds += event.network_seconds
            self._tally.network_pixels += event.network_pixels
            if event.network_pixels:
                self._speeds[worker] = event.network_pixels / max(event.seconds, 1e-3)
            left = self._out.end_all(worker) if event.error is not None else self._out.end_first(worker)
        else:
            self._access.forget(worker)
            tried, left = self._out.end_dead(worker)
            for job in tried:
                self._again(job, worker, event)
        self._waiting.extendleft(reversed(left))
        self._roster.settle(worker, event)

    def _again(self, job: Job, worker: str, event: WorkerLost) -> None:
        """A job whose worker died: given out alone, since it may have been the cause."""
        self._tries[job.target] += 1
        if self._tries[job.target] >= TRIES:
            how = f"each of the {TRIES} workers that tried to make it has ended, the last with {event.how}"
            self._failed(job, Failure(job.source, how, DefectError, job.target))
            return
        _clean(job)
        # It may already be published, by the worker just before it died.
        is_left = job.is_new and exists(job.target) and self._records.found(job) != "unknown"
        self._alone.append(replace(job, is_new=job.is_new and not is_left))

    def _interrupt(self) -> None:
        """Start nothing more, and make all workers end without partial results."""
        self._share.end()
        self._roster.crew.interrupt()
        until = time.monotonic() + _GRACE_SECONDS
        while self._roster.busy and time.monotonic() < until:
            for worker, event in self._recorded(self._named(self._roster.crew.wait(0.2))):
                self._roster.note(worker, event)
                if isinstance(event, (UnitEnded, WorkerLost)):
                    is_last = worker not in self._roster.busy
                    self._drop(self._out.end_all(worker) if is_last else self._out.end_first(worker))
                elif isinstance(event, Done) and (job := self._out.pop(worker, event.target)) is not None:
                    self._done(job, event)

    def _drop(self, jobs: list[Job]) -> None:
        """Drop the jobs of an interrupted run that no worker will make."""
        for job in jobs:
            _clean(job)
            if not exists(job.target):
                self._records.withdraw(job)


def _unrecorded(job: Job, err: OSError) -> Failure:
    why = f"{shown(job.target)} cannot be recorded: {reason(err)}"
    return Failure(job.source, why, UnwritablePictureError, job.target)


def _clean(job: Job) -> None:
    """Remove a killed worker's partial files of a job."""
    for part, name in stale_parts(job.target.parent).items():
        if name == part_name(job.target):
            with contextlib.suppress(OSError):
                part.unlink()
