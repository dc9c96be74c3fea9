"""A process that checks files, and its monitor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import resource
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeAlias

from tests.fuzz.finding import Finding
from tests.fuzz.running import MAX_BYTES, MAX_S, Checker, case, checker

GRACE_S = 60.0  # beyond the limit, before a process is ended
_OF_ONE_FILE = ("slow", "memory")  # twenty may take more than one
_FENCE_BYTES = 4 << 30  # of data, beyond which nothing is allocated: the machine is not to suffer


Found: TypeAlias = dict[int, list[Finding]]


class Worker:
    """A process that checks some files after others, and is replaced when one of them has ended it."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.numbers: list[int] = []
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=_work, args=(self._seed, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.poll(3000), "it does not start"
        assert self._pipe.recv() == "ready"

    def take(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self._began = time.monotonic()
        if numbers:
            self._pipe.send(numbers)

    def answer(self) -> Found | None:
        """What was found of each file; None as long as they are looked at. Where several have ended the process, they
        are taken again one by one."""
        if not self.numbers:
            return None
        try:
            if self._pipe.poll(0.05):
                found: Found = self._pipe.recv()
                return found
        except EOFError:
            return self._again("crash", "the process ended")
        most = MAX_S * len(self.numbers) + GRACE_S
        if time.monotonic() - self._began > most:
            self._process.kill()
            return self._again("hang", f"after {most:.0f} s")
        return None

    def _again(self, kind: str, detail: str) -> Found:
        self._process.join(10)
        code = self._process.exitcode
        self._start()
        if len(self.numbers) == 1:
            return {self.numbers[0]: [Finding(kind, f"{detail}: {code}")]}
        found: Found = {}
        for number in self.numbers:
            self.take([number])
            while (answer := self.answer()) is None:
                pass
            found |= answer
        return found

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
            numbers = pipe.recv()
            together = _checked(checks, seed, numbers) if len(numbers) > 1 else [Finding("", "")]
            found = {number: _checked(checks, seed, [number]) for number in numbers} if together else {}
            others = [one for one in together if one.kind not in _OF_ONE_FILE]
            if others and not any(found.values()) and len(numbers) > 1:
                found[numbers[0]] = [Finding(f"{one.kind}, together", f"{numbers}: {one.detail}") for one in others]
            pipe.send({number: found.get(number, []) for number in numbers})


def _checked(checks: Checker, seed: int, numbers: list[int]) -> list[Finding]:
    _forget_peak()
    before = _peak_bytes()
    found = checks.check([case(seed, number) for number in numbers])
    more = _peak_bytes() - before
    return [*found, Finding("memory", f"{more >> 20} MiB more")] if more > MAX_BYTES else found


def _forget_peak() -> None:
    """So that each file's own peak is seen: the process' is kept by the kernel, and one file hides the next."""
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
