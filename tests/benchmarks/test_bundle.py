"""From a run to a bundled model: nothing is lost except half of the kernels' digits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks import bundle
from benchmarks import scores as bundled_scores
from srgan_cli.errors import WeightsError
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.networks import registry
from srgan_cli.networks.generators import Compact, CompactConfig
from srgan_cli.networks.growing import with_noise
from srgan_cli.networks.registry import Card, Entry
from srgan_cli.networks.weights import save_weights

RUNS = Path(__file__).parent.parent.parent / "docs" / "runs"
CARD = Card("srgan-x4", "srgan", "Texture", "MIT")


def bundled(folder: Path, run: str = "sharp", card: Card = CARD, command: str | None = None, **more: object) -> Entry:
    bundle.bundle(RUNS / f"{run}.safetensors", card, command, weights=folder, **more)  # type: ignore[arg-type]
    entry = registry.describe_file(folder / f"{card.name}.safetensors")
    assert entry is not None
    return entry


def test_a_run_becomes_a_model_with_a_card_and_a_page(tmp_path: Path) -> None:
    entry = bundled(tmp_path, command="srgan train \\\n  --phase adversarial")
    assert (entry.name, entry.family, entry.licence, entry.adversarial) == ("srgan-x4", "srgan", "MIT", True)
    assert entry.scores == {}, "the run's own are of other pictures"
    assert (tmp_path / "manifest.toml").read_text(encoding="utf-8") == registry.manifest(tmp_path)
    page = (tmp_path / "srgan-x4.md").read_text(encoding="utf-8")
    for words in ("# srgan-x4", "Texture.", "657,776", "19 px", "4,210 steps of 8 crops of 128 px, in 30 min", "TODO"):
        assert words in page


def test_the_numbers_are_the_runs_rounded(tmp_path: Path) -> None:
    exact = safetensors.torch.load_file(RUNS / "sharp.safetensors")
    rounded = safetensors.torch.load_file(bundled(tmp_path).path)
    assert exact.keys() == rounded.keys()
    for key, tensor in exact.items():
        assert torch.equal(rounded[key], tensor.half() if tensor.dim() == 4 else tensor)


def _bias(path: Path) -> torch.Tensor:
    return next(tensor for tensor in safetensors.torch.load_file(path).values() if tensor.dim() == 1)


def test_the_mean_of_two_runs(tmp_path: Path) -> None:
    entry = bundled(tmp_path, mean_with=RUNS / "compact.safetensors")
    found = safetensors.torch.load_file(entry.path)
    one, other = (safetensors.torch.load_file(RUNS / f"{name}.safetensors") for name in ("sharp", "compact"))
    for key, tensor in found.items():
        mean = (one[key] + other[key]) / 2
        assert torch.equal(tensor, mean.half() if tensor.dim() == 4 else mean)
    assert entry.recipe["mean_with"] == "compact.safetensors"
    assert torch.equal(_bias(bundled(tmp_path, mean_with=RUNS / "compact.safetensors", run_fraction=1.0).path), _bias(
        RUNS / "sharp.safetensors"))  # fmt: skip
    smaller = tmp_path / "smaller.safetensors"
    save_weights(smaller, Compact(CompactConfig(scale=4, features=8, blocks=1)), CARD)
    with pytest.raises(WeightsError, match="same architecture and sizes"):
        bundled(tmp_path, mean_with=smaller)


def test_the_mean_with_a_run_that_has_no_noise_has_none(tmp_path: Path) -> None:
    plain = Compact(CompactConfig(scale=4, features=8, blocks=1))
    noisy = with_noise(plain)
    assert isinstance(noisy, Compact)
    torch.nn.init.ones_(noisy.get_parameter("body.0.strength"))
    save_weights(tmp_path / "plain.safetensors", plain, CARD)
    save_weights(tmp_path / "noisy.safetensors", noisy, CARD)
    bundle.bundle(
        tmp_path / "noisy.safetensors", CARD, None, weights=tmp_path, mean_with=tmp_path / "plain.safetensors"
    )
    entry = registry.describe_file(tmp_path / "srgan-x4.safetensors")
    assert entry is not None
    assert not entry.has_noise
    assert entry.recipe["without_noise"] is True
    assert "without its noise" in (tmp_path / "srgan-x4.md").read_text(encoding="utf-8")


def test_the_recipe_says_what_had_a_part_and_nothing_else(tmp_path: Path) -> None:
    recipe = bundled(tmp_path, command="srgan train \\\n  --phase adversarial").recipe
    assert recipe["command"] == "srgan train \\ --phase adversarial"
    assert (recipe["preset"], recipe["steps"], recipe["seconds"], recipe["precision"]) == ("srgan", 4210, 1800, "fp16")
    assert recipe["degradation"] == {"kind": "bicubic"}
    assert recipe["adversarial"]["grid_weight"] == 10.0  # type: ignore[index]
    assert not {"config", "fidelity", "watch", "compute"} & recipe.keys()
    fidelity = bundled(tmp_path, "compact", Card("fidelity-x4", "fidelity", "True")).recipe
    assert "fidelity" in fidelity
    assert not {"adversarial", "perceptual", "discriminator"} & fidelity.keys()


def test_what_is_no_recipe_of_ours_is_kept() -> None:
    assert bundle.recipe({"loss": "L1", "steps": 3}, None) == {"loss": "L1", "steps": 3}
    both = {"phase": "both", "fidelity_fraction": 0.5, "data": {"augment": True, "cache": None}, "fidelity": {}}
    assert bundle.recipe({"config": both}, None) == {**both, "data": {"augment": True}}


def test_a_name_says_family_and_scale(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="must be called srgan-x4, not srgan-x2"):
        bundled(tmp_path, card=Card("srgan-x2", "srgan", "", "MIT"))
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 1_000_000)
    with pytest.raises(WeightsError, match="at most 1,000,000"):
        bundled(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("cost_db", "precision"), [(0.0004, "fp16"), (0.01, "fp32")])
def test_fp16_is_taken_where_it_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cost_db: float, precision: str
) -> None:
    monkeypatch.setattr(bundle, "fp16_cost", lambda *_: cost_db)
    entry = bundled(tmp_path, data=tmp_path)
    assert (entry.recipe["precision"], entry.recipe["fp16_cost_db"]) == (precision, cost_db)
    dtypes = {dtype for dtype, _ in registry.read_weights_header(entry.path).tensors.values()}
    assert ("F16" in dtypes) == (precision == "fp16")
    assert f"{cost_db:.4f} dB" in entry.path.with_suffix(".md").read_text(encoding="utf-8")


@pytest.fixture
def small_set5(tmp_path: Path) -> Path:
    """DIR/Set5/x4 with one picture of 48 px."""
    from PIL import Image

    high = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    high = bicubic(bicubic(high, 12, 12), 48, 48)
    for name, pixels in (("high", high), ("low", bicubic(high, 12, 12))):
        folder = tmp_path / "data" / "Set5" / "x4" / name
        folder.mkdir(parents=True)
        Image.fromarray(pixels).save(folder / "a.png")
    return tmp_path / "data"


def test_what_fp16_costs_is_measured(tmp_path: Path, small_set5: Path) -> None:
    cost_db = bundled(tmp_path / "weights", data=small_set5).recipe["fp16_cost_db"]
    assert isinstance(cost_db, float)
    assert abs(cost_db) < 0.005
    other = bundle.fp16_cost(RUNS / "compact.safetensors", RUNS / "sharp.safetensors", small_set5)
    assert abs(other) > 0.005


def test_scores_go_into_a_file_and_touch_nothing_else(tmp_path: Path) -> None:
    before = bundled(tmp_path)
    tensors = safetensors.torch.load_file(before.path)
    scores = {"Set5": {"psnr_y_db": 31.5}}
    bundled_scores.set_scores(before.path, scores)
    after = registry.describe_file(before.path)
    assert after is not None
    assert (after.scores, after.recipe, after.config) == (scores, before.recipe, before.config)
    again = safetensors.torch.load_file(before.path)
    assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())
    assert int.from_bytes(before.path.read_bytes()[:8], "little") % 8 == 0
    data = before.path.read_bytes()
    bundled_scores.set_scores(before.path, scores)
    assert before.path.read_bytes() == data, "the same scores make the same file"


def test_another_card_keeps_the_scores_and_another_network_does_not(tmp_path: Path) -> None:
    scores = {"Set5": {"psnr_y_db": 31.5}}
    bundled_scores.set_scores(bundled(tmp_path).path, scores)
    again = bundled(tmp_path, command="srgan train", card=Card("srgan-x4", "srgan", "New words", "MIT"))
    assert (again.scores, again.description, again.recipe["command"]) == (scores, "New words", "srgan train")
    assert bundled(tmp_path, "compact").scores == {}


def test_a_file_of_another_program_has_no_scores(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="was not made by srgan"):
        bundled_scores.set_scores(tmp_path / "a.safetensors", {})


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> int:
        given = ("bundle", *words, "--family", "srgan", "--description", "x", "--weights", str(tmp_path))
        monkeypatch.setattr("sys.argv", list(given))
        return bundle.main()

    assert run(str(RUNS / "sharp.safetensors"), "--name", "srgan-x4") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["model"], facts["precision"], facts["adversarial"]) == ("srgan-x4", "fp16", True)
    assert facts["bytes"] == (tmp_path / "srgan-x4.safetensors").stat().st_size
    failing: list[Callable[[], int]] = [
        lambda: run(str(tmp_path / "none"), "--name", "srgan-x4"),
        lambda: run(str(RUNS / "sharp.safetensors"), "--name", "other"),
    ]
    for fails in failing:
        with pytest.raises(SystemExit, match=r"there is no file|must be called"):
            fails()
