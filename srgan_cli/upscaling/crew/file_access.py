"""Workers that do not see this machine's files: detecting them, sending them pictures, and receiving their results."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import UnreadablePictureError, UnwritablePictureError, shown
from srgan_cli.files import discard, publish_text, publishing, reason
from srgan_cli.stores.fetching import publish
from srgan_cli.stores.paths import StorePath
from srgan_cli.stores.store import stat
from srgan_cli.upscaling.crew.messages import CheckAccess, Done, Event, Failed, Pictures
from srgan_cli.upscaling.inputs import STREAM, Failure
from srgan_cli.upscaling.ledger import identity
from srgan_cli.upscaling.places import Places
from srgan_cli.upscaling.plan import Job


class FileAccess:
    """Which workers see which of a run's pictures and folders."""

    def __init__(self, options: UpscaleOptions, places: Places, *, sees_all: bool) -> None:
        self._options, self._places, self._sees_all = options, places, sees_all
        self._sees: dict[str, bool] = {}
        self._probe: tuple[Path, str] | None = None

    def is_known(self, worker: str) -> bool:
        return self._sees_all or worker in self._sees

    def lacks_files(self, worker: str) -> bool:
        return not self._sees_all and not self._sees.get(worker, False)

    def note(self, worker: str, sees: bool) -> None:
        self._sees[worker] = sees

    def forget(self, worker: str) -> None:
        """Forget what is known of a worker: its name now belongs to another, possibly on another machine."""
        self._sees.pop(worker, None)

    def check(self, job: Job) -> CheckAccess:
        """The request by which a worker is tested, with file names as in its jobs."""
        source = None if isinstance(job.source, StorePath) or job.data is not None else job.source
        if self._probe is None and job.target != STREAM and not isinstance(job.target, StorePath):
            folder = job.ledger or job.target.parent
            token = secrets.token_hex(16)
            self._probe = folder / f".srgan-probe.{token[:8]}", token
            # Otherwise results cannot be written there either, and each picture says so.
            with contextlib.suppress(OSError):
                self._places.open(folder)
                publish_text(*self._probe)
        return CheckAccess(source, self._probe)

    @contextlib.contextmanager
    def probing(self) -> Iterator[None]:
        """The probe file exists only during this block."""
        try:
            yield
        finally:
            if self._probe is not None:
                discard(self._probe[0])

    def unit(self, worker: str, jobs: Sequence[Job]) -> Pictures:
        """The unit for a worker; with `without_files`, it contains the bytes of its one picture. Raises
        `UnreadablePictureError`."""
        (first, *others) = jobs
        if not self._travels(worker, first):
            return Pictures(tuple(jobs))
        assert not others
        if first.data is not None or isinstance(first.source, StorePath):
            return Pictures((first,), without_files=True)
        try:
            return Pictures((replace(first, data=first.source.read_bytes()),), without_files=True)
        except OSError as err:
            raise UnreadablePictureError(f"{shown(first.source)} cannot be read: {reason(err)}") from err

    def freight(self, worker: str, job: Job) -> int:
        """How many bytes are transferred with a job, to a worker and back."""
        if not self._travels(worker, job):
            return 0
        if job.data is not None or isinstance(job.source, StorePath):
            there = len(job.data or b"")
        else:
            try:
                there = job.source.stat().st_size
            except OSError:  # `unit` reports it
                there = 0
        return there + job.needed_bytes(self._options.write)

    def _travels(self, worker: str, job: Job) -> bool:
        return job.target == STREAM or (self.lacks_files(worker) and not _is_far(job))

    def named(self, job: Job, event: Done) -> Event:
        """Publish a picture that was sent back."""
        if event.data is None or job.target == STREAM:
            return event
        try:
            return replace(event, result=self._publish(job, event.data), data=None)
        except UnwritablePictureError as err:
            why = str(err)
        except FileExistsError:
            why = f"{shown(job.target)} has appeared since the run began; it is left alone"
        except OSError as err:
            why = f"{shown(job.target)} cannot be written: {reason(err)}"
        return Failed(Failure(job.source, why, UnwritablePictureError, job.target))

    def _publish(self, job: Job, data: bytes) -> str:
        modified_ns = self._modified_ns(job)
        with self._places.folder(job) as folder:
            target = folder.handle / job.target.name
            with publishing(target, overwrite=not job.is_new, modified_ns=modified_ns) as file:
                file.write(data)
            if not isinstance(job.target, StorePath):
                return identity(target)
            try:
                publish(target, job.target, overwrite=not job.is_new)
            finally:
                target.unlink(missing_ok=True)
            return identity(job.target)

    def _modified_ns(self, job: Job) -> int | None:
        """The time that a result gets; None: the current one."""
        if not self._options.write.keep_time or job.source == STREAM:
            return None
        if not isinstance(job.source, StorePath):
            return job.source.stat().st_mtime_ns
        found = stat(job.source)
        return None if found is None else found.modified_ns


def _is_far(job: Job) -> bool:
    """Whether the path is one that every worker can access by itself."""
    return isinstance(job.source, StorePath) and isinstance(job.target, StorePath)
