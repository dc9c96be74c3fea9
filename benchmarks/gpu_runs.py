"""The parts of the GPU programme that start other programs: tests, the other benchmarks, training."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.gpu_programme import Programme

ROOT = Path(__file__).resolve().parent.parent


def run_tests(programme: Programme) -> None:
    settings = programme.out.resolve().with_name("gpu-tests.ini")
    # The project's own settings ask for plugins that a minimal machine lacks.
    settings.write_text("[pytest]\nmarkers =\n    gpu: needs a CUDA device\n    slow: takes long\n", encoding="utf-8")
    chosen = ["tests/upscaling/test_tiles.py"] if programme.tiny else ["-m", "gpu", *_files_marked_gpu()]
    command = [sys.executable, "-m", "pytest", "-q", "-c", str(settings), "--rootdir", str(ROOT), *chosen]
    programme.find(partial(_tested, programme, [*command, "-p", "no:cacheprovider"]), case="pytest")


def _files_marked_gpu() -> list[str]:
    """Only these are collected: importing others may fail for a missing package, and one such error ends the whole
    run."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "pytest.mark.gpu" in file.read_text(encoding="utf-8")]


def _tested(programme: Programme, command: list[str]) -> Mapping[str, object]:
    done = _run(programme, command)
    lines = done.stdout.strip().splitlines()
    return {
        "code": done.returncode,
        "summary": lines[-1] if lines else done.stderr.strip()[-300:],
        "failures": [line for line in lines if line.startswith(("FAILED", "ERROR"))][:40],
    }


def _run(programme: Programme, command: list[str]) -> subprocess.CompletedProcess[str]:
    timeout = max(1.0, programme.left_s)
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, env=_environment())


def _environment() -> dict[str, str]:
    """For subprocesses: the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def measure_files(programme: Programme) -> None:
    if importlib.util.find_spec("pyvips") is None:
        programme.tell(case="speed", skipped="pyvips is not installed")
        return
    precisions = ["fp32"] if programme.tiny or not programme.on_cuda else ["fp16", "fp32"]
    options = ["--device", programme.device, "--precisions", *precisions, "--model", "fast-x4"]
    options += ["--pictures", "1", "--repeats", "1"] if programme.tiny else ["--repeats", "3"]
    for case in ("folder",) if programme.tiny else ("plain", "folder", "bare"):
        programme.find(partial(_benchmark, programme, "speed", [case, *options]), case="speed", of=case)


def measure_training(programme: Programme) -> None:
    options = ["--hr-dir", str(programme.pictures), "--device", programme.device]
    options += ["--steps", "2", "--repeats", "1"] if programme.tiny else ["--steps", "60"]
    for preset in ("compact",) if programme.tiny else ("compact", "srgan", "paper"):
        command = [*options, "--preset", preset]
        programme.find(partial(_benchmark, programme, "training", command), case="training", of=preset)


def _benchmark(programme: Programme, name: str, options: list[str]) -> Mapping[str, object]:
    """One of the other benchmarks, each of whose lines also becomes a finding."""
    done = _run(programme, [sys.executable, "-m", f"benchmarks.{name}", *options])
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            programme.tell(**{"case": f"{name} line", **json.loads(line)})
    if done.returncode:  # a subprocess may have reported the cause before its own traceback
        errors = [line for line in done.stderr.splitlines() if re.match(r"\S*(Error|Exception|error):? ", line)]
        return {"code": done.returncode, "failed": " | ".join(errors)[-1000:] or done.stderr.strip()[-500:]}
    return {"code": 0}


_SMALLEST = ("--batch", "1", "--crop", "32", "--set", "generator.features=4", "--set", "generator.blocks=1")


def train(programme: Programme, *, name: str, options: list[str]) -> None:
    run = programme.out.resolve().parent / "runs" / name
    length = ["--steps", "2", *_SMALLEST] if programme.tiny else ["--budget", "3h"]
    command = [sys.executable, "-m", "srgan_cli", "train", "--hr-dir", str(programme.pictures), "--out", str(run)]
    command += [*options, "--device", programme.device, *length]
    programme.find(partial(_trained, programme, command), case="train", model=name, run=str(run))


def _trained(programme: Programme, command: list[str]) -> Mapping[str, object]:
    """Continues where the last call stopped, until the time is over; a signal makes `srgan train` save and stop."""
    began = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=_environment()
    )
    try:
        _, said = process.communicate(timeout=max(1.0, programme.left_s - 30.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            _, said = process.communicate(timeout=45)
        except subprocess.TimeoutExpired:
            process.kill()
            _, said = process.communicate()
    seconds = round(time.monotonic() - began, 1)
    return {"code": process.returncode, "seconds": seconds, "said": said.strip()[-300:]}
