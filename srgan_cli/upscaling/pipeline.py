"""The three stages of a run, in parallel: read | upscale | write, with queues bounded in bytes.

The network runs in the caller's thread (glibc keeps large blocks only in the main arena, and Ctrl-C arrives there); one
thread reads ahead, another encodes. A picture's canvas waits for the encoder, so memory is bounded by `queue_bytes`
plus one picture. Large canvases are scratch files on the target's disk.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from srgan_cli.config import UpscaleOptions
from srgan_cli.engine.rows import AheadRows, RowSource, Unchanged
from srgan_cli.errors import DeviceError, InterruptedRunError, PictureError, WeightsError, shown
from srgan_cli.upscaling.budget import ByteBudget
from srgan_cli.upscaling.graining import graining_of
from srgan_cli.upscaling.intake import Intake, Opened, at_hand, check_stores, open_ahead, open_alone
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.plan import CANVAS_BYTES, READ_AHEAD_BYTES, Job
from srgan_cli.upscaling.results import Finished, Results
from srgan_cli.upscaling.sharing import Handed, Share

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

Assign: TypeAlias = Callable[[Job], Job]
Expected: TypeAlias = Callable[[Job], "float | None"]  # seconds


class Pipeline:
    """The two threads and the queues between them and the caller's thread. A context manager."""

    def __init__(
        self,
        options: UpscaleOptions,
        share: Share | Handed,
        results: Results,
        observer: Observer,
        tally: Tally,
        expected: Expected,
    ) -> None:
        self.tally = tally
        self._expected = expected
        self._share = share
        self._options, self._results, self._observer = options, results, observer
        self._ended, self._dropped = threading.Event(), threading.Event()
        self._ready: queue.SimpleQueue[Intake | None] = queue.SimpleQueue()
        self._written, self._read = threading.Event(), threading.Event()
        self._crash: BaseException | None = None
        self._reading_budget = ByteBudget(options.queue_bytes // 2)
        self._writing_budget = ByteBudget(options.queue_bytes)
        self._to_write: queue.SimpleQueue[Finished | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_all, name="srgan-writer", daemon=True)
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Pipeline:
        self._writer.start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._to_write.put(None)
        self._await(self._written)
        self.end_reading()
        if self._reader is not None:
            self._await(self._read)
        while not self._ready.empty():  # pictures read ahead for a run that ended early
            if (one := self._ready.get()) is not None:
                one.close()
        if self._crash is not None:
            raise self._crash

    def _await(self, done: threading.Event) -> None:
        """Wait for a thread, also after Ctrl-C. `Thread.join` is not sufficient: up to Python 3.12, an interrupted join
        marks the thread as ended, and the process would exit while its encoder still runs."""
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
        """Start nothing more; what is finished is still written."""
        self._ended.set()
        self._share.end()
        self._reading_budget.open()

    def abandon(self) -> None:
        """Start nothing more, and discard what is not written yet."""
        self._dropped.set()
        self.end_reading()
        self._writing_budget.open()

    # ------------------------------------------------------------------------------------------------------- reading

    def read_ahead(self, assign: Assign) -> Iterator[Intake]:
        """The jobs' pictures in order, examined and decoded (or opened, if large) by a thread that runs ahead."""
        ready = self._ready

        def read() -> None:
            try:
                for job in self._share.jobs():
                    size = min(job.header.decoded_bytes, READ_AHEAD_BYTES)
                    self._reading_budget.take(size)
                    if self._ended.is_set():
                        break
                    patience = self.patience(job)
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

    def patience(self, job: Job) -> Patience:
        def warn(sentence: str) -> None:
            self._observer.note(f"{shown(job.source)}: {sentence}")

        return Patience(self._options.timeout_s, self._expected(job), warn)

    def _look_and_open(self, job: Job, assign: Assign, patience: Patience) -> tuple[Job, Opened]:
        try:
            with patience.working():
                check_stores(job)
                job = at_hand(job, partial(self._check, patience))
                job = assign(job)
                return open_ahead(job, self._options, patience)
        except (DeviceError, WeightsError):
            raise
        except Exception as err:  # noqa: BLE001 - it costs this picture, and is raised again where that is counted
            return job, err

    def _check(self, patience: Patience) -> None:
        if self._ended.is_set():
            raise InterruptedRunError("interrupted")
        patience.check()

    # ----------------------------------------------------------------------------------------------------- upscaling

    def upscale(self, one: Intake, upscaler: Upscaler | Unchanged) -> None:
        job = one.job
        started = time.perf_counter()
        rows = one.rows()  # what cannot be read is not started
        self._observer.started(job)
        with one.patience.working():
            finished = self._upscaled(one, rows, upscaler, started)
        self._to_write.put(finished)

    def _upscaled(self, one: Intake, rows: RowSource, upscaler: Upscaler | Unchanged, started: float) -> Finished:
        job = one.job
        held = min(job.canvas_bytes, CANVAS_BYTES)
        self._writing_budget.take(held)
        try:
            finished = self._results.canvas(one, started)
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

    def _fill(self, finished: Finished, rows: RowSource, upscaler: Upscaler | Unchanged) -> None:
        job, canvas, journal = finished.job, finished.canvas, finished.journal
        first_row = upscaler.first_row(finished.rows)
        finished.rows = first_row
        graining = graining_of(
            job,
            self._options,
            upscaler,
            partial(open_alone, job, self._options),
            self._observer.detail,
            page=job.page or 0,
        )

        def final(count: int) -> None:
            if graining is not None:
                graining.put(canvas.pixels, finished.rows, finished.rows + count)
            finished.rows += count
            self._observer.advanced(job, count * job.network_pixels // job.header.height)
            if journal is not None and journal.is_due():
                canvas.flush()
                journal.save(finished.rows)
            finished.patience.check()

        def computed(px: int) -> None:
            self._observer.computed(job, px * job.network_scale**2)

        if first_row:
            self._observer.resumed(job, first_row * job.network_pixels // job.header.height)
            self._observer.note(f"{job.source}: resuming at row {first_row} of {job.header.height}")
        upscaler.upscale_rows(rows, canvas.pixels, on_rows=final, on_part=computed, first_row=first_row)
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
                self._results.write(finished, self._dropped.is_set)
            except InterruptedRunError:
                interrupted = True  # `abandon` was called; nothing is left of a file that was being written
            except BaseException as err:  # noqa: BLE001 - a defect must end the run, not leave it waiting for this thread
                self._crash = self._crash or err
                self.abandon()
            finally:
                finished.close(keep=interrupted and self._options.resume)
                self._writing_budget.give(held)
