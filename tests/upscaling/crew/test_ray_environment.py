"""The environment of a run's own Ray cluster; real clusters are in `test_cluster`."""

from __future__ import annotations

import os

import pytest

from srgan_cli.upscaling.crew import cluster


def test_variables_of_a_cluster_of_its_own_are_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setenv("RAY_worker_niceness", "5")
    before = dict(os.environ)
    with cluster._environment("local"):
        assert {**os.environ, **before} == {**before, "MALLOC_ARENA_MAX": "1"}
    assert dict(os.environ) == before
    with cluster._environment("auto"):
        assert dict(os.environ) == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_cores_are_those_that_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert cluster._usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
