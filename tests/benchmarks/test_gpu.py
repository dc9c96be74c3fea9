"""The GPU programme on the CPU, so that no time on a real GPU is lost to a typo."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_engine, gpu_pack, gpu_runs
from benchmarks.gpu_programme import Programme
from srgan_cli.cli import main
from srgan_cli.networks.weights import load_model
from tests.faults import tiny_model


def programme(folder: Path, *, minutes: float = 9.0, tiny: bool = True) -> Programme:
    return Programme("cpu", folder / "results.jsonl", folder, minutes, tiny, "part")


def lines(folder: Path) -> list[dict[str, object]]:
    return [dict(line) for line in gpu_pack.read(folder / "results.jsonl")]


def test_every_part_that_runs_here_finds_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "results.jsonl"
    parts = ["roofline", "engine", "tiles", "fused", "compile"]
    monkeypatch.setattr(sys, "argv", ["gpu-programme", *parts, "--tiny", "--device", "cpu", "--out", str(out)])
    assert gpu.main() == 0
    found = lines(tmp_path)
    assert not [line for line in found if "failed" in line or "skipped" in line]
    assert [line["part"] for line in found if line["case"] == "end"] == parts
    engine = next(line for line in found if line["case"] == "engine")
    assert engine["model"] == "fast-x4"
    assert float(str(engine["times_peer"])) > 0
    kernels = next(line for line in found if line["part"] == "fused" and line["case"] == "engine")
    assert (kernels["is_fused"], kernels["differ_by_at_most"]) == (False, 0)
    text = gpu_pack.tables(out)
    assert "### cpu" in text
    assert "| fast-x4 |" in text


def test_the_parts_that_start_others_give_commands_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are not started, but their options are parsed by their own parsers."""
    started: list[list[str]] = []

    def run(_programme: Programme, command: list[str]) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return subprocess.CompletedProcess(command, 0, '{"case": "inner", "ratio": 2}\n3 passed', "")

    def trained(_programme: Programme, command: list[str]) -> dict[str, object]:
        started.append(command)
        return {"code": 0}

    monkeypatch.setattr(gpu_runs, "_run", run)
    monkeypatch.setattr(gpu_runs, "_trained", trained)
    for name in ("tests", "files", "training", "train-paper-x4", "train-fidelity-x4", "train-fidelity-x2"):
        gpu.PARTS[name](programme(tmp_path))
        gpu.PARTS[name](programme(tmp_path, tiny=False))
    found = lines(tmp_path)
    assert {"pytest", "inner", "speed", "training", "train"} == {line["case"] for line in found}
    assert not [line for line in found if "failed" in line]
    for command in started:
        assert command[0] == sys.executable
        if command[2] == "srgan_cli":
            assert main([*command[3:], "--print-config"]) == 0, command


def test_what_fails_and_what_there_is_no_time_for_are_lines(tmp_path: Path) -> None:
    def fail() -> dict[str, object]:
        raise RuntimeError("CUDA error:\nno kernel image")

    programme(tmp_path).find(fail, case="a")
    programme(tmp_path, minutes=0.0).find(fail, case="b")
    failed, skipped = lines(tmp_path)
    assert failed["failed"] == "RuntimeError: CUDA error: no kernel image"
    assert skipped["skipped"] == "no time left"
    assert "no kernel image" in gpu_pack.tables(tmp_path / "results.jsonl")


@pytest.mark.slow
def test_training_ends_when_the_time_does(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', file=sys.stderr), sys.exit(7)))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    found = gpu_runs._trained(programme(tmp_path, minutes=(20 + 30 + 3) / 60), [sys.executable, "-c", code])
    assert (found["code"], found["said"]) == (7, "saved")


def test_flops_are_those_of_the_convolutions() -> None:
    model = tiny_model(features=8, blocks=1)  # head, two of a block, fuse, tail
    assert gpu_engine.flops_per_px(model) == 2 * 9 * (3 * 8 + 3 * 8 * 8 + 8 * 48)


def test_the_peer_makes_the_whole_picture(tmp_path: Path) -> None:
    high = gpu_engine.peer(programme(tmp_path), load_model("fast-x4"), "fp32", 13, 17)()
    assert tuple(high.shape) == (1, 3, 52, 68)


def test_a_pack_has_all_that_is_needed_and_as_many_pictures_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(4):
        pictures.joinpath(f"{number}.jpg").write_bytes(bytes(20 << 20))
    monkeypatch.setattr(gpu_pack, "PACKAGES", ("sortedcontainers", "no such package"))
    size = gpu_pack.pack(tmp_path / "pack.tar", pictures)
    assert (40 << 20) < size <= gpu_pack.MAX_BYTES
    names = set(gpu_pack.names_in(tmp_path / "pack.tar"))
    assert {"scripts/gpu-programme", "benchmarks/gpu.py", "srgan_cli/__init__.py", "weights/manifest.toml"} <= names
    assert {"vendor/sortedcontainers/__init__.py", "pictures/0.jpg"} <= names
    assert "pictures/3.jpg" not in names
    assert not [name for name in names if name.endswith(".pyc")]


def test_headings_have_units() -> None:
    line = {"engine_mpx_per_s": 1, "tile_px": 2, "precision_used": "fp16", "tflops": 3}
    assert gpu_pack._table([line])[0] == "| engine, Mpx/s | tile, px | precision used | TFLOP/s |"


def test_tables_take_their_place_in_the_page(tmp_path: Path) -> None:
    page = tmp_path / "BENCHMARKS.md"
    page.write_text("# Benchmarks\n\nBefore.\n", encoding="utf-8")
    gpu_pack.write_tables("first\n", page)
    page.write_text(page.read_text(encoding="utf-8") + "\nAfter.\n", encoding="utf-8")
    gpu_pack.write_tables("second\n", page)
    text = page.read_text(encoding="utf-8")
    assert "first" not in text
    assert text.index("Before.") < text.index("second") < text.index("After.")
