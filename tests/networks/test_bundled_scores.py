"""The manifest's scores match the bundled weights: they are measured again on the example photos."""

from __future__ import annotations

import pytest

from benchmarks import quality
from benchmarks import scores as bundled_scores
from srgan_cli.config import EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.evaluation.evaluate import Enlarge, bicubic_enlarger
from srgan_cli.networks import registry
from srgan_cli.networks.weights import Model, load_model

ENTRIES = registry.entries()
METHODS = [method for entry in ENTRIES for method in bundled_scores.sources(entry)]
SCALES = sorted({entry.scale for entry in ENTRIES})
NEEDING_NO_FILE = {"psnr_y_db", "ssim_y", "psnr_y_unrounded_db", "consistency_db"}  # of what is kept


def measured(enlarge: Enlarge, scale: int) -> dict[str, float]:
    found = quality.measure("examples", scale, {"it": enlarge}, (), None)["it"]
    scores = bundled_scores.kept(found.mean)
    assert len(found.pictures) == 3
    assert scores.keys() == NEEDING_NO_FILE
    return scores


def enlarger(model: Model) -> Enlarge:
    return Upscaler(model, EngineOptions(device="cpu", precision="fp32")).upscale


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(one, marks=[] if one in ("fast-x4", "srgan-x4@0.9") else pytest.mark.slow)
        for one in METHODS
        if bundled_scores.concerns(one, "examples")
    ],
)
def test_the_examples_come_out_as_the_manifest_says(method: str) -> None:
    name, key = bundled_scores.score_name(method, "examples")
    entry = registry.find(name)
    fresh = {key: measured(enlarger(load_model(method)), entry.scale)}
    assert quality.differences(name, entry.scores, fresh) == []


@pytest.mark.parametrize("scale", SCALES)
def test_and_so_does_bicubic(scale: int) -> None:
    fresh = {"examples": measured(bicubic_enlarger(scale), scale)}
    assert quality.differences("bicubic", bundled_scores.bicubic_scores(scale), fresh) == []


def test_one_kernel_that_changed_would_be_found() -> None:
    entry = registry.find("fidelity-x4")
    model = load_model(entry.name)
    model.network.get_parameter("tail.weight").mul_(1.05)
    assert quality.differences(entry.name, entry.scores, {"examples": measured(enlarger(model), 4)})


@pytest.mark.parametrize("method", METHODS)
def test_no_score_is_missing(method: str) -> None:
    for test_set in bundled_scores.SETS:
        if bundled_scores.concerns(method, test_set):
            name, key = bundled_scores.score_name(method, test_set)
            entry = registry.find(name)
            assert entry.scores.get(key, {}).keys() == bundled_scores.PLACES.keys(), key
            baseline = bundled_scores.bicubic_scores(entry.scale)
            assert baseline.get(test_set, {}).keys() == bundled_scores.PLACES.keys(), f"bicubic, {test_set}"
