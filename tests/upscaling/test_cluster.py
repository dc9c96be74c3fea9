"""Runs on a real Ray cluster of two workers of this machine, some of which are killed: with SRGAN_TEST_RAY=1."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from srgan_cli.config import EngineOptions, RayOptions
from srgan_cli.sizes import Size
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.session import Session
from tests.upscaling.batch import runs
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.pictures import picture, tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SRGAN_TEST_RAY" not in os.environ, reason="SRGAN_TEST_RAY=1 runs a Ray cluster, for minutes"),
    pytest.mark.timeout(550),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.xdist_group("ray"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    yield ray
    ray.shutdown()


def session(folder: Path, model: Path, **options: Any) -> Session:
    return runs.session(
        folder / "in",
        model,
        **{
            "engine": EngineOptions("cpu", "fp32", 16),
            "resume": True,
            "size": Size(scale=2),
            "ray": RayOptions(),
            "split_pixels": 5000,
            **options,
        },
    )


def workers() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if "".join(process.info["cmdline"] or []).startswith("ray::_Actor"):
                found.append(process)
    return found


def run_while_killing(made: Session, out: Path, kills: int) -> tuple[Tally, Recorder, int]:
    """Kills a worker at random moments, the first when the first result is there."""
    dice, ended, killed = random.Random(0), threading.Event(), [0]

    def kill() -> None:
        while not ended.is_set() and not list(out.glob("*.png")):
            time.sleep(0.01)
        while killed[0] < kills and not ended.is_set():
            for victim in dice.sample(workers(), 1) if workers() else ():
                with contextlib.suppress(psutil.Error):
                    victim.send_signal(signal.SIGKILL)
                    killed[0] += 1
            ended.wait(dice.uniform(0.2, 1.0))

    thread = threading.Thread(target=kill)
    thread.start()
    watch = Recorder()
    try:
        tally = made.run(watch)
    finally:
        ended.set()
        thread.join()
    return tally, watch, killed[0]


def test_workers_that_are_killed_change_nothing(tmp_path: Path, model: Path, cluster: Any) -> None:
    for number in range(60):
        picture(tmp_path / "in" / f"{number:02}.png", 60, 50 + number, seed=number)
    picture(tmp_path / "in" / "large.png", 150, 400)
    tally, watch, killed = run_while_killing(session(tmp_path, model), tmp_path / "out", 2)
    assert (tally.exit_code, len(tally.done), tally.failures) == (0, 61, [])
    assert killed
    assert any("another takes its place" in note for note in watch.of("note"))
    assert not session(tmp_path, model, ray=None, output=tmp_path / "alone").run(Recorder()).failures
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
    for path in (tmp_path / "alone").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not session(tmp_path, model).plan.jobs
