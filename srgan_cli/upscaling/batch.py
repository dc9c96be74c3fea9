"""Runs a plan: read | upscale | write, overlapped, with queues bounded in bytes and one `try` per picture.

The network runs in the caller's thread (glibc keeps its large blocks in the main arena only, and Ctrl-C arrives
there); one thread reads ahead, one encodes behind. A picture's canvas waits for its encoder, so what is held is
bounded by `queue_bytes` plus one picture; large canvases are scratch files on the target's disk.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from srgan_cli import __version__
from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import (
    DefectError,
    DeviceError,
    InterruptedRunError,
    PictureError,
    SrganError,
    UnwritablePictureError,
    WeightsError,
    as_defect,
    shown,
)
from srgan_cli.files import Folder, part_name, stale_parts, without_handles
from srgan_cli.imaging.canvas import Canvas, open_canvas
from srgan_cli.imaging.metadata.provenance import Record, bytes_digest, name_digest
from srgan_cli.imaging.writing import copy_picture, write_picture
from srgan_cli.upscaling.budget import ByteBudget
from srgan_cli.upscaling.inputs import STREAM, Failure
from srgan_cli.upscaling.intake import Intake, Opened, open_ahead
from srgan_cli.upscaling.journal import Journal
from srgan_cli.upscaling.ledger import Ledger, identity
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.places import JOURNAL, SCRATCH, Places, beside, journal_of, rows_kept
from srgan_cli.upscaling.plan import CANVAS_BYTES, READ_AHEAD_BYTES, Job, Plan
from srgan_cli.upscaling.rows import AheadRows, RowSource, Unchanged

if TYPE_CHECKING:
    from srgan_cli.upscaling.engine import Upscaler

MakeUpscaler: TypeAlias = "Callable[[Job], Upscaler]"
Assign: TypeAlias = Callable[[Job], Job]
Expected: TypeAlias = Callable[[Job], "float | None"]  # seconds


def run(
    plan: Plan,
    options: UpscaleOptions,
    settings_key: str,
    make_upscaler: MakeUpscaler,
    observer: Observer,
    assign: Assign = lambda job: job,
    expected: Expected = lambda job: None,
    stream: BinaryIO | None = None,
) -> Tally:
    """Make every job of the plan. A picture that fails is reported, counted and left; the others go on.

    `make_upscaler` gives an `Upscaler` for a job (called once for each model and chain of scales); `assign` names a
    job's model, in the thread that reads ahead; `expected` is how many seconds one should take, where that is known.
    What goes to no file goes into `stream`, stdout by default. Ctrl-C ends the run with nothing half-made, a
    `DeviceError` or `WeightsError` with what is finished written; the tally says so.
    """
    tally = Tally(skips=list(plan.skips), failures=list(plan.failures), cut_short=plan.cut_short)
    for failure in plan.failures:
        observer.failed(failure)
    started = time.perf_counter()
    if options.resume:
        _remove_stale_parts(plan)
    with _Pipeline(options, settings_key, observer, tally, expected, stream) as pipeline:
        try:
            _upscale_all(plan, options, make_upscaler, assign, pipeline)
        except KeyboardInterrupt:
            pipeline.abandon()
            tally.interrupted = True
        except (DeviceError, WeightsError) as err:  # no picture would fare better
            pipeline.end_reading()
            tally.error = err
    tally.seconds = time.perf_counter() - started
    return tally


def _remove_stale_parts(plan: Plan) -> None:
    """Clean up after a run that was killed: only what belongs to this plan's results is ours to remove."""
    names: dict[Path, set[str]] = {}
    for job in plan.jobs:
        if job.target != STREAM:
            ours = {part_name(job.target), part_name(beside(job.target, JOURNAL))}
            names.setdefault(job.target.parent, set()).update(ours)
    for folder, ours in names.items():
        for part, name in stale_parts(folder).items():
            if name in ours:
                with contextlib.suppress(OSError):
                    part.unlink()


def _upscale_all(
    plan: Plan, options: UpscaleOptions, make_upscaler: MakeUpscaler, assign: Assign, pipeline: _Pipeline
) -> None:
    upscalers: dict[tuple[str, tuple[int, ...]], Upscaler] = {}
    for one in pipeline.read_ahead(plan.jobs, assign):
        with one:
            if pipeline.is_abandoned or (options.fail_fast and pipeline.tally.failures):
                pipeline.tally.cut_short = True
                pipeline.end_reading()
                return
            job = one.job
            key = job.model, job.scales
            if job.scales and key not in upscalers:
                upscalers[key] = make_upscaler(job)
            try:
                if job.is_copy:
                    pipeline.copy(job)
                else:
                    pipeline.upscale(one, upscalers[key] if job.scales else Unchanged())
            except BrokenPipeError:  # the observer's: nobody listens any more
                pipeline.end_reading()
                raise
            except SrganError as err:
                if not isinstance(err, PictureError):  # a device or weights: no picture would fare better
                    raise
                pipeline.fail(job, err)
            except Exception as err:  # noqa: BLE001 - a defect costs this picture, and is reported as one
                pipeline.fail(job, err)


@dataclass
class _Finished:
    """One picture that is upscaled, or on its way there. `rows`: how many of its low-resolution rows are."""

    job: Job
    canvas: Canvas
    started: float
    journal: Journal | None
    rows: int
    folder: Folder | None  # where it will stand; None: on stdout
    patience: Patience
    damage: str | None = None  # what was lost of the input

    @property
    def target(self) -> Path:
        """Where the result goes, whatever its folder's name leads to by then."""
        return STREAM if self.folder is None else self.folder.handle / self.job.target.name

    def close(self, *, keep: bool = False) -> None:
        """Let go of the canvas, and keep a large one for `--resume` when asked."""
        if self.journal is not None:
            if keep:
                self.canvas.flush()
                self.journal.save(self.rows)
            else:
                self.journal.remove()
        self.canvas.close(keep=keep and self.journal is not None)
        if self.folder is not None:
            self.folder.close()


class _Pipeline:
    """The two threads and what passes between them and the caller's."""

    def __init__(
        self,
        options: UpscaleOptions,
        settings_key: str,
        observer: Observer,
        tally: Tally,
        expected: Expected,
        stream: BinaryIO | None,
    ) -> None:
        self.tally = tally
        self._expected = expected
        self._options, self._settings_key, self._observer = options, settings_key, observer
        self._stream = stream  # for what goes to no file; None: stdout
        self._ended, self._dropped = threading.Event(), threading.Event()
        self._ready: queue.SimpleQueue[Intake | None] = queue.SimpleQueue()
        self._written, self._read = threading.Event(), threading.Event()
        self._crash: BaseException | None = None
        self._reading_budget = ByteBudget(options.queue_bytes // 2)
        self._writing_budget = ByteBudget(options.queue_bytes)
        self._to_write: queue.SimpleQueue[_Finished | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="srgan-writer", daemon=True)
        self._reader: threading.Thread | None = None
        self._ledgers: dict[Path, Ledger] = {}
        self._places = Places()
        self._ledger_lock = threading.Lock()

    def __enter__(self) -> _Pipeline:
        self._writer.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._to_write.put(None)
        self._await(self._written)
        self.end_reading()
        if self._reader is not None:
            self._await(self._read)
        while not self._ready.empty():  # what was read ahead of a run that ended early
            if (one := self._ready.get()) is not None:
                one.close()
        for note in self._places.close():
            self._observer.note(note)
        if self._crash is not None:
            raise self._crash

    def _await(self, done: threading.Event) -> None:
        """Wait for a thread, Ctrl-C or not. `Thread.join` will not do: up to Python 3.12 an interrupted one takes the
        thread for ended, and the process would go away over the head of its encoder."""
        while not done.is_set():
            try:
                done.wait(1.0)
            except KeyboardInterrupt:
                self.abandon()
                self.tally.interrupted = True

    @property
    def is_abandoned(self) -> bool:
        return self._dropped.is_set()

    def end_reading(self) -> None:
        """Begin nothing more; what is finished is still written."""
        self._ended.set()
        self._reading_budget.open()

    def abandon(self) -> None:
        """Begin nothing more, and drop what is not written yet."""
        self._dropped.set()
        self.end_reading()
        self._writing_budget.open()

    # ------------------------------------------------------------------------------------------------------- reading

    def read_ahead(self, jobs: tuple[Job, ...], assign: Assign) -> Iterator[Intake]:
        """The jobs' pictures in order, looked at and decoded (or, when large, opened) by a thread that runs ahead."""
        ready = self._ready

        def read() -> None:
            try:
                for job in jobs:
                    size = min(job.header.decoded_bytes, READ_AHEAD_BYTES)
                    self._reading_budget.take(size)
                    if self._ended.is_set():
                        break
                    patience = self._patience(job)
                    job, source = self._look_and_open(job, assign, patience)
                    ready.put(Intake(job, source, patience, partial(self._reading_budget.give, size)))
            except BaseException as err:  # noqa: BLE001 - handed to the caller's thread, which waits for this one
                self._crash = self._crash or err
            finally:
                ready.put(None)
                self._read.set()

        self._reader = threading.Thread(target=read, name="srgan-reader", daemon=True)
        self._reader.start()
        while (one := ready.get()) is not None:
            yield one

    def _patience(self, job: Job) -> Patience:
        def warn(sentence: str) -> None:
            self._observer.note(f"{shown(job.source)}: {sentence}")

        return Patience(self._options.timeout_s, self._expected(job), warn)

    def _look_and_open(self, job: Job, assign: Assign, patience: Patience) -> tuple[Job, Opened]:
        try:
            with patience.working():
                job = assign(job)
                return job, open_ahead(job, self._options, patience)
        except (DeviceError, WeightsError):
            raise
        except Exception as err:  # noqa: BLE001 - it costs this picture, and is raised again where that is counted
            return job, err

    # ----------------------------------------------------------------------------------------------------- upscaling

    def upscale(self, one: Intake, upscaler: Upscaler | Unchanged) -> None:
        job = one.job
        started = time.perf_counter()
        self._observer.started(job)
        rows = one.rows()
        with one.patience.working():
            finished = self._upscaled(one, rows, upscaler, started)
        self._to_write.put(finished)

    def _upscaled(self, one: Intake, rows: RowSource, upscaler: Upscaler | Unchanged, started: float) -> _Finished:
        job = one.job
        held = min(job.canvas_bytes, CANVAS_BYTES)
        self._writing_budget.take(held)
        try:
            finished = self._canvas(one, started)
        except BaseException:
            self._writing_budget.give(held)
            raise
        try:
            began = time.perf_counter()
            if job.header.decoded_bytes > READ_AHEAD_BYTES:
                with AheadRows(rows, job.header.decoded_bytes // job.header.height) as ahead:
                    self._fill(finished, ahead, upscaler)
            else:
                self._fill(finished, rows, upscaler)
            self.tally.network_seconds += time.perf_counter() - began
            finished.damage = one.damage
        except BaseException as err:
            finished.close(keep=self._options.resume and not isinstance(err, (PictureError, OSError)))
            self._writing_budget.give(held)
            raise
        return finished

    def _canvas(self, one: Intake, started: float) -> _Finished:
        """Where the result will grow; for a large one, what an interrupted run has left of it."""
        job = one.job
        place = None if job.target == STREAM else self._places.folder(job)
        try:
            return self._canvas_in(place, one, started)
        except BaseException:
            if place is not None:
                place.close()
            raise

    def _canvas_in(self, place: Folder | None, one: Intake, started: float) -> _Finished:
        job = one.job
        header = job.header
        folder = Path(tempfile.gettempdir()) if place is None else place.handle
        name = None if place is None else beside(job.target, SCRATCH).name
        journal = None if place is None else journal_of(job, self._settings_key, folder)
        rows = rows_kept(job, journal, folder) if journal is not None and self._options.resume else 0
        reuse = rows > 0
        if journal is not None and not reuse:
            journal.remove()  # before the file that it speaks of is emptied
        canvas = open_canvas(
            header.height * job.network_scale,
            header.width * job.network_scale,
            header.channels,
            job.canvas_depth,
            folder=folder,
            memory_bytes=CANVAS_BYTES,
            name=name,
            reuse=reuse,
        )
        kept = journal if canvas.scratch is not None else None
        return _Finished(job, canvas, started, kept, rows * canvas.reused, place, one.patience)

    def _fill(self, finished: _Finished, rows: RowSource, upscaler: Upscaler | Unchanged) -> None:
        job, canvas, journal = finished.job, finished.canvas, finished.journal
        first_row = upscaler.first_row(finished.rows)
        finished.rows = 0

        def final(count: int) -> None:
            finished.rows += count
            self._observer.advanced(job, count * job.network_pixels // job.header.height)
            if journal is not None and journal.is_due():
                canvas.flush()
                journal.save(finished.rows)
            finished.patience.check()

        if first_row:
            final(first_row)
            self._observer.note(f"{job.source}: resuming at row {first_row} of {job.header.height}")
        upscaler.upscale_rows(rows, canvas.pixels, on_rows=final, first_row=first_row)
        self.tally.network_pixels += (job.header.height - first_row) * job.network_pixels // job.header.height

    # ------------------------------------------------------------------------------------------------------- writing

    def _write_all(self) -> None:
        try:
            self._write_each()
        finally:
            self._written.set()

    def _write_each(self) -> None:
        while (finished := self._to_write.get()) is not None:
            held = min(finished.canvas.pixels.nbytes, CANVAS_BYTES)
            interrupted = False
            try:
                if self._dropped.is_set():
                    raise InterruptedRunError("interrupted")
                self._write(finished)
            except InterruptedRunError:
                interrupted = True  # `abandon` was called; nothing is left of a file that was being written
            except BaseException as err:  # noqa: BLE001 - a defect must end the run, not leave it waiting for this thread
                self._crash = self._crash or err
                self.abandon()
            finally:
                finished.close(keep=interrupted and self._options.resume)
                self._writing_budget.give(held)

    def _write(self, finished: _Finished) -> None:
        job = finished.job
        try:
            with finished.patience.working():
                notes = self._write_file(finished)
        except InterruptedRunError:
            raise
        except Exception as err:  # noqa: BLE001 - a defect, too, costs this picture only
            self.fail(job, err)
            return
        if finished.damage is not None:
            self.tally.damaged.append(job)
            notes = (finished.damage, *notes)
        self._done(job, finished.started, notes)

    def copy(self, job: Job) -> None:
        """Pass a picture on that is what it should be already."""
        started = time.perf_counter()
        self._observer.started(job)
        with contextlib.ExitStack() as stack:
            place = None if job.target == STREAM else stack.enter_context(self._places.folder(job))
            target = STREAM if place is None else place.handle / job.target.name
            copy_picture(
                self._stream or sys.stdout.buffer if place is None else target,
                job.source if job.data is None else job.data,
                overwrite=not job.is_new,
                modified_ns=stack.enter_context(self._recorded(job, target)),
            )
        self._done(job, started, ())

    def _done(self, job: Job, started: float, notes: tuple[str, ...]) -> None:
        self.tally.done.append(job)
        self.tally.output_pixels += job.output.pixels
        self._observer.done(job, time.perf_counter() - started, (*job.notes, *notes))

    def _write_file(self, finished: _Finished) -> tuple[str, ...]:
        try:
            return self._write_to(finished.target, finished)
        except InterruptedRunError as err:
            if self._dropped.is_set():
                raise
            raise finished.patience.error() from err

    def _write_to(self, target: Path, finished: _Finished) -> tuple[str, ...]:
        job = finished.job
        # A run that resumes makes a damaged one again, and says so again.
        with self._recorded(job, target, for_good=finished.damage is None) as modified_ns:
            return write_picture(
                self._stream or sys.stdout.buffer if target == STREAM else target,
                finished.canvas.pixels,
                job.header,
                job.output,
                self._options.write,
                overwrite=not job.is_new,
                modified_ns=modified_ns,
                stop=lambda: self._dropped.is_set() or finished.patience.is_over,
                record=self._record(job),
            )

    @contextlib.contextmanager
    def _recorded(self, job: Job, target: Path, *, for_good: bool = True) -> Iterator[int | None]:
        """The ledger's lines around the writing of a result; gives the time that it should have."""
        source = identity(job.source)
        with self._ledger(job) as ledger:
            if ledger is not None:
                ledger.begin(job.target, source, self._settings_key)
        if target != STREAM and job.is_new and os.path.lexists(target):  # and again when the result gets its name
            raise UnwritablePictureError(f"{shown(job.target)} has appeared since the run began; it is left alone")
        keeps_time = self._options.write.keep_time and job.source != STREAM
        yield job.source.stat().st_mtime_ns if keeps_time else None
        with self._ledger(job) as ledger:
            if ledger is not None and for_good:
                ledger.finish(job.target, source, self._settings_key, identity(target))

    def _record(self, job: Job) -> Record:
        return Record(
            program=f"srgan {__version__}",
            model=job.made_by[0] or "unknown",
            weights=job.made_by[1] or "unknown",
            scale=f"{job.output.width / job.header.width:.4g}",
            settings=self._settings_key,
            source_name=name_digest(job.source),
            source_size=f"{job.header.width}x{job.header.height}",
            source_digest=bytes_digest(job.source if job.data is None else job.data),
        )

    @contextlib.contextmanager
    def _ledger(self, job: Job) -> Iterator[Ledger | None]:
        """The record that a job goes into, for one thread at a time."""
        if job.ledger is None:
            yield None
            return
        with self._ledger_lock:
            if job.ledger not in self._ledgers:
                self._ledgers[job.ledger] = Ledger.load(job.ledger, self._places.handle(job.ledger))
            yield self._ledgers[job.ledger]

    def fail(self, job: Job, err: Exception) -> None:
        if isinstance(err, PictureError):
            failure = Failure(job.source, without_handles(str(err), job.target.parent), type(err))
        elif isinstance(err, MemoryError):
            failure = Failure(job.source, "there is not enough memory for it")
        elif not isinstance(err, OSError):
            failure = Failure(job.source, str(as_defect(shown(job.source), err)), DefectError)
        else:
            failure = Failure(job.source, (err.strerror or str(err)).lower(), UnwritablePictureError)
        self.tally.failures.append(failure)
        self._observer.failed(failure)
