"""A run with several workers: small pictures are handed out, large ones are divided among all workers."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from srgan_cli.config import UpscaleOptions, WorkerOptions
from srgan_cli.engine.backends.memory import free_host_bytes
from srgan_cli.errors import DeviceError, SettingsError, shown
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling import batch
from srgan_cli.upscaling.crew.dispatch import MAX_PICTURES, Dispatch
from srgan_cli.upscaling.crew.large import CrewUpscaler, UndividedError
from srgan_cli.upscaling.crew.messages import Brief, Crew
from srgan_cli.upscaling.crew.processes import ProcessCrew
from srgan_cli.upscaling.crew.roster import Roster
from srgan_cli.upscaling.crew.startup import WorkerStartup
from srgan_cli.upscaling.inputs import STREAM
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.places import Places
from srgan_cli.upscaling.plan import Job, Plan
from srgan_cli.upscaling.records import Records
from srgan_cli.upscaling.session import Session
from srgan_cli.upscaling.sharing import Share
from srgan_cli.upscaling.stopping import ending_signals

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler


_FREIGHT_DIVISOR = 4  # fraction of this machine's free memory


def startup_of(brief: Brief) -> WorkerStartup:
    """A crew that starts when its `begin` is called. What `crew_of` raises is raised when the crew is requested."""
    return WorkerStartup(lambda: crew_of(brief), "ray" if brief.options.ray is not None else None)


@contextlib.contextmanager
def hired(session: Session) -> Iterator[Crew]:
    """The session's crew: the one started during planning, or a new one. Raises as `crew_of` does."""
    if (path := own_memory(session.options)) is not None:
        raise SettingsError(
            f"{path} exists only inside this process, where workers cannot see it: use one device, without --ray"
        )
    with contextlib.closing(session.startup or startup_of(brief_of(session))) as startup:
        crew = startup.crew()
        _take_signals_back()
        yield crew


def _take_signals_back() -> None:
    """Ray installs its own handler of SIGTERM below Python's, which prints a trace and soon kills the process; remove
    it."""
    if threading.current_thread() is threading.main_thread():
        for number in ending_signals():
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


def crew_of(brief: Brief) -> Crew:
    """Workers on a Ray cluster, or one process for each requested device. Raises `DeviceError` if a device does not
    exist, and `SettingsError` if Ray is missing."""
    engine, ray = brief.options.engine, brief.options.ray
    if ray is not None:
        from srgan_cli.upscaling.crew.cluster import Cluster

        if engine.has_several_devices:
            raise SettingsError("give either --ray or several devices")
        return Cluster(brief, ray)
    workers = tuple(one for asked in engine.workers for one in _there(asked))
    return ProcessCrew(brief.for_one_of(len(workers)), workers)


def own_memory(options: UpscaleOptions) -> Path | None:
    """A path of the run that no other process can access."""
    paths = (path for path in (*options.inputs, options.output) if isinstance(path, StorePath))
    return next((path for path in paths if path.protocol == "memory"), None)


def brief_of(session: Session) -> Brief:
    return Brief(session.options, session.selections, session.settings_key, session.make)


def _there(asked: WorkerOptions) -> tuple[WorkerOptions, ...]:
    """`cuda:all` expanded to this machine's devices."""
    kind, _, which = asked.device.partition(":")
    if which != "all":
        return (asked,)
    from srgan_cli.engine.backends.pytorch import devices

    found = tuple(WorkerOptions(one.name, one.name) for one in devices() if one.name.startswith(f"{kind}:"))
    if not found:
        raise DeviceError(
            f"--device {asked.device} was asked for, but there is no such device here; see `srgan doctor`"
        )
    return found


def lead(session: Session, crew: Crew, observer: Observer, stream: BinaryIO | None = None) -> Tally:
    """Run a session's plan with a crew, which is closed at the end. As `batch.run`."""
    plan, options = session.plan, session.options
    tally = Tally(skips=list(plan.skips), failures=list(plan.failures), cut_short=plan.cut_short)
    for failure in plan.failures:
        observer.failed(failure)
    started = time.perf_counter()
    roster = Roster(crew, observer, _freight_bytes(options))
    together = [job for job in plan.jobs if _is_for_all(job, options.split_pixels)]
    apart = [job for job in plan.jobs if not _is_for_all(job, options.split_pixels)]
    try:
        roster.await_one()
        if apart:
            _make_apart(session, apart, roster, observer, tally, stream)
        if together and not (tally.error or tally.interrupted or tally.cut_short):
            _make_together(session, together, roster, observer, tally, stream)
    except KeyboardInterrupt:  # before anything was started
        tally.interrupted = True
    except DeviceError as err:
        tally.error = err
    finally:
        crew.close()
    tally.seconds = time.perf_counter() - started
    return tally


def _freight_bytes(options: UpscaleOptions) -> int:
    """The maximum in transit at a time between this process and workers that do not see its files."""
    return max(options.queue_bytes, free_host_bytes() // _FREIGHT_DIVISOR)


def _is_for_all(job: Job, split_pixels: int) -> bool:
    """Whether a picture is divided among all workers: it is large, or its result is not a file."""
    if job.is_copy or job.pages:
        return False
    return job.target == STREAM or (bool(job.scales) and job.header.width * job.header.height > split_pixels)


def _make_apart(
    session: Session, jobs: list[Job], roster: Roster, observer: Observer, tally: Tally, stream: BinaryIO | None
) -> None:
    plan = Plan(tuple(jobs))
    places = Places()
    records = Records(places, session.settings_key)
    share = Share(plan, session.options, records, observer, tally, roster.count * (MAX_PICTURES + 2), roster.count * 2)
    with batch.closing(places, records, observer):
        Dispatch(session.options, roster, share, records, observer, tally, stream, places).run()


def _make_together(
    session: Session, jobs: list[Job], roster: Roster, observer: Observer, tally: Tally, stream: BinaryIO | None
) -> None:
    def make(job: Job) -> Upscaler:
        return CrewUpscaler(roster, job)  # type: ignore[return-value] # what a pipeline asks of one

    for job in jobs:
        more = batch.run(
            Plan((job,)), session.options, session.settings_key, make, observer, session.assign, stream=stream
        )
        if isinstance(more.error, UndividedError):
            observer.note(f"{shown(job.source)}: made by one worker, since the model blends its tiles")
            more.error = None
            _add(tally, more)
            _make_apart(session, [job], roster, observer, tally, stream)
        else:
            _add(tally, more)
        if tally.error or tally.interrupted or (session.options.fail_fast and tally.failures):
            return


def _add(tally: Tally, more: Tally) -> None:
    tally.done += more.done
    tally.damaged += more.damaged
    tally.skips += more.skips
    tally.failures += more.failures
    tally.interrupted, tally.error = more.interrupted, more.error
    tally.network_seconds += more.network_seconds
    tally.network_pixels += more.network_pixels
