"""A process that checks files, and whoever watches it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from tests.fuzz.finding import Finding
from tests.fuzz.running import MAX_BYTES, MAX_S, case, checker

GRACE_S = 60.0  # beyond the limit, before a process is ended
_FENCE_BYTES = 4 << 30  # of data, beyond which nothing is allocated: the machine is not to suffer


class Worker:
    """A process that checks one file after another, and is made anew when one has ended it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.number: int | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_work, args=(self._seed, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.poll(120), "it does not start"
        assert self._pipe.recv() == "ready"

    def take(self, number: int | None) -> None:
        self.number = number
        self._began = time.monotonic()
        if number is not None:
            self._pipe.send(number)

    def answer(self) -> list[Finding] | None:
        """What was found of the file; None as long as it is looked at."""
        if self.number is None:
            return None
        try:
            if self._pipe.poll(0.05):
                found: list[Finding] = self._pipe.recv()
                return found
        except EOFError:
            return self._again(Finding("crash", f"the process ended with {self._process.exitcode}"))
        if time.monotonic() - self._began > MAX_S + GRACE_S:
            self._process.kill()
            return self._again(Finding("hang", f"after {MAX_S + GRACE_S:.0f} s"))
        return None

    def _again(self, finding: Finding) -> list[Finding]:
        self._process.join(10)
        if finding.kind == "crash":
            finding = Finding("crash", f"the process ended with {self._process.exitcode}")
        self._start()
        return [finding]

    def end(self) -> None:
        self._process.kill()
        self._process.join(10)


def _work(seed: int, pipe: Connection) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)  # what C libraries say
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (_FENCE_BYTES, _FENCE_BYTES))
    with checker() as checks:
        pipe.send("ready")
        while True:
            before = _peak_bytes()
            found = checks.check(case(seed, pipe.recv()))
            if _peak_bytes() - before > MAX_BYTES:
                found.append(Finding("memory", f"{(_peak_bytes() - before) >> 20} MiB more"))
            pipe.send(found)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
