"""Results of a run: canvases, publishing files, the record, the tally."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from srgan_cli import __version__
from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import (
    DefectError,
    InterruptedRunError,
    PictureError,
    UnwritablePictureError,
    as_defect,
    shown,
)
from srgan_cli.files import reason
from srgan_cli.handles import Folder, without_handles
from srgan_cli.imaging.canvas import Canvas
from srgan_cli.imaging.metadata.provenance import DIGEST_DIGITS, Record, bytes_digest, name_digest
from srgan_cli.imaging.writing import copy_picture, write_picture
from srgan_cli.stores.failures import given_up
from srgan_cli.stores.fetching import publish
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling import documents
from srgan_cli.upscaling.documents import DocumentContext
from srgan_cli.upscaling.inputs import STREAM, Failure
from srgan_cli.upscaling.intake import Intake
from srgan_cli.upscaling.journal import Journal
from srgan_cli.upscaling.ledger import identity
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.places import Places, canvas_of, journal_of, rows_kept
from srgan_cli.upscaling.plan import Job
from srgan_cli.upscaling.present import exists
from srgan_cli.upscaling.records import Records
from srgan_cli.upscaling.sharing import Handed, Share


@dataclass
class Finished:
    """One picture that is upscaled, or in progress. `rows`: the number of its low-resolution rows done."""

    job: Job
    canvas: Canvas
    started: float
    journal: Journal | None
    rows: int
    folder: Folder | None  # the final target; None: stdout
    patience: Patience
    damage: str | None = None  # what was lost of the input

    @property
    def target(self) -> Path:
        """The path to write to, valid even if its folder is renamed."""
        return STREAM if self.folder is None else self.folder.handle / self.job.target.name

    def close(self, *, keep: bool = False) -> None:
        """Release the canvas. A large one can be kept for `--resume`."""
        if self.journal is not None:
            if keep:
                with contextlib.suppress(OSError):  # a full disk: the last journal that could be written still holds
                    self.canvas.flush()
                    self.journal.save(self.rows)
            else:
                self.journal.remove()
        self.canvas.close(keep=keep and self.journal is not None)
        if self.folder is not None:
            self.folder.close()


class Results:
    """Writes and publishes a run's results. Several threads may use it, each for a picture of its own."""

    def __init__(
        self,
        options: UpscaleOptions,
        settings_key: str,
        observer: Observer,
        tally: Tally,
        stream: BinaryIO | None,
        places: Places,
        records: Records | Handed,
        share: Share | Handed,
    ) -> None:
        self._options, self._settings_key, self._observer = options, settings_key, observer
        self._tally = tally
        self._stream = stream  # for results without a file; None: stdout
        self._places, self._records, self._share = places, records, share

    def canvas(self, one: Intake, started: float) -> Finished:
        """The canvas for the result; for a large one, with the rows of an interrupted run."""
        job = one.job
        place = None if job.target == STREAM else self._places.folder(job)
        try:
            return self._canvas_in(place, one, started)
        except BaseException:
            if place is not None:
                place.close()
            raise

    def _canvas_in(self, place: Folder | None, one: Intake, started: float) -> Finished:
        job = one.job
        folder = Path(tempfile.gettempdir()) if place is None else place.handle
        journal = None if place is None else journal_of(job, self._settings_key, folder)
        rows = rows_kept(job, journal, folder) if journal is not None and self._options.resume else 0
        reuse = rows > 0
        if journal is not None and not reuse:
            journal.remove()  # remove the journal before the file that it refers to is emptied
        canvas = canvas_of(job, folder, named=place is not None, reuse=reuse)
        kept = journal if canvas.scratch is not None else None
        return Finished(job, canvas, started, kept, rows * canvas.reused, place, one.patience)

    def write(self, finished: Finished, stop: Callable[[], bool]) -> None:
        """Encode a picture and publish it. Any error is recorded as this picture's failure.

        Raises `InterruptedRunError` once `stop` returns true; then nothing is left of the file.
        """
        job = finished.job
        try:
            with finished.patience.working():
                notes = self._write_file(finished, stop)
        except InterruptedRunError:
            raise
        except Exception as err:  # noqa: BLE001 - a defect, too, costs this picture only
            self.fail(job, err)
            return
        if finished.damage is not None:
            self._tally.damaged.append(job)
            notes = (finished.damage, *notes)
        self._done(job, finished.started, notes)

    def bind(self, one: Intake, context: DocumentContext) -> None:
        """Write a document of many pages, page by page. It has one place, one record and one name."""
        job = one.job
        started = time.perf_counter()
        document = one.document()
        self._observer.started(job)
        with contextlib.ExitStack() as stack:
            place = None if job.target == STREAM else stack.enter_context(self._places.folder(job))
            target = STREAM if place is None else place.handle / job.target.name
            into = self._stream or sys.stdout.buffer if place is None else target
            made = stack.enter_context(documents.making(job, document, context, into, self._record(job)))
            made.publish(stack.enter_context(self._recorded(job, target, for_good=not made.damages)))
        if made.damages:
            self._tally.damaged.append(job)
        self._done(job, started, (*made.damages, *made.notes))

    def copy(self, job: Job) -> None:
        """Copy a picture that already has the wanted size."""
        started = time.perf_counter()
        self._observer.started(job)
        with contextlib.ExitStack() as stack:
            place = None if job.target == STREAM else stack.enter_context(self._places.folder(job))
            target = STREAM if place is None else place.handle / job.target.name
            copy_picture(
                self._stream or sys.stdout.buffer if place is None else target,
                job.origin,
                overwrite=not job.is_new,
                modified_ns=stack.enter_context(self._recorded(job, target)),
            )
        self._done(job, started, ())

    def _done(self, job: Job, started: float, notes: tuple[str, ...]) -> None:
        self._tally.done.append(job)
        self._share.settle(job)
        self._observer.done(job, time.perf_counter() - started, (*job.notes, *notes))

    def _write_file(self, finished: Finished, stop: Callable[[], bool]) -> tuple[str, ...]:
        try:
            return self._write_to(finished.target, finished, stop)
        except InterruptedRunError as err:
            if stop():
                raise
            raise finished.patience.error() from err

    def _write_to(self, target: Path, finished: Finished, stop: Callable[[], bool]) -> tuple[str, ...]:
        job = finished.job
        # A run that resumes makes a damaged picture again, and reports the damage again.
        with self._recorded(job, target, for_good=finished.damage is None, stop=stop) as modified_ns:
            return write_picture(
                self._stream or sys.stdout.buffer if target == STREAM else target,
                finished.canvas.pixels,
                job.header,
                job.output,
                self._options.write,
                overwrite=not job.is_new,
                modified_ns=modified_ns,
                stop=lambda: stop() or finished.patience.is_over,
                record=self._record(job),
            )

    @contextlib.contextmanager
    def _recorded(
        self, job: Job, target: Path, *, for_good: bool = True, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[int | None]:
        """Writes the ledger's lines before and after the writing of a result; yields the modification time for the
        file."""
        source = job.source_identity
        there = job.target if isinstance(job.target, StorePath) else target
        # Checked before the result is recorded as begun, and again when it gets its name: a file of another program, or
        # of a process that has taken over, must not be mistaken for a partial result of this one.
        if target != STREAM and job.is_new and exists(there):
            raise UnwritablePictureError(f"{shown(job.target)} has appeared since the run began; it is left alone")
        self._records.begin(job, source)
        keeps_time = self._options.write.keep_time and job.source != STREAM
        try:
            yield _modified_ns(job) if keeps_time else None
            if isinstance(job.target, StorePath) and target != STREAM:
                self._send(job.target, target, overwrite=not job.is_new, stop=stop)
        except BaseException:
            self._records.withdraw(job)
            raise
        (self._records.finish if for_good else self._records.leave)(job, source, identity(there))

    @staticmethod
    def _send(path: StorePath, made: Path, *, overwrite: bool, stop: Callable[[], bool]) -> None:
        """Upload a finished result to its store."""

        def check() -> None:
            if stop():
                raise InterruptedRunError("interrupted")

        try:
            publish(made, path, overwrite=overwrite, check=check)
        finally:
            made.unlink(missing_ok=True)

    def _record(self, job: Job) -> Record:
        return Record(
            program=f"srgan {__version__}",
            model=job.made_by[0] or "unknown",
            weights=job.made_by[1] or "unknown",
            scale=f"{job.output.width / job.header.width:.4g}",
            settings=self._settings_key,
            source_name=name_digest(job.source),
            source_size=f"{job.header.width}x{job.header.height}",
            source_digest=job.fetched.digest[:DIGEST_DIGITS] if job.fetched else bytes_digest(job.origin),
        )

    def fail(self, job: Job, err: Exception) -> None:
        """Report and count a failed picture, unless another process has taken it over."""
        if self._share.yields(job):
            return
        if isinstance(err, PictureError):
            failure = Failure(job.source, _without_detours(str(err), job), type(err), job.target)
        elif isinstance(err, MemoryError):
            failure = Failure(job.source, "there is not enough memory for it", target=job.target)
        elif not isinstance(err, OSError):
            failure = Failure(job.source, str(as_defect(shown(job.source), err)), DefectError, job.target)
        else:
            sentence = f"its result cannot be written: {reason(err)}"
            if err.filename is not None:  # usually about one of srgan's own files
                sentence = _without_detours(f"{shown(err.filename)}: {(err.strerror or str(err)).lower()}", job)
            failure = Failure(job.source, sentence, UnwritablePictureError, job.target)
        failure = replace(failure, left=given_up(err))
        self._tally.failures.append(failure)
        self._share.settle(job)
        self._observer.failed(failure)


def _modified_ns(job: Job) -> int | None:
    return job.source.stat().st_mtime_ns if job.fetched is None else job.fetched.modified_ns


def _without_detours(text: str, job: Job) -> str:
    """A message with the names that the user knows, instead of handles and temporary files."""
    text = without_handles(text, job.target.parent)
    return text if job.fetched is None else text.replace(shown(job.fetched.path), shown(job.source))
