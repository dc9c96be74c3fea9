"""`--variants`: several plausible results of one picture, each with its seed, name and record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions, UpscaleOptions
from srgan_cli.errors import SettingsError
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.sizes import Size
from srgan_cli.upscaling import journal, plan
from srgan_cli.upscaling.observer import Silent
from srgan_cli.upscaling.session import prepare
from tests.faults import save_tiny
from tests.networks.test_noise import noisy
from tests.upscaling.crews import by_threads
from tests.upscaling.pictures import picture, tree
from tests.upscaling.watch import Watch

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "noisy.safetensors"
    save_weights(path, noisy(), Card("noisy", "noisy"))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "in" / "a.png", 30, 20)
    picture(tmp_path / "in" / "b.png", 20, 30, seed=1)
    return tmp_path


def session(folder: Path, model: Path, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "inputs": (folder / "in",), "output": folder / "out", "output_is_folder": True, "model": str(model),
        "engine": EngineOptions("cpu", "fp32", 16), "size": Size(scale=2), "resume": True, **options,
    }  # fmt: skip
    return prepare(UpscaleOptions(**settings))


def made(folder: Path, model: Path, **options: Any) -> dict[str, Array]:
    tally = session(folder, model, **options).run(Silent())
    assert not tally.failures
    return results(folder / options.get("output", folder / "out"))


def results(folder: Path) -> dict[str, Array]:
    return {path.name: np.asarray(Pillow.open(path)).astype(int) for path in sorted(folder.glob("*.png"))}


def test_each_has_a_name_and_a_seed(folder: Path, model: Path) -> None:
    found = made(folder, model, variants=3)
    assert list(found) == [f"{stem}-v{number}.png" for stem in "ab" for number in (1, 2, 3)]
    assert (found["a-v1.png"] != found["a-v2.png"]).mean() > 0.2
    alone = made(folder, model, output=folder / "alone", seed=1)
    np.testing.assert_array_equal(alone["a.png"], found["a-v2.png"])
    first = made(folder, model, output=folder / "first")
    np.testing.assert_array_equal(first["b.png"], found["b-v1.png"])


def test_each_has_its_own_grain_too(folder: Path, model: Path) -> None:
    found = made(folder, model, variants=2, variation=0.0, grain=0.5)
    assert (found["a-v1.png"] != found["a-v2.png"]).mean() > 0.1
    alone = made(folder, model, output=folder / "alone", variation=0.0, grain=0.5, seed=1)
    np.testing.assert_array_equal(alone["a.png"], found["a-v2.png"])


def test_their_network_is_reported_once(folder: Path, model: Path) -> None:
    watch = Watch()
    assert not session(folder, model, variants=3).run(watch).failures
    assert len(watch.details) == len(set(watch.details))
    assert any(sentence.startswith("model ") for sentence in watch.details)


def test_one_that_is_resumed_has_the_same_detail(folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    monkeypatch.setattr(plan, "CANVAS_BYTES", 0)
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)
    picture(folder / "large" / "c.png", 60, 90)
    options = {"inputs": (folder / "large",), "seed": 3}
    whole = made(folder, model, **options, output=folder / "whole")["c.png"]
    assert session(folder, model, **options).run(Watch(4)).interrupted
    assert not (folder / "out" / "c.png").exists()
    assert np.abs(made(folder, model, **options)["c.png"] - whole).max() <= 1
    other = made(folder, model, inputs=options["inputs"], seed=4, output=folder / "other")["c.png"]
    assert (other != whole).mean() > 0.2


def test_names_of_ones_own_and_of_one_file(folder: Path, model: Path) -> None:
    made(folder, model, variants=2, name_pattern="{stem}_{variant:02}{ext}")
    assert {name for name in tree(folder / "out") if name.endswith(".png")} == {
        "a_01.png", "a_02.png", "b_01.png", "b_02.png",
    }  # fmt: skip
    one = {"inputs": (folder / "in" / "a.png",), "output": folder / "big.png", "output_is_folder": False}
    assert not session(folder, model, variants=2, resume=False, **one).run(Silent()).failures
    assert {path.name for path in folder.glob("big*")} == {"big-v1.png", "big-v2.png"}
    with pytest.raises(SettingsError, match="writes one result to stdout"):
        session(folder, model, variants=2, **{**one, "output": Path("-"), "resume": False})


def test_more_of_them_later_and_other_seeds(folder: Path, model: Path) -> None:
    made(folder, model, variants=2)

    def left(**options: Any) -> list[str]:
        return [job.target.name for job in session(folder, model, **options).plan.jobs]

    assert left(variants=2) == []
    assert left(variants=3) == ["a-v3.png", "b-v3.png"]
    assert len(left(variants=2, seed=7)) == 4
    assert len(left(variants=2, variation=0.5)) == 4


def test_a_crew_makes_the_same(folder: Path, model: Path) -> None:
    alone = made(folder, model, variants=2, output=folder / "alone")
    for split_pixels in (10**9, 100):
        output = folder / f"crew{split_pixels}"
        tally, _, _ = by_threads(session(folder, model, variants=2, output=output, split_pixels=split_pixels))
        assert (tally.failures, tally.error) == ([], None)
        assert list(results(output)) == list(alone)
        for name, pixels in results(output).items():
            np.testing.assert_array_equal(pixels, alone[name])


def test_no_variation_is_the_network_without(folder: Path, model: Path, tmp_path: Path) -> None:
    off = made(folder, model, variation=0.0)
    half, whole = (made(folder, model, output=folder / str(v), variation=v) for v in (0.5, 1.0))
    assert 0 < np.abs(half["a.png"] - off["a.png"]).mean() < np.abs(whole["a.png"] - off["a.png"]).mean()


def test_models_without_noise_say_so(folder: Path, tmp_path: Path) -> None:
    plain = save_tiny(tmp_path / "plain.safetensors", 2)
    for options in ({"variants": 2}, {"variation": 0.5}):
        with pytest.raises(SettingsError, match=r"needs a model that draws its detail from noise, unlike plain:"):
            session(folder, plain, **options)
    with pytest.raises(SettingsError, match=r"put \{variant\} into"):
        UpscaleOptions(variants=2, name_pattern="{stem}{ext}")
    with pytest.raises(SettingsError, match="variation=0 makes all variants the same"):
        UpscaleOptions(variants=2, variation=0.0)
    with pytest.raises(SettingsError, match="variants must be between 1 and 100"):
        UpscaleOptions(variants=0)


def test_compare_shows_them(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, page = str(folder / "in" / "a.png"), str(folder / "page.html")
    assert main(["compare", source, "--models", str(model), "--variants", "3", "-o", page]) == 0
    html = (folder / "page.html").read_text(encoding="utf-8")
    assert all(f"noisy, seed {seed}" in html for seed in range(3))
    plain = str(save_tiny(folder / "plain.safetensors", 2))
    both = ["compare", source, "--models", f"{model},{plain}", "--overwrite", "-o", page]
    assert main([*both, "--variants", "2", "--variation", "0", "--variation", "0.5"]) == 0
    html = (folder / "page.html").read_text(encoding="utf-8")
    for label in ("noisy, variation 0", "noisy, variation 0.5, seed 0", "noisy, variation 0.5, seed 1", "plain"):
        assert f'"{label}"' in html
    assert main(["compare", source, "--models", plain, "--variants", "2", "-o", str(folder / "no.html")]) == 2
    assert "unlike plain" in capsys.readouterr().err
    assert main(["compare", source, "--variants", "2", "-o", page, "--overwrite"]) == 0
    assert "srgan-noise-x4, seed 1" in (folder / "page.html").read_text(encoding="utf-8")


def test_export_is_without_and_says_so(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    assert main(["export", str(model), "-o", str(folder / "noisy.onnx")]) == 0
    assert "without noise" in capsys.readouterr().err
