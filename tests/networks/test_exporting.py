"""Exported files were compared with srgan's own result, and describe themselves."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import pytest
import safetensors
import torch

from srgan_cli.config import ExportFormat, ExportOptions
from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.networks import exporting
from srgan_cli.networks.exporting import export
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import Model, load_model, save_weights
from tests.faults import tiny_generator, tiny_model


def saved(folder: Path, architecture: str = "srvgg") -> Model:
    path = folder / "model.safetensors"
    save_weights(path, tiny_generator(architecture, 2), Card("mine", "mine", licence="CC0", description="A test."))
    return load_model(path)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["a.onnx", "a.param", "a.pth", "a.safetensors"])
def test_every_format_is_checked_and_written(tmp_path: Path, name: str, half: bool) -> None:
    done = export(saved(tmp_path), ExportOptions(tmp_path / name, half=half))
    assert all(path.stat().st_size > 0 for path in done.files)
    assert len(done.files) == (2 if name == "a.param" else 1)
    assert done.difference is not None
    assert done.difference < (1e-2 if half else 1e-5)


def test_srvgg_comes_back_as_it_was(tmp_path: Path) -> None:
    model = saved(tmp_path)
    export(model, ExportOptions(tmp_path / "a.safetensors"))
    back = load_model(tmp_path / "a.safetensors")
    low = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        assert torch.equal(back.network(low), model.network(low))
    assert back.entry is not None
    assert (back.entry.licence, back.architecture) == ("CC0", "srvgg")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("architecture", ["compact", "srresnet"])
def test_what_no_other_program_knows_is_a_sentence(tmp_path: Path, architecture: str, suffix: str) -> None:
    with pytest.raises(WeightsError, match=rf"a {architecture} network, .* use --format onnx or ncnn"):
        export(tiny_model(architecture), ExportOptions(tmp_path / f"a{suffix}"))
    assert list(tmp_path.iterdir()) == []


def test_facts_are_in_the_metadata(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = saved(tmp_path, "compact")
    export(model, ExportOptions(tmp_path / "a.onnx"))
    facts = {p.key: p.value for p in onnx.load(tmp_path / "a.onnx").metadata_props}
    assert (facts["name"], facts["scale"], facts["halo_px"]) == ("mine", "2", str(model.halo_px))
    assert (facts["licence"], facts["description"], facts["source_sha256"]) == ("CC0", "A test.", model.sha256)


@pytest.mark.parametrize("format_", ["onnx", "ncnn", "pth"])
def test_another_result_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: ExportFormat) -> None:
    model, other = saved(tmp_path), tiny_model("srvgg", 2, seed=5)
    contents = exporting._WRITERS[format_](other, half=False)
    monkeypatch.setitem(exporting._WRITERS, format_, lambda *_args, **_kwargs: contents)
    target = ExportOptions(tmp_path / "a", format_)
    with pytest.raises(WeightsError, match=r"mine was not exported: .* differs from srgan.s by"):
        export(model, target)
    assert not any(path.exists() for path in target.files)


@pytest.mark.parametrize(("format_", "module"), [("ncnn", "ncnn"), ("onnx", "onnxruntime"), ("pth", "spandrel")])
def test_without_the_other_program_nothing_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: ExportFormat, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    done = export(saved(tmp_path), ExportOptions(tmp_path / "a", format_))
    assert done.difference is None
    assert done.files[0].exists()


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    options = ExportOptions(tmp_path / "a.param")
    (tmp_path / "a.bin").write_text("mine")
    with pytest.raises(SettingsError, match=r"a\.bin exists already; give --overwrite"):
        export(tiny_model(), options)
    assert (tmp_path / "a.bin").read_text() == "mine"
    export(tiny_model(), dataclasses.replace(options, overwrite=True))
    assert (tmp_path / "a.bin").stat().st_size > 1000


@pytest.mark.parametrize("has_earlier", [False, True])
@pytest.mark.parametrize("blocked", [".param", ".bin"])
def test_of_two_files_both_are_written_or_none(tmp_path: Path, blocked: str, has_earlier: bool) -> None:
    (tmp_path / f"a{blocked}").mkdir()
    other = tmp_path / ("a.bin" if blocked == ".param" else "a.param")
    if has_earlier:
        other.write_text("mine")
    with pytest.raises(WeightsError, match=rf"a\{blocked} cannot be written: "):
        export(tiny_model(), ExportOptions(tmp_path / "a.param", overwrite=True))
    assert other.exists() == has_earlier
    assert not has_earlier or other.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1 + has_earlier


def test_a_folder_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be written: its folder does not exist"):
        export(tiny_model(), ExportOptions(tmp_path / "no" / "a.onnx"))
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(WeightsError, match="no permission"):
            export(tiny_model(), ExportOptions(tmp_path / "a.onnx"))


def test_options_fit_together(tmp_path: Path) -> None:
    assert ExportOptions(Path("a/b.PARAM")).files == (Path("a/b.PARAM"), Path("a/b.bin"))
    assert ExportOptions(Path("x4-v1.2"), "onnx").files == (Path("x4-v1.2.onnx"),)
    with pytest.raises(SettingsError, match=r"must end in \.onnx, .* or \.safetensors; otherwise give format"):
        ExportOptions(Path("model.bin"))
    with pytest.raises(SettingsError, match="does not fit format ncnn"):
        ExportOptions(Path("model.onnx"), "ncnn")


def test_a_plain_reader_opens_the_safetensors(tmp_path: Path) -> None:
    export(saved(tmp_path), ExportOptions(tmp_path / "a.safetensors", half=True))
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.get_tensor("body.0.weight").dtype == torch.float16
        assert file.get_tensor("body.0.bias").dtype == torch.float32
        assert file.metadata()["licence"] == "CC0"
