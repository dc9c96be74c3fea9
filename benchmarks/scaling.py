"""Scaling of a run: the leading process with workers that cost nothing, and several workers compared with one.

    python -m benchmarks.scaling driver --workers 1000 --pictures 1000000
    python -m benchmarks.scaling processes --data DIR --pictures 200 --repeats 3
    python -m benchmarks.scaling folder --data DIR --pictures 200 --workers 2
    python -m benchmarks.scaling ray --data DIR --pictures 200
    python -m benchmarks.scaling ray --data DIR --megapixels 200 --model fast --scale 2

`driver`: the real dispatch, record and claims of a run with several workers, with workers that finish immediately: how
many pictures per second the leading process can handle, and so how many workers it can supply.

The others compare several workers with one, each on a core of its own: `processes` that share a folder, a `folder` by
`--device cpu:Nx1`, and actors of a `ray` cluster that is there already, pinned to the same cores as the command. The
photos are those of DIR, again and again until there are `--pictures`; with `--megapixels` they are put together into
one JPEG picture of that size. `ratio` is one worker's time over all workers', `overhead` what one worker takes beyond
the plain command on its core, `overhead_all` what all take beyond the plain command with a thread on each of their
cores; `start_seconds` is what the command takes for the smallest photo alone; `sharing` is what processes on one folder
take beyond as many that have a part of it each, on the same cores at the same time: what else is missing from the ratio
is the start of each, and what cores take from each other (memory, caches). On a machine that does other things,
processor time says more than the clock, so both are given.

One line of JSON for each case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import pickle
import queue
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from srgan_cli.config import UpscaleOptions
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.output import Output
from srgan_cli.upscaling import batch
from srgan_cli.upscaling.crew.dispatch import MAX_PICTURES, Dispatch
from srgan_cli.upscaling.crew.messages import Advanced, Done, Event, Started, Unit, UnitEnded
from srgan_cli.upscaling.crew.roster import Roster
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.places import Places
from srgan_cli.upscaling.plan import Job, Plan
from srgan_cli.upscaling.records import Records
from srgan_cli.upscaling.sharing import Share


class Instant:
    """A crew whose workers finish immediately without making anything. One process simulates them all, so that the
    leading process has the same costs as with real workers: each unit is pickled, and each event unpickled."""

    sees_all = True

    def __init__(self, count: int) -> None:
        self._names = tuple(f"w{number}" for number in range(count))
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_play, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def workers(self) -> tuple[str, ...]:
        return self._names

    def awaited(self) -> int:
        return 0

    def give(self, worker: str, unit: Unit) -> None:
        self._pipe.send_bytes(pickle.dumps((worker, unit), pickle.HIGHEST_PROTOCOL))

    def wait(self, seconds: float) -> list[tuple[str, Event]]:
        events: list[tuple[str, Event]] = []
        with contextlib.suppress(queue.Empty):
            events += _heard(self._said.get(timeout=seconds))
            while True:
                events += _heard(self._said.get_nowait())
        return events

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                self._said.put(self._pipe.recv_bytes())

    def renew(self, worker: str) -> bool:
        raise AssertionError("nobody dies here")

    def leave_out(self, worker: str) -> None:
        raise AssertionError("nobody fails here")

    def recall(self) -> None: ...

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self._pipe.send_bytes(b"")
        self._process.join()
        self._pipe.close()


def _heard(data: bytes) -> list[tuple[str, Event]]:
    worker, events = pickle.loads(data)
    return [(worker, event) for event in events]


def _play(pipe: Connection) -> None:
    """Simulates all workers: every unit is done at once."""
    with contextlib.suppress(EOFError, OSError):
        while data := pipe.recv_bytes():
            worker, unit = pickle.loads(data)
            events: list[Event] = []
            for job in unit.jobs:
                events += [
                    Started(job.target, "srgan", "asked for", ("srgan-x4", "0123456789abcdef")),
                    Advanced(job.target, job.network_pixels),
                    Done(job.target, 1.0, (), "1-1", damaged=False),
                ]
            events.append(UnitEnded(None, 1.0, sum(job.network_pixels for job in unit.jobs)))
            pipe.send_bytes(pickle.dumps((worker, events), pickle.HIGHEST_PROTOCOL))


def driver(workers: int, pictures: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=os.environ.get("SRGAN_BENCHMARK_DIR")) as folder:
        out = Path(folder)
        first = Job(
            Path("in.jpg"),
            out / "x.jpg",
            Header(640, 480, 3, 8, "jpeg"),
            (4,),
            Output("jpeg", 8, 2560, 1920),
            ledger=out,
        )
        plan = Plan(tuple(replace(first, source=Path(f"{n}.jpg"), target=out / f"{n}.jpg") for n in range(pictures)))
        options, observer, tally, places = UpscaleOptions(), Silent(), Tally(), Places()
        records = Records(places, "key")
        crew = Instant(workers)
        roster = Roster(crew, observer)
        share = Share(plan, options, records, observer, tally, ahead=workers * (MAX_PICTURES + 2))
        began, busy = time.perf_counter(), time.process_time()
        with batch.closing(places, records, observer):
            Dispatch(options, roster, share, records, observer, tally).run()
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        crew.close()
    assert len(tally.done) == pictures
    return {
        "workers": workers, "pictures": pictures, "seconds": round(seconds, 1), "cpu_seconds": round(busy, 1),
        "pictures_per_second": round(pictures / seconds), "pictures_per_cpu_second": round(pictures / busy),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ several workers


# As `--ray` sets them for its own cluster, so that workers use processes that Ray has started ahead.
_RAY = {"RAY_AUTH_MODE": "disabled", "MALLOC_ARENA_MAX": "1"}


@dataclass(frozen=True)
class Way:
    """A command's inputs and options, and its cores, with a thread on each."""

    inputs: Path
    options: tuple[str, ...]
    cores: tuple[int, ...]

    @property
    def is_on_ray(self) -> bool:
        return any(option.startswith("--ray=") for option in self.options)


@dataclass(frozen=True)
class WorkCost:
    seconds: float
    cpu_seconds: float
    done: tuple[int, ...]  # pictures, by each command


def cost(ways: list[Way], common: tuple[str, ...], meter: Callable[[], float] = lambda: 0.0) -> WorkCost:
    """The cost of making the inputs with commands that run at the same time; those with the same inputs share a folder.
    `meter` counts the processor time of processes that they have not started themselves."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("SRGAN_BENCHMARK_DIR")) as folder:
        began, before = time.perf_counter(), meter()
        logs = [Path(folder, f"{number}.log") for number in range(len(ways))]
        running = [_start(way, common, Path(folder), log) for way, log in zip(ways, logs, strict=True)]
        found = [_finish(process, log) for process, log in zip(running, logs, strict=True)]
        return WorkCost(
            time.perf_counter() - began,
            sum(busy for _, busy in found) + meter() - before,
            tuple(done for done, _ in found),
        )


def _start(way: Way, common: tuple[str, ...], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a command. It writes to a file, since a command waiting for its pipe to be read would delay the others."""
    command = [sys.executable, "-m", "srgan_cli", "upscale", str(way.inputs), "-o", f"{folder / way.inputs.name}/",
               "--resume", "-q", "--json", *common, *way.options]  # fmt: skip
    with log.open("wb") as stream:
        return subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, way.cores)), *command], stdout=stream,
            env={**os.environ, "OMP_NUM_THREADS": str(len(way.cores)), **(_RAY if way.is_on_ray else {})},
        )  # fmt: skip


def _finish(process: subprocess.Popen[bytes], log: Path) -> tuple[int, float]:
    """How many pictures a command has made, and the processor time of it and its own workers."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"the command has ended with code {process.returncode}"
    return json.loads(log.read_bytes().splitlines()[-1])["done"], used.ru_utime + used.ru_stime


@contextlib.contextmanager
def cluster(cores: tuple[int, ...]) -> Iterator[tuple[str, Callable[[], float]]]:
    """A Ray cluster with some cores of this machine: its address, and a meter of its processes' time."""
    holding = (
        "import ray; ray.init('local', num_cpus=%d, include_dashboard=False, log_to_driver=False, "
        "logging_level='ERROR', configure_logging=False); "
        "print(ray.get_runtime_context().gcs_address, flush=True); input()"
    )
    process = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), sys.executable, "-c", holding % len(cores)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **_RAY, "RAY_worker_niceness": "0"},
    )  # fmt: skip
    assert process.stdout is not None
    ended, taken = threading.Event(), dict[tuple[int, float], float]()

    def watch() -> None:
        while not ended.wait(0.25):
            look()

    def look() -> float:
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    times = one.cpu_times()
                    taken[one.pid, one.create_time()] = times.user + times.system
        return sum(taken.values())

    thread = threading.Thread(target=watch)
    try:
        address = process.stdout.readline().strip()
        assert address, "there is no Ray cluster: pip install ray"
        thread.start()
        yield address, look
    finally:
        ended.set()
        process.communicate("\n")
        if thread.ident is not None:
            thread.join()


def fill(folder: Path, data: Path, pictures: int) -> Path:
    """Photos of `data`, repeated until there are `pictures`."""
    found = sorted(path for path in data.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    for number in range(pictures):
        photo = found[number % len(found)]
        shutil.copyfile(photo, folder / f"{number:06}{photo.suffix}")
    return folder


def paste(folder: Path, data: Path, megapixels: float) -> Path:
    """Photos of `data` tiled into one JPEG picture with sides of 4 : 3."""
    import pyvips

    found = sorted(path for path in data.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)[:100]
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    photos = [pyvips.Image.thumbnail(str(path), 480, height=480, crop="centre") for path in found]
    photos = [
        photo.colourspace("srgb").flatten() if photo.hasalpha() else photo.colourspace("srgb") for photo in photos
    ]
    across, down = -(-width // 480), -(-width * 3 // 4 // 480)
    several = [photos[number * 7 % len(photos)] for number in range(across * down)]
    whole = pyvips.Image.arrayjoin(several, across=across).crop(0, 0, width, width * 3 // 4)
    whole.write_to_file(str(folder / "large.jpg"), Q=90)
    return folder


def compare(asked: argparse.Namespace) -> dict[str, object]:
    """One worker and several, with the plain command beside them."""
    common: tuple[str, ...] = ("--model", asked.model, "--scale", str(asked.scale))
    cores = tuple(sorted(os.sched_getaffinity(0)))[: asked.workers]
    assert len(cores) == asked.workers, f"there are {len(cores)} cores for {asked.workers} workers"
    with tempfile.TemporaryDirectory(dir=os.environ.get("SRGAN_BENCHMARK_DIR")) as place:
        folder, least = Path(place, "in"), Path(place, "least")
        folder.mkdir()
        least.mkdir()
        if asked.megapixels:
            paste(folder, asked.data, asked.megapixels)
            common = (*common, "--split-pixels", "1000000")
        else:
            fill(folder, asked.data, asked.pictures)
        smallest = min(asked.data.iterdir(), key=lambda path: path.stat().st_size)
        shutil.copyfile(smallest, least / smallest.name)
        plain = Way(folder, ("--device", "cpu"), cores[:1])
        start = cost([replace(plain, inputs=least)], common)
        alone = cost([plain], common)
        apart = beside = None
        if asked.what == "processes":
            one, many = alone, cost([replace(plain, cores=(core,)) for core in cores], common)
            apart = cost(_apart(plain, cores, Path(place)), common)
        else:
            if asked.what == "folder":
                one = cost([Way(folder, ("--device", "cpu:1x1"), cores[:1])], common)
                many = cost([Way(folder, ("--device", f"cpu:{asked.workers}x1"), cores)], common)
            else:
                one, many = (_on_ray(folder, some, common) for some in (cores[:1], cores))
            beside = cost([replace(plain, cores=cores)], common)
    return {
        "model": asked.model, "scale": asked.scale, "workers": asked.workers,
        **({"megapixels": asked.megapixels} if asked.megapixels else {"pictures": asked.pictures}),
        "ratio": round(one.seconds / many.seconds, 3), "cpu_ratio": round(many.cpu_seconds / one.cpu_seconds, 3),
        "one": _said(one), "many": _said(many), "plain": _said(alone), "start_seconds": round(start.seconds, 2),
        **({} if asked.what == "processes" else {
            "overhead": round(one.seconds / alone.seconds - 1, 3),
            "cpu_overhead": round(one.cpu_seconds / alone.cpu_seconds - 1, 3)}),
        **({} if beside is None else {
            "plain_all": _said(beside), "overhead_all": round(many.seconds / beside.seconds - 1, 3)}),
        **({} if apart is None else {
            "apart": _said(apart), "sharing": round(many.seconds / apart.seconds - 1, 3),
            "sharing_cpu": round(many.cpu_seconds / apart.cpu_seconds - 1, 3)}),
    }  # fmt: skip


def _apart(plain: Way, cores: tuple[int, ...], place: Path) -> list[Way]:
    """The same work without anything shared: each command has its own photos."""
    ways = []
    for number, core in enumerate(cores):
        part = place / f"part{number}"
        part.mkdir()
        for photo in sorted(plain.inputs.iterdir())[number :: len(cores)]:
            shutil.copyfile(photo, part / photo.name)
        ways.append(replace(plain, inputs=part, cores=(core,)))
    return ways


def _on_ray(folder: Path, cores: tuple[int, ...], common: tuple[str, ...]) -> WorkCost:
    with cluster(cores) as (address, meter):
        return cost([Way(folder, ("--device", "cpu", f"--ray={address}", "--ray-cpus", "1"), cores)], common, meter)


def _said(one: WorkCost) -> dict[str, object]:
    return {"seconds": round(one.seconds, 1), "cpu_seconds": round(one.cpu_seconds, 1), "done": one.done}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("driver", "folder", "processes", "ray"))
    parser.add_argument("--workers", type=int, help="2; of `driver` 1000")
    parser.add_argument("--pictures", type=int, help="200; of `driver` 1,000,000")
    parser.add_argument("--megapixels", type=float, help="one picture of this size instead")
    parser.add_argument("--data", type=Path, help="a folder of photos")
    parser.add_argument("--model", default="srgan")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args(arguments)
    if asked.what != "driver" and asked.data is None:
        parser.error("--data DIR says where the photos are")
    for _ in range(asked.repeats):
        if asked.what == "driver":
            result = driver(asked.workers or 1000, asked.pictures or 1_000_000)
        else:
            asked.workers, asked.pictures = asked.workers or 2, asked.pictures or 200
            result = compare(asked)
        print(json.dumps({"case": asked.what, **result}), flush=True)


if __name__ == "__main__":
    main()
