"""Models with noise in `srgan evaluate`: a row for each strength, and the difference between two seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import SettingsError
from srgan_cli.evaluation.variants import variants
from srgan_cli.networks.generators import fold
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from tests.faults import model_of, save_tiny, tiny_model
from tests.networks.test_noise import noisy
from tests.upscaling.pictures import picture

FP32 = EngineOptions("cpu", "fp32")


@pytest.fixture
def model(tmp_path: Path) -> str:
    save_weights(tmp_path / "noisy.safetensors", noisy(), Card("noisy", "noisy"))
    picture(tmp_path / "high" / "a.png", 50, 44)
    picture(tmp_path / "high" / "b.png", 48, 40, seed=1)
    return str(tmp_path / "noisy.safetensors")


def evaluated(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    settings = ("--device", "cpu", "--precision", "fp32", "--metrics", "none", "--json")
    assert main(["evaluate", "--hr-dir", str(folder / "high"), *settings, *arguments]) == 0
    methods: dict[str, Any] = json.loads(capsys.readouterr().out)["methods"]
    return methods


def test_each_has_its_name_its_noise_and_another_draw() -> None:
    upscalers = {"a": Upscaler(model_of(fold(noisy())), FP32), "b": Upscaler(tiny_model("compact", 2), FP32)}
    assert list(variants(upscalers)) == ["a", "b"]
    found = variants(upscalers, (3, 4), (0.0, 0.5, 0.5))
    assert list(found) == ["a, variation 0", "a, variation 0.5, seed 3", "a, variation 0.5, seed 4", "b"]
    assert [one.facts for one in found.values()][:2] == [{"seed": 3, "variation": 0.0}, {"seed": 3, "variation": 0.5}]
    assert [one.again is None for one in found.values()] == [True, False, False, True]
    low = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    third, fourth = found["a, variation 0.5, seed 3"], found["a, variation 0.5, seed 4"]
    assert third.again is not None
    np.testing.assert_array_equal(third.again.upscale(low), fourth.upscaler.upscale(low))
    with pytest.raises(SettingsError, match="--seed needs a model that draws its detail from noise, unlike b:"):
        variants({"b": upscalers["b"]}, (3,), asked="--seed")


def test_without_and_with_noise_side_by_side(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    off, half, on = "noisy, variation 0", "noisy, variation 0.5", "noisy, variation 1"
    asked = [word for value in ("0", "0.5", "1") for word in ("--variation", value)]
    found = evaluated(tmp_path, capsys, "-m", model, *asked, "--save", str(tmp_path / "kept"))
    assert list(found) == ["bicubic", "lanczos", off, half, on]
    assert found[on] | {"mean": 0, "pictures": 0} == {
        "device": "cpu", "precision": "fp32", "seed": 0, "variation": 1.0, "mean": 0, "pictures": 0,
    }  # fmt: skip
    means = {name: one["mean"] for name, one in found.items()}
    assert [name for name in found if "spread" in means[name]] == [half, on]
    assert means[on]["psnr_y_db"] < means[half]["psnr_y_db"] < means[off]["psnr_y_db"]
    assert 0 < means[half]["spread"] < means[on]["spread"]

    def kept(name: str) -> np.ndarray[Any, Any]:
        return np.asarray(Pillow.open(tmp_path / "kept" / name / "a.png")).astype(float)

    evaluated(tmp_path, capsys, "-m", model, "--seed", "1", "--save", str(tmp_path / "kept" / "other"))
    apart = np.abs(kept(on) - kept("other/noisy, seed 1")).mean()
    assert apart == pytest.approx(found[on]["pictures"][0]["spread"], abs=1e-3)


def test_the_table_says_what_spread_is(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", "--hr-dir", str(tmp_path / "high"), "--metrics", "none", "-m", model, "--precision", "fp32"]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split()[-1] == "spread"
    assert [line.split()[-1] == "–" for line in out.splitlines()[1:]] == [True, True, False]
    assert "spread: the mean difference between the results of two seeds" in err
    assert "lower is better" not in err


def test_what_cannot_be(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = str(save_tiny(tmp_path / "plain.safetensors", 2))
    high = ["evaluate", "--hr-dir", str(tmp_path / "high"), "--metrics", "none"]
    for arguments, words in (
        (["-m", plain, "--variation", "0"], "--variation needs a model that draws its detail from noise, unlike plain"),
        (["-m", plain, "--seed", "2"], "--seed needs a model"),
        (["-m", model, "--variation", "1.5"], "--variation must be between 0 and 1, not 1.5"),
        (["-m", model, "--variation", "nan"], "--variation must be between 0 and 1, not nan"),
        (["-m", model, "--seed", "-1"], "--seed must be a whole number from 0 to 4611686018427387903, not -1"),
    ):
        assert main([*high, *arguments]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
