"""How scores are measured, stored and checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import bundle, model_pages, quality
from benchmarks import scores as bundled_scores
from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.evaluation.metrics import psnr
from srgan_cli.evaluation.pairs import read_rgb
from srgan_cli.evaluation.perceptual import vgg_distance_of_pixels
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks import registry
from srgan_cli.networks.features import load_features
from srgan_cli.networks.registry import Card


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of fidelity-x4, without its scores, and of the documents."""
    folder = tmp_path / "weights"
    folder.mkdir()
    for suffix in (".safetensors", ".md"):
        shutil.copy(registry.find("fidelity-x4").path.with_suffix(suffix), folder)
    shutil.copy(model_pages.OVERVIEW, tmp_path)
    monkeypatch.setattr(model_pages, "OVERVIEW", tmp_path / "MODELS.md")
    monkeypatch.setattr(bundled_scores, "BICUBIC", tmp_path / "bicubic.json")
    monkeypatch.setattr(registry, "weights_folder", lambda: folder)
    bundled_scores.set_scores(folder / "fidelity-x4.safetensors", {"Set5": {"psnr_y_db": 31.0}})
    bundled_scores.write_manifest(folder)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["quality", *words])
    return quality.main()


def test_scores_are_printed_written_and_checked(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--check") == 1
    assert "fidelity-x4, examples: psnr_y_db is" in capsys.readouterr().err
    assert run(monkeypatch, "--write") == 0
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    assert [(line["set"], line["model"], line["scale"], line["pictures"]) for line in lines] == [
        ("examples", "bicubic", 4, 3),
        ("examples", "fidelity-x4", 4, 3),
    ]
    assert "all 3 pictures" in captured.err
    (entry,) = registry.entries()
    assert entry.scores["Set5"] == {"psnr_y_db": 31.0}, "of another set, so it stays"
    assert entry.scores["examples"]["psnr_y_db"] == round(lines[1]["psnr_y_db"], 3)
    assert entry.scores["examples"].keys() == bundled_scores.PLACES.keys() - {"vgg19_conv3_4"}
    assert bundled_scores.bicubic_scores(4)["examples"]["ssim_y"] == lines[0]["ssim_y"]
    assert [check.ok for check in registry.verify()] == [True]
    page = (copied / "weights" / "fidelity-x4.md").read_text(encoding="utf-8")
    assert f"| examples: `fidelity-x4` | {lines[1]['psnr_y_db']:.2f} |" in page
    assert f"| examples | bicubic | {lines[0]['psnr_y_db']:.2f} |" in model_pages.OVERVIEW.read_text(encoding="utf-8")
    assert run(monkeypatch, "--check") == 0


def test_scores_of_a_model_that_was_replaced_meanwhile_are_not_kept(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure = quality.measure

    def and_replace(*args: Any) -> Any:
        path = copied / "weights" / "fidelity-x4.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        return measure(*args)

    monkeypatch.setattr(quality, "measure", and_replace)
    with pytest.raises(SystemExit, match="replaced while it was measured"):
        run(monkeypatch, "--write", "--metrics")
    assert list(registry.entries()[0].scores) == ["Set5"]


def test_without_keeping_lanczos_is_told_too(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--model", "fidelity", "--metrics", "--sets", "examples-jpeg30") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["model"] for line in lines] == ["bicubic", "lanczos", "fidelity-x4"]
    assert "niqe" not in lines[0]
    assert "examples-jpeg30" not in registry.entries()[0].scores


@pytest.mark.slow
def test_of_a_model_that_can_be_blended_the_blends_are_kept_too(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = Path(__file__).parent.parent.parent / "docs" / "runs"
    for run_name, family in (("compact", "fidelity"), ("sharp", "srgan")):  # the second began with the first
        card = Card(f"{family}-x4", family, "Test", "MIT")
        bundle.bundle(runs / f"{run_name}.safetensors", card, None, weights=copied / "weights")
    monkeypatch.setattr(bundled_scores, "DETAIL_SET", "examples")
    monkeypatch.setattr(bundled_scores, "DETAILS", (0.0, 0.2))
    assert run(monkeypatch, "--write", "--metrics") == 0
    methods = [json.loads(line)["model"] for line in capsys.readouterr().out.splitlines()]
    blends = ["srgan-x4@0", "srgan-x4@0.2", f"srgan-x4@{DEFAULT_DETAIL:g}"]
    assert methods == ["bicubic", "fidelity-x4", *blends, "srgan-x4"]
    scores = registry.find("srgan-x4").scores
    assert scores["examples@0"] == registry.find("fidelity-x4").scores["examples"]
    order = ["examples@0", "examples@0.2", f"examples@{DEFAULT_DETAIL:g}", "examples"]
    psnr_y_db = [scores[name]["psnr_y_db"] for name in order]
    assert psnr_y_db == sorted(psnr_y_db, reverse=True)
    text = model_pages.OVERVIEW.read_text(encoding="utf-8")
    for row in (
        f"| examples | `srgan-x4` (that is, `@{DEFAULT_DETAIL:g}`) | {psnr_y_db[2]:.2f} |",
        f"| examples | `srgan-x4@1` | {psnr_y_db[3]:.2f} |",
        f"| 0 | {psnr_y_db[0]:.2f} |",
        f"| 0.2 | {psnr_y_db[1]:.2f} |",
        f"| 1 | {psnr_y_db[3]:.2f} |",
    ):
        assert row in text
    assert run(monkeypatch, "--check", "--metrics") == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--sets", "Set5"), "--data DIR says where it is"),
        (("--write", "--precision", "bf16"), "those in fp32"),
        (("--write", "--model", "docs/runs/compact.safetensors"), "did not come with srgan"),
        (("--data", "no/such", "--sets", "Set5"), "does not exist"),
    ],
)
def test_mistakes_are_sentences(
    copied: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit, match=told):
        run(monkeypatch, *words)


def test_originals_of_x2_may_lie_beside_those_of_x4(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for folder, sides in (("BSD100/x2/low", (16, 24)), ("BSD100/x4/high", (32, 48))):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(random.integers(0, 256, (*sides, 3), np.uint8)).save(tmp_path / folder / "1.png")
    sizes: list[tuple[int, ...]] = []

    def doubled(low: Pixels) -> Pixels:
        sizes.append(low.shape)
        return low.repeat(2, 0).repeat(2, 1)

    found = quality.measure("BSD100", 2, {"doubled": doubled}, (), tmp_path)
    assert sizes == [(16, 24, 3)]
    assert [one.name for one in found["doubled"].pictures] == ["1.png"]


def test_which_models_are_told_about_compressed_pictures() -> None:
    assert bundled_scores.split_name("Set14-jpeg30") == ("Set14", 30)
    assert bundled_scores.split_name("Set14") == ("Set14", None)
    assert bundled_scores.concerns("fidelity-x4", "BSD100")
    assert not bundled_scores.concerns("fidelity-x4", "BSD100-jpeg30")
    assert all(
        bundled_scores.concerns(f"photo-x{scale}", f"{name}-jpeg30")
        for scale in (2, 4)
        for name in bundled_scores.JPEG_SETS
    )
    assert bundled_scores.score_name("fidelity-x4", "Set5") == ("fidelity-x4", "Set5")
    assert bundled_scores.score_name("bicubic", "Set5") == ("bicubic", "Set5")


def test_differences_are_named_above_the_tolerance_only() -> None:
    kept = {"Set5": {"psnr_y_db": 31.0, "ssim_y": 0.885, "niqe": 5.0}}
    near = {"Set5": {"psnr_y_db": 31.01, "ssim_y": 0.883}}
    assert quality.differences("m", kept, near) == []
    far = {"Set5": {"psnr_y_db": 31.011, "ssim_y": 0.8825, "niqe": float("nan"), "consistency_db": 50.0}}
    lines = quality.differences("m", kept, far)
    assert [line.split()[2] for line in lines] == ["psnr_y_db", "ssim_y", "niqe", "consistency_db"]
    assert lines[0] == "m, Set5: psnr_y_db is 31.011, and 31.0 is kept"
    assert quality.differences("m", {}, {"Set5": {"niqe": 5.0}}) == ["m, Set5: niqe is 5.0, and none is kept"]


def test_scores_are_merged_and_rounded_in_one_order() -> None:
    assert bundled_scores.kept({"psnr_rgb_db": 1.0, "ssim_y": 0.88514, "psnr_y_db": 31.5371}) == {
        "psnr_y_db": 31.537,
        "ssim_y": 0.8851,
    }
    merged = bundled_scores.merged(
        {"x": {"niqe": 1.0}, "Set14": {"niqe": 1.0}}, {"Set5": {}, "Set14": {"psnr_y_db": 2.0}}
    )
    assert list(merged) == ["Set5", "Set14", "x"]
    assert list(merged["Set14"]) == ["psnr_y_db", "niqe"]


def test_pictures_are_compressed_as_told() -> None:
    picture = read_rgb(quality.EXAMPLES[0])
    worse, better = (psnr(quality.compressed(picture, quality_), picture) for quality_ in (30, 90))
    assert 25 < worse < better - 3
    grey = quality.compressed(picture[..., :1], 50)
    assert grey.shape == (*picture.shape[:2], 1)


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-6), (True, 0.01)])
def test_vgg_sees_the_same_and_each_original_once(half: bool, tolerance: float) -> None:
    eye = load_features("random", ("conv1_2",), "before")
    seen: list[torch.Tensor] = []
    eye.register_forward_hook(lambda _module, inputs, _found: seen.append(inputs[0]))
    metric = quality.vgg_metric(eye, half=half)
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3)]
    found = [metric.measure(picture, pictures[2]) for picture in pictures[:2]]
    assert len(seen) == 3
    expected = [vgg_distance_of_pixels(eye, picture, pictures[2]) for picture in pictures[:2]]
    assert found == pytest.approx(expected, abs=tolerance)
    assert metric.key == "vgg19_conv1_2"
    assert eye.minimum_size_px == 1
