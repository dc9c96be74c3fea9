"""Invalid runs are refused quickly: without torch, without creating a folder, without a download."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_cli.networks.discriminators import build_discriminator
from srgan_cli.networks.features import VGGFeatures
from srgan_cli.networks.generators import build
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights
from srgan_cli.training import trainer
from srgan_cli.training.observer import SilentTraining
from srgan_cli.training_config import DiscriminatorSettings, PerceptualSettings
from srgan_cli.training_presets import from_mapping

# In one fresh process: each command line in turn, and whether anything has imported torch until then.
_TRIED = """
import contextlib, io, json, sys
from srgan_cli.cli import main
for line in json.load(sys.stdin):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["train", *line])
    print(json.dumps([code, " ".join(said.getvalue().split()), "torch" in sys.modules]))
"""

REFUSALS: dict[str, tuple[str, int, str]] = {
    "no folder": ("--hr-dir nope", 3, "there is no folder nope"),
    "a file": ("--hr-dir photos/a.png", 3, "photos/a.png is not a folder"),
    "no pictures": ("--hr-dir empty", 3, "there are no pictures in empty"),
    "no folder to validate on": ("--hr-dir photos --val-dir nope", 3, "there is no folder nope"),
    "no folder of low pictures": ("--hr-dir photos --lr-dir nope", 3, "there is no folder nope"),
    "low pictures of other names": ("--hr-dir photos --lr-dir others", 3, "no small picture has its name"),
    "one folder for both": ("--hr-dir photos --lr-dir photos/../photos", 2, "photos is given both for the large"),
    "too many low folders": ("--hr-dir photos --lr-dir others photos", 2, "1 folder of large pictures and 2 of small"),
    "a folder of something else": ("--hr-dir photos --out thesis", 2, "is not the folder of a run"),
    "a file in the place of the run": ("--hr-dir photos --out photos/a.png", 2, "is not a directory"),
    "a file above it": ("--hr-dir photos --out photos/a.png/run", 2, "is not a directory"),
    "a scale without crops": ("--hr-dir photos --scale 3 --crop 64", 2, "not a multiple of the scale, 3"),
    "crops too odd for the discriminator": ("--hr-dir photos --crop 60", 2, "must be a multiple of 8 px"),
    "no model to begin with": ("--hr-dir photos --init no.safetensors", 4, "there is no file no.safetensors"),
    "a model of another scale": ("--hr-dir photos --init two.safetensors", 2, "enlarges 2 times, not 4"),
    "a model by no known name": ("--hr-dir photos --init fidelty", 4, "fidelity"),
    "no teacher": ("--hr-dir photos --teacher no.pth", 4, "there is no file no.pth"),
    "a teacher of another scale": ("--hr-dir photos --teacher two.safetensors", 2, "enlarges 2 times, and its student"),
    "no pictures without originals": (
        "--hr-dir photos --teacher photo --unlabelled-dir nope",
        3,
        "there is no folder nope",
    ),
    "no VGG19": ("--hr-dir photos --vgg-weights no.pth", 4, "no.pth, cannot be read"),
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, bool]]:
    folder = tmp_path_factory.mktemp("refusals")
    for name in ("photos", "others", "empty", "thesis"):
        (folder / name).mkdir()
    for path in ("photos/a.png", "others/b.png"):
        Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(folder / path)
    (folder / "thesis" / "chapter.doc").write_text("years of work")
    network = build("compact", {"scale": 2, "features": 4, "blocks": 0})
    save_weights(folder / "two.safetensors", network, Card("two", "two", "for a test"))
    lines = [[*line.split(), *([] if "--out" in line else ["--out", "run"])] for line, _, _ in REFUSALS.values()]
    done = subprocess.run(
        [sys.executable, "-c", _TRIED], cwd=folder, input=json.dumps(lines), text=True, capture_output=True, check=True
    )
    assert not (folder / "run").exists()
    assert {path.name for path in (folder / "thesis").iterdir()} == {"chapter.doc"}
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: tuple(answer) for name, answer in zip(REFUSALS, found, strict=True)}


@pytest.mark.parametrize("name", REFUSALS)
def test_it_is_refused_without_torch(answers: dict[str, tuple[int, str, bool]], name: str) -> None:
    _, code, words = REFUSALS[name]
    assert answers[name][0] == code, answers[name][1]
    assert words in answers[name][1]
    assert not answers[name][2], "torch was imported"


def test_pictures_are_scanned_before_vgg19_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "small.png")
    monkeypatch.setattr("srgan_cli.networks.features._download", lambda: pytest.fail("it was downloaded"))
    config = from_mapping(
        {
            "data": {"high_dirs": [str(tmp_path)]},
            "generator": {"features": 4, "blocks": 0},
            "compute": {"device": "cpu"},
        }
    )
    with pytest.raises(Exception, match="no pictures are left to learn from"):
        trainer.train(config, tmp_path / "run", SilentTraining())


@pytest.mark.parametrize("kind", ["vgg", "patch", "unet"])
def test_settings_know_what_discriminators_need(kind: str) -> None:
    settings = DiscriminatorSettings(kind=kind)  # type: ignore[arg-type]
    assert build_discriminator(settings.kind, 1, 16).size_multiple == settings.size_multiple


@pytest.mark.parametrize("layer", ["conv1_1", "conv2_2", "conv3_4", "conv4_1", "conv5_4"])
def test_settings_know_what_vgg19_needs(layer: str) -> None:
    layers = {"conv1_1": 1.0, layer: 1.0}
    assert VGGFeatures(tuple(layers)).minimum_size_px == PerceptualSettings(layers=layers).min_px
