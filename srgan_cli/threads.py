"""How the threads of one computation wait for each other on a machine that does other things as well."""

from __future__ import annotations

import os
import sys

# GNU OpenMP, by which PyTorch divides a layer among the cores, has a thread that is ready early spin 300,000 times
# before it sleeps: up to 14 ms on CPUs whose `pause` takes 140 cycles. Where another program has the core that the late
# thread needs, each of the hundreds of waits in one picture takes that long, in which the spinning keeps the other
# from its work: with a load of 8 on 2 cores, whole pictures took 2 to 10 times as long. This many is some 50 µs, within
# which a thread on a core of its own arrives.
_SPIN_COUNT = "1000"


def wait_politely() -> None:
    """Let waiting threads sleep soon. Works until torch is imported; what the environment says already is obeyed."""
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)
