"""The records and claims of the folders that a run writes into, for several threads, and shared with other
processes."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from srgan_cli.stores import store
from srgan_cli.stores.failures import StoreError
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling.claims import RENEW_SECONDS, Claims
from srgan_cli.upscaling.done import recorded_state
from srgan_cli.upscaling.ledger import TO_BE_MADE_AGAIN, Ledger, ResultState, identity
from srgan_cli.upscaling.places import Places
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.record_storage import FILE_NAME, part_for, parts_of
from srgan_cli.upscaling.store_claims import StoreClaims


class _Record:
    """A folder's claims and its ledger. One process at a time writes to the ledger's main file, others to files beside
    it."""

    def __init__(self, folder: Path, handle: Path) -> None:
        self._handle = handle
        self.claims = _store_claims(folder) if isinstance(folder, StorePath) else _claims(handle)
        self.ledger = Ledger.load(folder, handle)
        if self.claims is not None:
            self.claims.sweep()
        if isinstance(self.claims, Claims):
            self._choose_file(self.claims)
        else:  # each process has its own objects
            self.ledger.write_to(part_for(secrets.token_hex(8)) if isinstance(folder, StorePath) else FILE_NAME)

    def _choose_file(self, claims: Claims) -> None:
        if claims.take(FILE_NAME):
            self._gather(claims)
        else:
            part = part_for(claims.token)
            claims.take(part)
            self.ledger.write_to(part)

    def _gather(self, claims: Claims) -> None:
        """Merge the lines of processes that have ended into the record."""
        for part in parts_of(self._handle):
            if claims.take(part):
                self.ledger.gather(part)
                claims.release(part)

    def close(self) -> None:
        self.ledger.close()
        if isinstance(self.claims, Claims):
            self._leave_file(self.claims)
        if self.claims is not None:
            self.claims.close()

    def _leave_file(self, claims: Claims) -> None:
        claims.release(part_for(claims.token))
        if claims.holds(FILE_NAME):
            self._gather(claims)
            claims.release(FILE_NAME)
        # A process that ended meanwhile has left its lines to the process that held the record.
        while self._has_ended_parts(claims) and claims.take(FILE_NAME):
            self._gather(claims)
            claims.release(FILE_NAME)

    def _has_ended_parts(self, claims: Claims) -> bool:
        for part in parts_of(self._handle):
            if claims.take(part):
                claims.release(part)
                return True
        return False


def _claims(folder: Path) -> Claims | None:
    """None for a folder that is not writable; each picture then fails with its own message."""
    try:
        return Claims(folder)
    except OSError:
        return None


def _store_claims(folder: StorePath) -> StoreClaims | None:
    """None for a store without conditional uploads: there, processes do not divide the work."""
    if not store.is_exclusive(folder):
        return None
    try:
        return StoreClaims(folder)
    except (StoreError, OSError):
        return None


class Records:
    """The records of all folders. `Job.ledger` says which one a job belongs to; a job without one is neither recorded
    nor claimed."""

    def __init__(self, places: Places, settings_key: str) -> None:
        self._places, self._settings_key = places, settings_key
        self._records: dict[Path, _Record] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._renewer: threading.Thread | None = None

    def begin(self, job: Job, source: str) -> None:
        """`source`: the input's identity."""
        with self._lock:
            if (record := self._of(job)) is not None:
                record.ledger.begin(job.target, source, self._settings_key, _replaced(job))

    def finish(self, job: Job, source: str, result: str) -> None:
        with self._lock:
            if (record := self._of(job)) is not None:
                record.ledger.finish(job.target, source, self._settings_key, result)

    def leave(self, job: Job, source: str, result: str) -> None:
        """Record a result that exists and is srgan's, but should be made again by a resumed run."""
        with self._lock:
            if (record := self._of(job)) is not None:
                record.ledger.finish(job.target, source, TO_BE_MADE_AGAIN, result)

    def withdraw(self, job: Job) -> None:
        """A started job has failed, and its name is not used."""
        with self._lock, contextlib.suppress(OSError):  # for example on a full disk: the failure itself is reported
            record = None if job.ledger is None or not job.is_new else self._records.get(job.ledger)
            if record is not None:
                record.ledger.withdraw(job.target)

    def begin_all(self, jobs: Sequence[Job]) -> None:
        """Like `begin` for several jobs, synced once per folder."""
        for record, several in self._by_record(jobs):
            rows = [(job.target, job.source_identity, _replaced(job)) for job in several]
            record.ledger.begin_all(rows, self._settings_key)

    def finish_all(self, results: Sequence[tuple[Job, str]]) -> None:
        """Like `finish` for several jobs and the identities of their results."""
        found = {job.target: result for job, result in results}
        for record, several in self._by_record([job for job, _ in results]):
            rows = [(job.target, job.source_identity, found[job.target]) for job in several]
            record.ledger.finish_all(rows, self._settings_key)

    def _by_record(self, jobs: Sequence[Job]) -> Iterator[tuple[_Record, list[Job]]]:
        """The jobs of each folder."""
        folders: dict[Path, list[Job]] = {}
        for job in jobs:
            if job.ledger is not None:
                folders.setdefault(job.ledger, []).append(job)
        for several in folders.values():
            with self._lock:
                record = self._of(several[0])
                assert record is not None
                yield record, several

    def state(self, job: Job) -> ResultState:
        """The recorded state of a job's target, by any process."""
        with self._lock:
            record = self._of(job)
            if record is None:
                return "unknown"
            source = job.source_identity
            for look in (record.ledger.refresh_known, record.ledger.refresh):
                look()
                state = record.ledger.state(job.target, source, self._settings_key)
                if state == "done":
                    break
            return state

    def found(self, job: Job) -> ResultState:
        """The state of a file that has a job's name by now: by what the record says, or the file itself."""
        return recorded_state(job, self._settings_key, self.state(job))

    def is_fresh(self, job: Job) -> bool:
        """Whether another process has made a job's target since the run began."""
        with self._lock:
            record = self._of(job)
            return record is not None and record.ledger.is_fresh(job.target)

    def take(self, job: Job) -> bool:
        """Claim a job; False if another process has it."""
        with self._lock:
            record = self._of(job)
        return record is None or record.claims is None or record.claims.take(_name(job))

    def is_taken_over(self, job: Job) -> bool:
        """Whether another process has taken over a job that was claimed here."""
        with self._lock:
            record = self._of(job)
        return record is not None and record.claims is not None and record.claims.is_taken_over(_name(job))

    def release(self, job: Job) -> None:
        with self._lock:
            record = None if job.ledger is None else self._records.get(job.ledger)
        if record is not None and record.claims is not None:
            record.claims.release(_name(job))

    def close(self) -> None:
        """Release all claims."""
        self._ended.set()
        if self._renewer is not None:
            self._renewer.join()
        with self._lock:
            for record in self._records.values():
                with contextlib.suppress(OSError):  # the folder has disappeared
                    record.close()
            self._records.clear()

    def _of(self, job: Job) -> _Record | None:
        if job.ledger is None:
            return None
        if job.ledger not in self._records:
            self._records[job.ledger] = _Record(job.ledger, self._places.open(job.ledger))
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, name="srgan-claims", daemon=True)
                self._renewer.start()
        return self._records[job.ledger]

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            with self._lock:
                claims = [record.claims for record in self._records.values() if record.claims is not None]
            for one in claims:
                one.renew()


def _replaced(job: Job) -> str | None:
    """The identity of the file that a job will replace."""
    return None if job.is_new else identity(job.target) or None


def _name(job: Job) -> str:
    assert job.ledger is not None
    return job.target.relative_to(job.ledger).as_posix()
