"""How a run scales: the leading process with workers that cost nothing, and several workers beside one.

    python -m benchmarks.scaling driver --workers 1000 --pictures 1000000
    python -m benchmarks.scaling folder --data DIR --device cpu:2x1 --repeats 3
    python -m benchmarks.scaling processes --data DIR --repeats 3

`driver`: the real hand-out, record and claims of a run by a crew, with workers that are done as soon as asked: how
many pictures a second the leading process can keep in motion, and so how many workers it can feed. `folder` compares
`--device` with one worker of it, `processes` two processes on one folder with one, in turn, each worker on one core.
On a machine that does other things, processor time says more than the clock, so both are given.

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
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.output import Output
from srgan_cli.upscaling import batch
from srgan_cli.upscaling.crew.dispatch import MAX_PICTURES, Dispatch
from srgan_cli.upscaling.crew.messages import Advanced, Done, Event, Over, Started, Unit
from srgan_cli.upscaling.crew.roster import Roster
from srgan_cli.upscaling.observer import Silent, Tally
from srgan_cli.upscaling.places import Places
from srgan_cli.upscaling.plan import Job, Plan
from srgan_cli.upscaling.records import Records
from srgan_cli.upscaling.sharing import Share


class Instant:
    """A crew whose workers are done at once, and make nothing. One process plays them all, so that the leading one pays
    what it pays for real workers: each unit is pickled, and each event read again."""

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

    def interrupt(self) -> None: ...

    def close(self) -> None:
        self._pipe.send_bytes(b"")
        self._process.join()
        self._pipe.close()


def _heard(data: bytes) -> list[tuple[str, Event]]:
    worker, events = pickle.loads(data)
    return [(worker, event) for event in events]


def _play(pipe: Connection) -> None:
    """All workers: whatever they are given is done."""
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
            events.append(Over(None, 1.0, sum(job.network_pixels for job in unit.jobs)))
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


def _start(data: Path, out: Path, device: str, model: str, core: int | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "srgan_cli", "upscale", str(data), "-o", str(out), "--resume", "--model", model,
               "--device", device, "-q", "--json"]  # fmt: skip
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    return subprocess.Popen([*pinned, *command], stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _finish(processes: list[subprocess.Popen[bytes]]) -> list[dict[str, float]]:
    """What each has made, and the processor time that it and its workers took."""
    found = []
    for process in processes:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        summary = json.loads(said.splitlines()[-1])
        found.append({"done": summary["done"], "cpu_seconds": round(used.ru_utime + used.ru_stime, 2)})
    return found


def compare(
    data: Path, model: str, many: list[tuple[str, int | None]], one: tuple[str, int | None]
) -> dict[str, object]:
    """The same folder by `one`, then by `many`: a device and a core for each process."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("SRGAN_BENCHMARK_DIR")) as folder:
        began = time.perf_counter()
        alone = _finish([_start(data, Path(folder, "one"), one[0], model, one[1])])
        between = time.perf_counter()
        together = _finish([_start(data, Path(folder, "many"), device, model, core) for device, core in many])
        seconds = between - began, time.perf_counter() - between
    return {
        "one_seconds": round(seconds[0], 1), "many_seconds": round(seconds[1], 1), "one": alone, "many": together,
        "ratio": round(seconds[0] / seconds[1], 3),
        "cpu_overhead": round(sum(m["cpu_seconds"] for m in together) / alone[0]["cpu_seconds"] - 1, 3),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("driver", "folder", "processes"))
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=1_000_000)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--device", default="cpu:2x1")
    parser.add_argument("--model", default="srgan")
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    for _ in range(asked.repeats):
        if asked.what == "driver":
            result = driver(asked.workers, asked.pictures)
        elif asked.data is None:
            parser.error("--data DIR says where the pictures are")
        elif asked.what == "folder":
            result = compare(asked.data, asked.model, [(asked.device, None)], ("cpu:1x1", None))
        else:
            result = compare(asked.data, asked.model, [("cpu", 0), ("cpu", 1)], ("cpu", 0))
        print(json.dumps({"case": asked.what, **result}))


if __name__ == "__main__":
    main()
