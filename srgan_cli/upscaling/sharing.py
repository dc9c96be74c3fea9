"""The pictures of a plan that are left for this process, while other processes may work in the same folders."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import UnwritablePictureError, shown
from srgan_cli.files import part_name, reason, stale_parts
from srgan_cli.stores.failures import given_up
from srgan_cli.upscaling.inputs import STREAM, Failure
from srgan_cli.upscaling.ledger import identity
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.places import JOURNAL, beside
from srgan_cli.upscaling.plan import Job, Plan, Skip
from srgan_cli.upscaling.present import exists
from srgan_cli.upscaling.records import Records

POLL_SECONDS = 1.0  # how often to check whether others are done; more often at first
_FIRST_POLL_SECONDS = 0.05
# Pictures claimed at a time, to be read, upscaled or written; other processes cannot have them. If there are other
# processes, the number decreases towards the end, so that all end together.
AHEAD = 4
_LAST_AHEAD = 2
_OF_THE_LEFT = 4  # at most one in this many of the remaining pictures is claimed, except for the last ones
_MADE = "another process has made it"


class Share:
    """Hands out each job of a plan that no other process makes or has made, and waits for those that others make.

    `jobs` is for one thread; `settle` and `end` are for any.
    """

    def __init__(
        self,
        plan: Plan,
        options: UpscaleOptions,
        records: Records,
        observer: Observer,
        tally: Tally,
        ahead: int = AHEAD,
        last_ahead: int = _LAST_AHEAD,
    ) -> None:
        self._jobs, self._options, self._records = plan.jobs, options, records
        self._observer, self._tally = observer, tally
        self._ahead, self._last_ahead = ahead, last_ahead
        self._out = 0  # handed out and not settled yet
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._has_met_others = False
        self._parts = _parts(plan.jobs) if options.resume else {}
        self._taken: set[Path] = set()

    def jobs(self) -> Iterator[Job]:
        """Ends when all are done, by any process, or after `end`."""
        left: Sequence[Job] = self._jobs
        is_noted, pause = False, _FIRST_POLL_SECONDS
        while left:
            held: list[Job] = []
            for number, job in enumerate(left):
                if not self._wait_for_place(len(left) - number):
                    return
                given = self._claimed(job, held)
                if given is None:
                    self._give_place()
                else:
                    yield given
            left = held
            if held and not is_noted:
                self._observer.note(_waiting(len(held)))
                is_noted = True
            if held and self._ended.wait(min(pause, POLL_SECONDS)):
                return
            pause *= 2

    def settle(self, job: Job) -> None:
        """A job that was handed out has succeeded or failed, and this is recorded."""
        if job.target in self._taken:
            self._taken.discard(job.target)
            self._records.release(job)
        self._give_place()

    def is_lost(self, job: Job) -> bool:
        """Whether a job of this process has been taken over (because it stalled) or made by another process."""
        if job.target not in self._taken:
            return False
        with contextlib.suppress(OSError):  # the store does not answer, so it is unknown
            return self._records.is_taken_over(job) or self._is_made(job)
        return False

    def yields(self, job: Job) -> bool:
        """Whether a job that has failed here now belongs to another process. Then it is skipped, and settled."""
        if not self.is_lost(job):
            return False
        skip = Skip(job.source, job.target, "another process has taken it over")
        self._tally.skips.append(skip)
        self._observer.skipped(skip)
        self.settle(job)
        return True

    def end(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._ended.set()
            self._changed.notify_all()

    def _wait_for_place(self, left: int) -> bool:
        """Wait until one more may be handed out, of that many that are left; False after `end`."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended.is_set() or self._out < self._most_out(left))
            self._out += 1
            return not self._ended.is_set()

    def _most_out(self, left: int) -> int:
        return min(self._ahead, max(self._last_ahead, left // _OF_THE_LEFT)) if self._has_met_others else self._ahead

    def _give_place(self) -> None:
        with self._changed:
            self._out -= 1
            self._changed.notify_all()

    def _claimed(self, job: Job, held: list[Job]) -> Job | None:
        try:
            return self._claim(job, held)
        except OSError as err:  # about the results' folder, or srgan's own files in it
            why = f"{shown(job.target)} cannot be written: {reason(err)}"
            failure = Failure(job.source, why, UnwritablePictureError, job.target, given_up(err))
            self._tally.failures.append(failure)
            self._observer.failed(failure)
            if self._options.fail_fast:
                self._ended.set()
            return None

    def _claim(self, job: Job, held: list[Job]) -> Job | None:
        """The job, claimed; None if it is done, or held by another process."""
        if job.ledger is None or job.target == STREAM:
            return job
        if self._is_done(job):
            return None
        if not self._records.take(job):
            self._has_met_others = True
            held.append(job)
            return None
        if self._is_done(job):  # in the meantime
            self._records.release(job)
            return None
        self._taken.add(job.target)
        for part in self._parts.get(_place_of(job), ()):
            with contextlib.suppress(OSError):
                part.unlink()
        if not (self._options.resume and job.is_new and exists(job.target)):
            return job
        state = self._records.found(job)
        if state == "done":  # made by a process that was killed, or stood still, before it could record that
            self._records.finish(job, job.source_identity, identity(job.target))
            self._taken.discard(job.target)
            self._records.release(job)
            self._skip(job)
            return None
        return replace(job, is_new=False) if state == "stale" else job

    def _is_done(self, job: Job) -> bool:
        """Whether another process has made it since the run was planned."""
        if not self._is_made(job):
            return False
        self._skip(job)
        return True

    def _skip(self, job: Job) -> None:
        self._has_met_others = True
        skip = Skip(job.source, job.target, _MADE)
        self._tally.skips.append(skip)
        self._observer.skipped(skip)

    def _is_made(self, job: Job) -> bool:
        if not exists(job.target) or self._records.state(job) != "done":
            return False
        return not self._options.overwrite or self._records.is_fresh(job)


def _waiting(count: int) -> str:
    left, them = ("1 picture is", "it") if count == 1 else (f"{count} pictures are", "them")
    return f"{left} being made by other processes; waiting for {them}"


def _place_of(job: Job) -> tuple[Path, str]:
    return job.target.parent, part_name(job.target)


def _parts(jobs: Sequence[Job]) -> dict[tuple[Path, str], list[Path]]:
    """Partial files of these jobs' results from killed runs, to be removed by the process that makes them."""
    found: dict[tuple[Path, str], list[Path]] = {}
    names = {(job.target.parent, part_name(beside(job.target, JOURNAL))): part_name(job.target) for job in jobs}
    for folder in dict.fromkeys(job.target.parent for job in jobs if job.target != STREAM):
        for part, name in stale_parts(folder).items():
            found.setdefault((folder, names.get((folder, name), name)), []).append(part)
    return found


class Handed:
    """Jobs that another process has claimed and records; replaces a `Share` and `Records`."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs = jobs
        self._ended = threading.Event()

    def jobs(self) -> Iterator[Job]:
        for job in self._jobs:
            if self._ended.is_set():
                return
            yield job

    def settle(self, job: Job) -> None: ...

    def yields(self, job: Job) -> bool:
        return False

    def end(self) -> None:
        self._ended.set()

    def begin(self, job: Job, source: str) -> None: ...

    def finish(self, job: Job, source: str, result: str) -> None: ...

    def leave(self, job: Job, source: str, result: str) -> None: ...

    def withdraw(self, job: Job) -> None: ...

    def close(self) -> None: ...
