"""Runs on a real local Ray cluster of two workers, some of which are killed: with SRGAN_TEST_RAY=1."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest

from srgan_cli.config import EngineOptions, RayOptions
from srgan_cli.sizes import Size
from srgan_cli.upscaling.observer import Tally
from srgan_cli.upscaling.record_storage import FILE_NAME
from srgan_cli.upscaling.session import Session
from tests.upscaling.batch import runs
from tests.upscaling.batch.runs import Recorder
from tests.upscaling.crews import dies_of_width
from tests.upscaling.pictures import picture, tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SRGAN_TEST_RAY" not in os.environ, reason="SRGAN_TEST_RAY=1 runs a Ray cluster, for minutes"),
    pytest.mark.timeout(550),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
    pytest.mark.xdist_group("ray"),
]


_INIT = (
    "import ray; ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR', "
    "configure_logging=False); print(ray.get_runtime_context().gcs_address, flush=True); input()"
)
# The same, with a server for `ray://`.
_CLIENTS = (
    "import ray, socket, subprocess, sys; "
    "free = socket.socket(); free.bind(('127.0.0.1', 0)); port = free.getsockname()[1]; free.close(); "
    "ray.init('local', num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR', "
    "configure_logging=False); server = subprocess.Popen([sys.executable, '-m', 'ray.util.client.server', '--address', "
    "ray.get_runtime_context().gcs_address, '--host', '127.0.0.1', '--port', str(port)]); "
    "print(f'ray://127.0.0.1:{port}', flush=True); input(); server.kill(); server.wait()"
)
# Two nodes of one core; a line from outside takes the second one away.
_NODES = (
    "from ray.cluster_utils import Cluster; "
    "cluster = Cluster(initialize_head=True, connect=False, head_node_args={'num_cpus': 1}); "
    "second = cluster.add_node(num_cpus=1); cluster.wait_for_nodes(); print(cluster.address, flush=True); input(); "
    "cluster.remove_node(second, allow_graceful=False); input(); cluster.shutdown()"
)


class Held(NamedTuple):
    """A cluster: its address, and the process that holds it."""

    address: str
    process: subprocess.Popen[str]

    def say(self) -> None:
        """Let that process go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def workers(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "".join(process.cmdline()).startswith("ray::_Actor"):
                    found.append(process)
        return found


@contextlib.contextmanager
def cluster_of_its_own(script: str, *before: str) -> Iterator[Held]:
    """A cluster that another process holds."""
    pytest.importorskip("ray")
    process = subprocess.Popen(
        [*before, sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Held(next(text for text in process.stdout if ":" in text).split()[-1], process)
    finally:
        process.communicate("\n\n")


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "RAY_worker_niceness": "0",
        "RAY_raylet_start_wait_time_s": "150",
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Held]:
    """One for runs of this process."""
    os.environ |= environment()
    with cluster_of_its_own(_INIT) as held:
        yield held


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


def run_while_killing(made: Session, out: Path, kills: int, held: Held) -> tuple[Tally, Recorder, int]:
    """Kills a worker at random moments, the first when the first result is there."""
    dice, ended, killed = random.Random(0), threading.Event(), [0]

    def kill() -> None:
        while not ended.is_set() and not list(out.glob("*.png")):
            time.sleep(0.01)
        while killed[0] < kills and not ended.is_set():
            for victim in dice.sample(held.workers(), 1) if held.workers() else ():
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


def test_workers_that_are_killed_change_nothing(tmp_path: Path, model: Path, cluster: Held) -> None:
    ray = RayOptions(cluster.address)
    for number in range(60):
        picture(tmp_path / "in" / f"{number:02}.png", 60, 50 + number, seed=number)
    picture(tmp_path / "in" / "large.png", 150, 400)
    tally, watch, killed = run_while_killing(session(tmp_path, model, ray=ray), tmp_path / "out", 2, cluster)
    assert (tally.exit_code, len(tally.done), tally.failures) == (0, 61, [])
    assert killed
    assert any("another takes its place" in note for note in watch.of("note"))
    assert not session(tmp_path, model, ray=None, output=tmp_path / "alone").run(Recorder()).failures
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
    for path in (tmp_path / "alone").glob("*.png"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not session(tmp_path, model).plan.jobs


def command(
    folder: Path, model: Path, *more: str, output: str = "out", before: Sequence[str] = ()
) -> subprocess.Popen[str]:
    arguments = ["upscale", str(folder / "in"), "-o", str(folder / output), "--resume", "--model", str(model),
                 "--scale", "2", "--device", "cpu", "--precision", "fp32", "--tile", "16", "--split-pixels", "5000",
                 "-v", *more]  # fmt: skip
    return subprocess.Popen(
        [*before, sys.executable, "-m", "srgan_cli", *arguments], stderr=subprocess.PIPE, text=True, env=environment()
    )


def fill(folder: Path, count: int) -> None:
    for number in range(count):
        picture(folder / "in" / f"{number:02}.png", 80, 60 + number, seed=number)
    picture(folder / "in" / "large.png", 150, 400)


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").glob("*.png")}


def made_alone(folder: Path, model: Path) -> dict[str, bytes]:
    process = command(folder, model, output="alone")
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return {path.name: path.read_bytes() for path in (folder / "alone").glob("*.png")}


def wait_for_results(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 200
    while len(results(folder)) < count:
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.02)


def test_a_driver_that_is_killed_is_gone_on_from(tmp_path: Path, model: Path) -> None:
    fill(tmp_path, 40)
    with cluster_of_its_own(_INIT) as held:
        first = command(tmp_path, model, f"--ray={held.address}")
        wait_for_results(tmp_path, 6, first)
        first.kill()
        first.communicate()
        left = results(tmp_path)
        lines = [json.loads(row) for row in (tmp_path / "out" / FILE_NAME).read_text().splitlines() if row]
        recorded = {row["target"] for row in lines if row["result"]}
        assert 0 < len(recorded) < 41
        stamps = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in recorded}
        second = command(tmp_path, model, f"--ray={held.address}")
        _, said = second.communicate(timeout=400)
    assert second.returncode == 0, said
    whole = made_alone(tmp_path, model)
    assert results(tmp_path) == whole
    assert all(whole[name] == data for name, data in left.items()), "nothing half-made has a result's name"
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in recorded} == stamps, "nothing is done twice"
    assert tree(tmp_path / "out") == tree(tmp_path / "alone"), "and nothing is left behind"


@pytest.mark.parametrize("cluster_too", [True, False], ids=["both", "the command alone"])
def test_workers_have_one_arena_whether_or_not_ray_has_it(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, cluster_too: bool
) -> None:
    """Where Ray was started with it, workers are processes that were there already; else new ones."""
    fill(tmp_path, 12)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    with cluster_of_its_own(_INIT, *(() if cluster_too else ("env", "-u", "MALLOC_ARENA_MAX"))) as held:
        process = command(tmp_path, model, f"--ray={held.address}")
        wait_for_results(tmp_path, 1, process)
        assert {worker.environ().get("MALLOC_ARENA_MAX") for worker in held.workers()} == {"1"}
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert results(tmp_path) == made_alone(tmp_path, model)


def test_a_cluster_of_its_own_has_the_cores_that_the_command_has(tmp_path: Path, model: Path) -> None:
    fill(tmp_path, 3)
    before = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    process = command(tmp_path, model, "--ray=local", before=before)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "ray:2" not in said
    assert results(tmp_path) == made_alone(tmp_path, model)


def test_sigterm_ends_a_run_as_it_does_without_ray(tmp_path: Path, model: Path) -> None:
    fill(tmp_path, 60)
    process = command(tmp_path, model, "--ray=local")
    wait_for_results(tmp_path, 3, process)
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 130, said
    assert "SIGTERM" not in said
    assert "interrupted in" in said
    assert not psutil.wait_procs(children, 30)[1]
    assert not [name for name in tree(tmp_path / "out") if name.endswith(".part")]


def test_a_cluster_is_reached_through_its_client_server(tmp_path: Path, model: Path) -> None:
    fill(tmp_path, 8)
    with cluster_of_its_own(_CLIENTS) as held:
        process = command(tmp_path, model, f"--ray={held.address}")
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert results(tmp_path) == made_alone(tmp_path, model)


def test_a_node_that_goes_away_costs_nothing_but_time(tmp_path: Path, model: Path) -> None:
    fill(tmp_path, 40)
    with cluster_of_its_own(_NODES) as held:
        process = command(tmp_path, model, f"--ray={held.address}")
        wait_for_results(tmp_path, 6, process)
        held.say()
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "has ended with" in said
    assert results(tmp_path) == made_alone(tmp_path, model)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


def test_workers_whose_disk_is_another_are_sent_pictures_and_send_results(tmp_path: Path, model: Path) -> None:
    """Their file system has other folders where pictures, results and weights are: mounted for them alone."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mounting for a process alone is not allowed here")
    fill(tmp_path, 8)
    (tmp_path / "out").mkdir()
    (tmp_path / "weights").mkdir()
    own = tmp_path / "weights" / "own.safetensors"
    own.write_bytes(model.read_bytes())
    mounts = " && ".join(f"mount -t tmpfs none {tmp_path / name}" for name in ("in", "out", "weights"))
    with cluster_of_its_own(_INIT, "unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh") as held:
        process = command(tmp_path, own, f"--ray={held.address}")
        _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "does not see the folders" in said
    assert results(tmp_path) == made_alone(tmp_path, model)


def test_a_picture_that_kills_its_workers_is_one_failure(tmp_path: Path, model: Path, cluster: Held) -> None:
    """As the system does it to those that take too much memory."""
    for number in range(8):
        picture(tmp_path / "in" / f"{number:02}.png", 20 + number, 16, seed=number)
    made = replace(session(tmp_path, model, ray=RayOptions(cluster.address)), make=dies_of_width(23 * 2))
    tally = made.run(Recorder())
    (failure,) = tally.failures
    assert (failure.source.name, tally.exit_code, len(tally.done)) == ("03.png", 1, 7)
    assert failure.reason.startswith("each of the 3 workers that tried to make it has ended, the last with ")
