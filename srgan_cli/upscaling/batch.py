"""Runs a plan, with one `try` per picture. See `pipeline` for the stages and `results` for writing the results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from srgan_cli.config import UpscaleOptions
from srgan_cli.engine.rows import Unchanged
from srgan_cli.errors import DeviceError, PictureError, SrganError, WeightsError
from srgan_cli.upscaling.claims import sweep
from srgan_cli.upscaling.documents import DocumentContext
from srgan_cli.upscaling.intake import Intake
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.pipeline import Assign, Expected, Pipeline
from srgan_cli.upscaling.places import Places, clear_behind
from srgan_cli.upscaling.plan import Job, Plan
from srgan_cli.upscaling.records import Records
from srgan_cli.upscaling.results import Results
from srgan_cli.upscaling.sharing import Handed, Share

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

MakeUpscaler: TypeAlias = "Callable[[Job], Upscaler]"


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
    """Run every job of the plan. A picture that fails is reported and counted; the others continue.

    `make_upscaler` returns an `Upscaler` for a job (called once for each model and chain of scales). `assign` chooses a
    job's model, in the thread that reads ahead. `expected` is the expected time of a job in seconds, if known. Results
    without a file go to `stream`, stdout by default. Ctrl-C ends the run without partial results; a `DeviceError` or
    `WeightsError` ends it with finished results written. The tally says so.
    """
    tally = Tally(skips=list(plan.skips), failures=list(plan.failures), cut_short=plan.cut_short)
    for failure in plan.failures:
        observer.failed(failure)
    if options.resume:
        clear_behind(skip.target for skip in plan.skips)
        if not plan.jobs:  # otherwise the process that claims the first one does
            sweep(
                folder for skip in plan.skips for folder in (skip.target.parent, options.output or skip.target.parent)
            )
    places = Places()
    records = Records(places, settings_key)
    share = Share(plan, options, records, observer, tally)
    results = Results(options, settings_key, observer, tally, stream, places, records, share)
    with closing(places, records, observer):
        _run(options, settings_key, make_upscaler, observer, assign, expected, tally, share, results)
    return tally


def run_handed(
    jobs: tuple[Job, ...],
    options: UpscaleOptions,
    settings_key: str,
    make_upscaler: MakeUpscaler,
    observer: Observer,
    assign: Assign,
    tally: Tally,
    stream: BinaryIO | None = None,
) -> None:
    """Like `run`, for jobs that another process has claimed and records."""
    places, handed = Places(), Handed(jobs)
    results = Results(options, settings_key, observer, tally, stream, places, handed, handed)
    with closing(places, handed, observer):
        _run(options, settings_key, make_upscaler, observer, assign, lambda job: None, tally, handed, results)


def _run(
    options: UpscaleOptions,
    settings_key: str,
    make_upscaler: MakeUpscaler,
    observer: Observer,
    assign: Assign,
    expected: Expected,
    tally: Tally,
    share: Share | Handed,
    results: Results,
) -> None:
    started = time.perf_counter()
    with Pipeline(options, share, results, observer, tally, expected) as pipeline:
        try:
            _upscale_all(options, settings_key, make_upscaler, assign, pipeline, results, observer)
        except KeyboardInterrupt:
            pipeline.abandon()
            tally.interrupted = True
        except (DeviceError, WeightsError) as err:  # all pictures would fail the same way
            pipeline.end_reading()
            tally.error = err
    tally.seconds += time.perf_counter() - started


@contextlib.contextmanager
def closing(places: Places, records: Records | Handed, observer: Observer) -> Iterator[None]:
    """Release claims and folders at the end."""
    try:
        yield
    finally:
        records.close()
        for note in places.close():
            observer.note(note)


def _upscale_all(
    options: UpscaleOptions,
    settings_key: str,
    make_upscaler: MakeUpscaler,
    assign: Assign,
    pipeline: Pipeline,
    results: Results,
    observer: Observer,
) -> None:
    upscalers: dict[tuple[str, tuple[int, ...], int], Upscaler] = {}

    def upscaler_of(job: Job) -> Upscaler | Unchanged:
        if not job.scales:
            return Unchanged()
        key = job.model, job.scales, job.variant
        if key not in upscalers:
            upscalers[key] = make_upscaler(job)
        return upscalers[key]

    context = DocumentContext(options, settings_key, upscaler_of, pipeline.tally, observer, pipeline.patience)
    for one in pipeline.read_ahead(assign):
        with one:
            if pipeline.is_abandoned or (options.fail_fast and pipeline.tally.failures):
                pipeline.tally.cut_short = True
                pipeline.end_reading()
                return
            _make(one, context, pipeline, results)


def _make(one: Intake, context: DocumentContext, pipeline: Pipeline, results: Results) -> None:
    """Enlarge one picture. A fault of the picture is recorded as its failure; a fault of device or weights is
    raised."""
    job = one.job
    if (lost := one.lost) is not None:
        results.fail(job, lost)
        return
    upscaler = context.upscaler_of(job)
    try:
        if job.is_copy:
            results.copy(job)
        elif job.pages:
            results.bind(one, context)
        else:
            pipeline.upscale(one, upscaler)
    except BrokenPipeError:  # raised by the observer: nobody is listening any more
        pipeline.end_reading()
        raise
    except PictureError as err:
        results.fail(job, err)
    except SrganError:  # a fault of the device or weights: all pictures would fail the same way
        raise
    except Exception as err:  # noqa: BLE001 - a defect costs this picture, and is reported as one
        results.fail(job, err)
