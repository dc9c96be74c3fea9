"""The JSON for OpenModelDB has the required fields."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from srgan_cli.config import ExportOptions
from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.files import file_sha256
from srgan_cli.networks import registry
from srgan_cli.networks.exporting import export
from srgan_cli.networks.openmodeldb import Subject, record
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import load_model, save_weights
from tests.faults import tiny_generator

MODELS = Path(__file__).parents[2] / "models"


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".param"])
def test_an_export_brings_its_record(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "mine.safetensors"
    recipe = {"steps": 12, "fidelity": {"batch": 8, "crop_px": 96}, "degradation": {"kind": "photo"}, "pictures": 5}
    card = Card("mine", "mine", "A test.", "CC-BY-4.0", recipe=recipe)
    save_weights(path, tiny_generator("srvgg", 2), card)
    options = ExportOptions(tmp_path / f"2x{suffix}", openmodeldb=tmp_path / "2x.json", author="jane-doe")
    done = export(load_model(path), options)
    assert done.files[-1] == tmp_path / "2x.json"
    told = json.loads((tmp_path / "2x.json").read_text())
    assert (told["author"], told["license"], told["architecture"]) == ("jane-doe", "CC-BY-4.0", "compact")
    assert (told["size"], told["scale"], told["inputChannels"]) == (["8nf", "1nc"], 2, 3)
    assert {"jpeg", "denoise"} <= set(told["tags"])
    assert (told["trainingIterations"], told["trainingBatchSize"], told["trainingHRSize"]) == (12, 8, 96)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", told["date"])
    platform = {".safetensors": "pytorch", ".onnx": "onnx", ".param": "ncnn"}[suffix]
    assert {resource["platform"] for resource in told["resources"]} == {platform}
    written = {(file_sha256(file), file.stat().st_size) for file in options.files}
    assert {(resource["sha256"], resource["size"]) for resource in told["resources"]} == written


def test_a_licence_that_is_no_spdx_expression_is_left_out() -> None:
    for licence, expected in (("MIT OR Apache-2.0", "MIT OR Apache-2.0"), ("ask me first", None), ("", None)):
        subject = Subject("a", Card("a", "a", licence=licence), "compact", {}, 4)
        told = record(subject, ())
        assert (told["license"], told["architecture"], told["size"]) == (expected, "srgan-compact", None)
    with pytest.raises(WeightsError, match="cannot be an author"):
        record(subject, (), author="Jane Doe")
    with pytest.raises(SettingsError, match="author goes with openmodeldb"):
        ExportOptions(Path("a.onnx"), author="jane")


@pytest.mark.parametrize("entry", registry.entries(), ids=lambda entry: entry.name)
def test_bundled_models_have_theirs(entry: registry.Entry) -> None:
    told = json.loads((MODELS / f"{entry.name}.json").read_text(encoding="utf-8"))
    assert (told["scale"], told["license"]) == (entry.scale, entry.licence)
    (resource,) = told["resources"]
    assert resource["sha256"] == entry.sha256, "run `python -m benchmarks.model_pages`"
    assert resource["size"] == entry.path.stat().st_size
