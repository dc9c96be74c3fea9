"""Connecting to a Ray cluster, and the environment of one of its own; real clusters are in `test_cluster`."""

from __future__ import annotations

import os
import socket

import pytest

from srgan_cli.errors import DeviceError
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


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_a_cluster_that_does_not_answer_is_reported_at_once(form: str) -> None:
    """Ray itself would try for minutes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = form.format(f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(DeviceError, match=f"there is no Ray cluster at {address}: connection refused"):
        cluster._check_reachable(address)
    with pytest.raises(DeviceError, match=r"no Ray cluster at no-such-host\.invalid:1: "):
        cluster._check_reachable("no-such-host.invalid:1")


def test_a_cluster_that_answers_is_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster._check_reachable(f"ray://127.0.0.1:{server.getsockname()[1]}")
    for address in ("local", "auto", "ray://host", "k8s://a/b:1"):
        cluster._check_reachable(address)
