"""Learning from a teacher: whole runs with tiny networks, stored and inline, resumed, and invalid inputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.engine.backends.pytorch import PyTorch
from srgan_cli.errors import NothingToDoError, SettingsError, TrainingError, WeightsError
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import load_model, save_weights
from srgan_cli.training import checkpoint, sources, trainer
from srgan_cli.training.likeness import Likeness
from srgan_cli.training.loader import BatchLoader
from srgan_cli.training.monitor import Monitor
from srgan_cli.training.observer import SilentTraining
from srgan_cli.training.picture_numbers import ValidationNumbers
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import _real, _targets, begin
from srgan_cli.training.sources import prepare, scanned
from srgan_cli.training.state import State
from srgan_cli.training.steps import Examples
from srgan_cli.training.teaching import Teacher, load_teacher
from srgan_cli.training.validation import held_out
from srgan_cli.training_presets import merged, to_toml
from tests import faults
from tests.training.runs import (
    Witness,
    log_of,
    nearly_same,
    poisoned,
    run_by_two_processes,
    save_photos,
    stop_at,
    tensors,
)
from tests.training.runs import teaching as config


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_photos(tmp_path_factory.mktemp("photos"), 6)


# ----------------------------------------------------------------------------------------------------------- a teacher


def a_teacher(network: Any, scale: int = 2, **options: Any) -> Teacher:
    backend = PyTorch(torch.device("cpu"), options.pop("dtype", torch.float32))
    return Teacher(faults.model_of(network), scale, backend, inline=True)


def test_a_teacher_enlarges_as_its_network_does() -> None:
    network = faults.tiny_model(scale=2).network
    low = torch.rand(18, 3, 9, 7)
    result = a_teacher(network)(low)
    with torch.no_grad():
        torch.testing.assert_close(result, network(low).clamp(0, 1), atol=1e-5, rtol=0)
    assert not result.is_inference()  # it takes part in losses
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(a_teacher(faults.Nearest(2)).of_pixels(pixels), pixels.repeat(2, 0).repeat(2, 1))


def test_a_teacher_of_a_larger_scale_has_its_results_downscaled() -> None:
    low = torch.rand(2, 3, 8, 8)
    four = a_teacher(faults.Nearest(4), scale=4)(low)
    torch.testing.assert_close(a_teacher(faults.Nearest(4), scale=2)(low), bicubic_down(four, 2).clamp(0, 1))


def test_half_precision_is_checked_and_left_where_it_is_wrong() -> None:
    assert a_teacher(faults.WrongInHalf(0.0), dtype=torch.bfloat16).precision == "bf16"
    assert a_teacher(faults.WrongInHalf(0.1), dtype=torch.bfloat16).precision == "fp32"
    bright = torch.ones(1, 3, 8, 8)
    overflowing = a_teacher(faults.WrongInHalf(float("inf"), only_bright=True), dtype=torch.bfloat16)
    assert overflowing.precision == "bf16"
    torch.testing.assert_close(overflowing(bright), torch.ones(1, 3, 16, 16))  # made again in fp32


def test_a_teacher_that_gives_nan_is_a_sentence() -> None:
    with pytest.raises(WeightsError, match=r"the teacher, nearest, gives numbers that are not finite"):
        a_teacher(faults.Never())(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("scale", [3, 4])
def test_a_teacher_of_another_scale_is_refused(photos: Path, teachers: Path, scale: int) -> None:
    settings = config(photos, teachers / "x2.safetensors", generator={"scale": scale}, fidelity={"crop_px": 24})
    with pytest.raises(SettingsError, match=rf"enlarges 2 times, and its student {scale} times.* give --scale 2"):
        load_teacher(settings, torch.device("cpu"))


def test_what_is_no_model_is_refused(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "foreign.pth").write_bytes(b"")
    for name, message in (
        ("text.safetensors", "not a safetensors file"),
        ("foreign.pth", "is empty"),
        ("nobody.pth", "there is no|cannot be read|does not exist"),
    ):
        with pytest.raises(WeightsError, match=message):
            trainer.train(config(photos, tmp_path / name), tmp_path / "run", SilentTraining())
        assert not (tmp_path / "run").exists()
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "foreign.pth")
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(WeightsError, match=r"pip install '.*\[spandrel\]'"):
        load_teacher(config(photos, tmp_path / "foreign.pth"), torch.device("cpu"))


# -------------------------------------------------------------------------------------------------------- what is mixed


def examples() -> Examples:
    return Examples(torch.rand(4, 3, 4, 4), torch.zeros(4, 3, 8, 8), torch.ones(4, 3, 8, 8))


def test_the_weight_mixes_teacher_and_originals() -> None:
    batch = examples()
    assert [(w, float(t.mean())) for w, t in _targets(batch, 0.25)] == [(0.25, 1.0), (0.75, 0.0)]
    assert [w for w, _ in _targets(batch, 1.0)] == [1.0]
    assert [float(t.mean()) for _, t in _targets(batch, 0.0)] == [0.0]
    assert [w for w, _ in _targets(Examples(batch.low, batch.high), 0.3)] == [1.0]


def test_what_is_real_is_chosen_crop_by_crop_over_all_processes() -> None:
    batch = examples()
    assert float(_real(batch, "original", Processes()).mean()) == 0.0
    assert float(_real(batch, "teacher", Processes()).mean()) == 1.0
    assert _real(batch, "both", Processes()).mean(dim=(1, 2, 3)).tolist() == [0, 1, 0, 1]
    three = Examples(batch.low[:3], batch.high[:3], batch.taught[:3])  # type: ignore[index]
    assert _real(three, "both", Processes(1, 2, 1)).mean(dim=(1, 2, 3)).tolist() == [1, 0, 1]


# --------------------------------------------------------------------------------------------------------------- a run

CASES: Mapping[str, Mapping[str, Any]] = {
    "kept": {"phase": "both", "teacher": {"weight": 0.5, "real": "both"}},
    "photo": {"degradation": {"kind": "photo"}},
    "inline": {"phase": "both", "teacher": {"results": "inline", "crops": 0}},
}


@pytest.mark.parametrize(
    ("case", "worn"),
    [
        ("kept", True),
        ("inline", True),
        pytest.param("kept", False, marks=pytest.mark.slow),
        pytest.param("photo", False, marks=pytest.mark.slow),
    ],
)
def test_two_and_two_steps_are_four_to_the_bit(
    photos: Path,
    teachers: Path,
    tmp_path: Path,
    case: str,
    worn: bool,
) -> None:
    without = {"teacher": {"unlabelled_dirs": [str(photos)], "unlabelled_fraction": 0.4}} if worn else {}
    whole = config(photos, teachers / "x4.safetensors", **merged(CASES[case], without))
    trainer.train(whole, tmp_path / "whole", Witness())
    stop = 3 if whole.phase == "both" else 2
    assert trainer.train(whole, tmp_path / "parts", Witness(stop_at(stop))).interrupted
    witness = Witness()
    trainer.train(whole, tmp_path / "parts", witness)
    assert witness.steps == list(range(stop + 1, 5))
    one, other = (checkpoint.load(tmp_path / name / "checkpoint")["parts"] for name in ("whole", "parts"))
    for name, part in one.items():
        for mine, theirs in zip(tensors(part), tensors(other[name]), strict=True):
            assert torch.equal(mine, theirs), name


def test_a_student_does_as_its_teacher_and_not_as_the_originals(photos: Path, tmp_path: Path) -> None:
    brighter = faults.tiny_generator(scale=2)
    with torch.no_grad():  # bilinear enlargement, a little brighter
        faults.tail(brighter).weight.zero_()
        faults.tail(brighter).bias.fill_(0.1)
    save_weights(tmp_path / "brighter.safetensors", brighter, Card("brighter", "brighter"))
    settings = config(
        photos, tmp_path / "brighter.safetensors", steps=100, watch={"checkpoint_every_steps": 0},
        fidelity={"learning_rate": 3e-3, "frequency_weight": 0.0, "ema": 0.9}, teacher={"crops": 12},
    )  # fmt: skip
    outcome = trainer.train(settings, tmp_path / "run", Witness())
    events = log_of(tmp_path / "run")
    losses = [event["losses"]["pixel"] for event in events if event["event"] == "step"]
    assert np.mean(losses[-10:]) < 0.03
    looks = [event for event in events if event["event"] == "validation"]
    assert looks[-1]["teacher_psnr_y_db"] > looks[0]["teacher_psnr_y_db"] + 6
    assert looks[-1]["teacher_psnr_y_db"] > looks[-1]["psnr_y_db"]
    assert outcome.scores["bicubic"]["teacher_psnr_y_db"] == pytest.approx(20, abs=2)  # a tenth brighter
    assert outcome.scores["model"]["teacher_perceptual"] < outcome.scores["bicubic"]["teacher_perceptual"]
    low = torch.rand(1, 3, 1, 1).expand(1, 3, 12, 12)
    with torch.no_grad():
        shift = load_model(tmp_path / "run").network(low).mean() - low.mean()
    assert float(shift) == pytest.approx(0.1, abs=0.05)


def test_the_report_shows_the_teacher_beside_its_student(photos: Path, teachers: Path, tmp_path: Path) -> None:
    trainer.train(config(photos, teachers / "x2.safetensors", phase="both"), tmp_path, Witness())
    page = (tmp_path / "report.html").read_text()
    assert "Compared with the teacher" in page
    assert "PSNR to the teacher" in page
    assert "VGG distance to the teacher" in page
    assert "those of the middle of 2 held-out pictures." in page
    (speeds,) = [event for event in log_of(tmp_path) if event["event"] == "speeds"]
    assert speeds["student_px_per_s"] > 0
    assert f"{speeds['student_px_per_s'] / speeds['teacher_px_per_s']:.1f} times as many" in page
    with Image.open(tmp_path / "teacher.png") as sheet:
        assert sheet.width > 4 * 40  # four columns of the pictures' middles
    taught = log_of(tmp_path)[0]["teacher"]
    assert (taught["name"], taught["scale"]) == ("x2", 2)
    entry = load_model(tmp_path).entry
    assert entry is not None
    recipe = json.dumps(entry.recipe)
    assert taught["sha256"] in recipe
    assert str(teachers) not in recipe  # models are shared, and paths are private


def test_a_teacher_worse_than_bicubic_is_no_reason_to_go_back(photos: Path, teachers: Path) -> None:
    settings = config(photos, teachers / "x2.safetensors")
    run = begin(settings, Processes())
    assert run.teacher is not None
    scanned = sources.scanned(run, SilentTraining())
    likeness = Likeness(run, run.teacher, held_out(settings, scanned, 2))
    assert likeness.gap_db > 3  # its network is random
    worse = ValidationNumbers(psnr_y_db=20.0, bicubic_psnr_y_db=24.0)
    for gap_db, bad in ((0.0, True), (likeness.gap_db, False)):
        monitor = Monitor(gap_db=gap_db)
        monitor.begin("fidelity")
        monitor.validation(0, ValidationNumbers(psnr_y_db=25.0, bicubic_psnr_y_db=24.0))
        assert any(finding.roll_back for finding in monitor.validation(1, worse)) == bad


@pytest.mark.parametrize("results", ["kept", "inline"])
def test_a_run_does_not_go_on_with_another_teacher(photos: Path, teachers: Path, tmp_path: Path, results: str) -> None:
    model, run = tmp_path / "mine.safetensors", tmp_path / "run"
    model.write_bytes((teachers / "x2.safetensors").read_bytes())
    settings = config(photos, model, teacher={"results": results})
    trainer.train(settings, run, Witness(stop_at(2)))
    earlier, checkpoints = model.read_bytes(), (run / "checkpoint").read_bytes()
    faults.save_tiny(model, 2, seed=8)
    with pytest.raises(SettingsError, match=r"the teacher, .*mine\.safetensors, has changed .* --init .*run --out NEW"):
        trainer.train(settings, run, Witness())
    assert (run / "checkpoint").read_bytes() == checkpoints
    model.write_bytes(earlier)
    assert not trainer.train(settings, run, Witness()).interrupted


@pytest.mark.slow
def test_the_budget_leaves_time_to_learn(photos: Path, teachers: Path, tmp_path: Path) -> None:
    settings = config(
        photos, teachers / "x2.safetensors", budget_s=3.0, teacher={"crops": 0},
        data={"cache_dir": str(tmp_path / "c")}, watch={"checkpoint_every_steps": 0},
    )  # fmt: skip
    outcome = trainer.train(settings, tmp_path / "run", Witness())
    assert outcome.steps > 3


def test_the_scan_leaves_out_what_a_piece_needs_more_of(photos: Path, teachers: Path, tmp_path: Path) -> None:
    inline = {"results": "inline", "crops": 0, "context_px": 8, "piece_px": 0}
    with pytest.raises(NothingToDoError, match="smaller than the 48 px"):
        trainer.train(config(photos, teachers / "x2.safetensors", teacher=inline), tmp_path / "run", Witness())


def test_inline_results_are_those_of_the_crop_with_its_surroundings(photos: Path, teachers: Path) -> None:
    settings = config(photos, teachers / "x2.safetensors", teacher={"results": "inline", "crops": 0})
    run, state = begin(settings, Processes()), State(phase="fidelity")
    found = prepare(run, state, scanned(run, SilentTraining()), SilentTraining())
    loader = BatchLoader(run, state, 16, found)
    batch = next(loader)
    loader.close()
    assert (batch.low.shape, batch.high.shape) == ((4, 3, 8, 8), (4, 3, 16, 16))
    assert batch.taught is not None
    assert batch.taught.shape == (4, 3, 16, 16)
    model = load_model(teachers / "x2.safetensors")
    with torch.no_grad():
        alone = model.network(batch.low).clamp(0, 1)
    assert (alone - batch.taught).abs().max() > 1e-3  # at its border a crop alone looks different
    assert (bicubic_down(batch.taught, 2) - batch.low).abs().mean() < 0.5


def test_a_disk_that_is_full_leaves_no_run_behind(
    photos: Path,
    teachers: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from srgan_cli.dataset import taught

    monkeypatch.setattr(taught, "_make", faults.disk_full)
    settings = config(photos, teachers / "x2.safetensors", data={"cache_dir": str(tmp_path / "c")})
    with pytest.raises(TrainingError, match="the disk is full: the teacher's results"):
        trainer.train(settings, tmp_path / "run", Witness())
    assert not (tmp_path / "run").exists()


def test_after_going_back_the_same_pieces_teach(
    photos: Path, teachers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(photos, teachers / "x2.safetensors", steps=6, teacher={"weight": 0.5})  # originals count, too
    poisoned(monkeypatch, lambda count: count == 4)
    witness = Witness()
    outcome = trainer.train(settings, tmp_path / "run", witness)
    assert outcome.steps == 6
    values = checkpoint.load(tmp_path / "run" / "checkpoint")["values"]
    assert (values["rollbacks"], values["pieces"]) == (1, 6)


@pytest.mark.slow
@pytest.mark.parametrize("results", ["kept", "inline"])
def test_two_processes_compute_what_one_does(photos: Path, teachers: Path, tmp_path: Path, results: str) -> None:
    taught = {"results": results, "weight": 0.5, "real": "both", "unlabelled_dirs": [str(photos)]}
    settings = config(photos, teachers / "x2.safetensors", phase="both", steps=4, teacher=taught)
    trainer.train(settings, tmp_path / "one", Witness())
    (tmp_path / "settings.toml").write_text(to_toml(settings))
    command = [sys.executable, "-m", "srgan_cli", "train", "--config", str(tmp_path / "settings.toml")]
    run_by_two_processes([*command, "--out", str(tmp_path / "two"), "-q"])
    nearly_same(tmp_path / "one", tmp_path / "two")


def test_a_network_of_another_program_teaches(photos: Path, tmp_path: Path) -> None:
    esrgan = pytest.importorskip("spandrel").architectures.ESRGAN.ESRGAN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = esrgan(num_filters=4, num_blocks=1, scale=4)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "x4.pth")
    settings = config(photos, tmp_path / "x4.pth", generator={"scale": 4}, data={"cache_dir": str(tmp_path / "c")})
    trainer.train(settings, tmp_path / "run", Witness())
    entry = load_model(tmp_path / "run").entry
    assert entry is not None
    assert entry.recipe["config"]["teacher"]["model"]["architecture"] == "ESRGAN"  # type: ignore[index]


@pytest.mark.gpu
@pytest.mark.parametrize("results", ["auto", "kept"])
def test_a_gpu_asks_its_teacher_as_it_goes(photos: Path, teachers: Path, tmp_path: Path, results: str) -> None:
    settings = config(
        photos, teachers / "x4.safetensors", phase="both", steps=20, compute={"device": "cuda", "precision": "auto"},
        degradation={"kind": "photo"}, data={"cache_dir": str(tmp_path / "c")},
        teacher={"results": results, "unlabelled_dirs": [str(photos)]},
    )  # fmt: skip
    outcome = trainer.train(settings, tmp_path / "run", Witness())
    assert outcome.steps == 20
    assert np.isfinite(outcome.scores["model"]["teacher_psnr_y_db"])
    assert any((tmp_path / "c").glob("*.taught")) == (results == "kept")
