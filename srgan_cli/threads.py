"""The threads of one computation: how many, and how long they wait for each other before they sleep, on a machine that
also runs other programs."""

from __future__ import annotations

import os
import sys

# PyTorch divides a layer among the cores with GNU OpenMP, in which a thread that finishes early spins 300,000 times
# before it sleeps: up to 14 ms on CPUs whose `pause` takes 140 cycles. If another program occupies the core of the last
# thread, each of the hundreds of waits in one picture takes that long, and the spinning threads slow the other program
# down as well: with a load of 8 on 2 cores, whole pictures took 2 to 10 times as long. This count is about 50 µs,
# enough for a thread that has a core of its own.
_SPIN_COUNT = "1000"


def wait_politely() -> None:
    """Make waiting threads sleep soon. Has an effect only before torch is imported. Existing environment variables are
    kept."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def asked_for() -> int:
    """How many threads `OMP_NUM_THREADS` asks for, as OpenMP reads it: of a list, one for each nesting level, the first
    number. 0 if it is unset or not a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdecimal() else 0
