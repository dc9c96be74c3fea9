"""srgan's files: saving and loading agree, and any other file is one sentence."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import cast

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.files import file_sha256
from srgan_cli.networks import registry
from srgan_cli.networks.generators import Generator, build, fold
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import load_generator, load_model, save_weights

CARD = Card(
    name="mine",
    family="mine",
    description="A test – nothing more.",
    licence="CC0",
    adversarial=True,
    scores={"Set5": {"psnr_y_db": 20.0}},
    recipe={"steps": 12, "rates": [1e-4, 1e-5], "seed": None},
)


def small(architecture: str = "srresnet", **config: object) -> Generator:
    torch.manual_seed(3)
    generator = build(architecture, {"scale": 2, "features": 4, "blocks": 1, **config})
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(cast(torch.Tensor, module.running_mean))
            nn.init.uniform_(cast(torch.Tensor, module.running_var), 0.5, 2.0)
    return generator.eval()


@pytest.mark.parametrize(
    ("architecture", "config"), [("srresnet", {"batch_norm": True}), ("srresnet", {}), ("compact", {}), ("srvgg", {})]
)
def test_what_is_saved_is_loaded(tmp_path: Path, architecture: str, config: dict[str, object]) -> None:
    generator = small(architecture, **config)
    path = tmp_path / "model.safetensors"
    save_weights(path, generator, CARD)
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"], "no temporary file stays"
    model = load_model(tmp_path)
    low = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        expected = generator(low)
        torch.testing.assert_close(F.pixel_shuffle(model.subpixels(low), model.shuffle), expected, atol=1e-5, rtol=0)
        assert torch.equal(load_generator(path).eval()(low), expected), "for training, not a bit is different"
    assert (model.name, model.architecture, model.scale, model.adversarial) == ("mine", architecture, 2, True)
    assert model.halo_px == generator.halo_px
    assert model.sha256 == file_sha256(path)
    assert model.entry is not None
    card = {field.name: getattr(model.entry, field.name) for field in dataclasses.fields(Card)}
    assert Card(**card) == CARD
    assert model.entry.parameters == sum(p.numel() for p in generator.parameters())


@pytest.mark.parametrize("half", [False, True])
def test_other_programs_read_a_saved_srvgg(tmp_path: Path, half: bool) -> None:
    spandrel = pytest.importorskip("spandrel")
    path = tmp_path / "chain.safetensors"
    save_weights(path, small("srvgg", features=8), CARD, half=half)
    theirs = spandrel.ModelLoader().load_from_file(path)
    assert (theirs.architecture.id, theirs.scale, theirs.input_channels) == ("Compact", 2, 3)
    low = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(theirs.model(low), load_model(path).network(low), atol=1e-6, rtol=0)


def test_a_loaded_network_is_ready_to_run(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", small(batch_norm=True), CARD)
    network = load_model(tmp_path).network
    assert not network.training
    assert not any(module.training for module in network.modules())
    assert {(p.dtype, p.device.type, p.requires_grad) for p in network.parameters()} == {(torch.float32, "cpu", False)}
    assert all(p.requires_grad for p in load_generator(tmp_path / "model.safetensors").parameters())


def test_loading_rolls_no_dice(tmp_path: Path) -> None:
    save_weights(tmp_path / "model.safetensors", small(), CARD)
    state = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_halves_the_file_and_little_else(tmp_path: Path) -> None:
    generator = small("compact", features=24)
    save_weights(tmp_path / "full.safetensors", generator, CARD)
    save_weights(tmp_path / "half.safetensors", generator, CARD, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.6 * sizes[1]
    low = torch.rand(1, 3, 8, 8)
    half = load_model(tmp_path / "half.safetensors").network
    assert next(half.parameters()).dtype == torch.float32
    assert float((half(low) - generator(low)).detach().abs().max()) < 1e-3


def compact_formula(low: Tensor, t: dict[str, Tensor]) -> Tensor:
    """The compact network as a formula, on the file's own tensors: independent of our modules."""

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, t[f"{name}.weight"].float(), t[f"{name}.bias"].float(), padding=1)

    h = x = conv(low, "head")
    for i in range(16):
        inner = F.prelu(conv(x, f"body.{i}.conv1"), t[f"body.{i}.act.weight"].float())
        x = x + conv(inner, f"body.{i}.conv2")
    y = conv(h + conv(x, "fuse"), "tail")
    return F.pixel_shuffle(y, 4) + F.interpolate(low, scale_factor=4.0, mode="bilinear", align_corners=False)


def test_the_default_model_is_its_formula() -> None:
    model = load_model("fidelity")
    assert model.entry is not None
    low = torch.rand(1, 3, 13, 17)
    expected = compact_formula(low, safetensors.torch.load_file(model.path))
    torch.testing.assert_close(model.network(low), expected, atol=1e-5, rtol=0)
    assert (model.scale, model.halo_px, model.shuffle, model.size_multiple) == (4, 35, 4, 1)
    assert model.name == "fidelity-x4"


def test_a_bundled_file_must_be_the_one_of_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in registry.weights_folder().iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(registry, "weights_folder", lambda: tmp_path)
    path = tmp_path / "fidelity-x4.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="not the file that came with srgan"):
        load_model("fidelity")
    assert load_model(path).name == "fidelity-x4", "as a file of one's own it is fine"


def tampered(tensors: dict[str, Tensor], metadata: dict[str, str], **changes: str) -> bytes:
    return safetensors.torch.save(tensors, {**metadata, **changes})


def test_a_file_that_does_not_fit_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    generator = small("compact")
    save_weights(path, generator, CARD)
    tensors, good = safetensors.torch.load_file(path), path.read_bytes()
    metadata = dict(registry.read_weights_header(path).metadata)
    unlucky = {**tensors, "tail.bias": torch.full_like(tensors["tail.bias"], float("nan"))}
    cases = {
        "damaged": good[:-7],
        "truncated": good[:20],
        "is empty": b"",
        "unknown architecture 'magic'": tampered(tensors, metadata, architecture="magic"),
        "features must be": tampered(tensors, metadata, config='{"features": 1e99}'),
        r"not those of its settings \('body\.0": tampered(tensors, metadata, config='{"scale": 2, "features": 500}'),
        "no setting 'colour'": tampered(tensors, metadata, config='{"colour": 1}'),
        "metadata is not valid": tampered(tensors, metadata, config="[]"),
        r"metadata is not valid \(scores": tampered(tensors, metadata, scores='{"Set5": "good"}'),
        r"not those of its settings \(\)": tampered(tensors, metadata, scale="3"),
        r"settings \('tail\.bias'\)": tampered({k: v for k, v in tensors.items() if k != "tail.bias"}, metadata),
        r"settings \('extra'\)": tampered({**tensors, "extra": torch.zeros(1)}, metadata),
        "newer format": tampered(tensors, metadata, srgan_format="7"),
        "not finite": tampered(unlucky, metadata),
    }
    for words, data in cases.items():
        path.write_bytes(data)
        for load in (load_model, load_generator):
            with pytest.raises(WeightsError, match=words) as caught:
                load(path)
            assert caught.value.exit_code == 4
            assert "\n" not in str(caught.value)
            assert str(path) in str(caught.value)


@pytest.mark.parametrize(("statistic", "value"), [("running_mean", float("nan")), ("running_var", -1.0)])
def test_impossible_statistics_are_damage(tmp_path: Path, statistic: str, value: float) -> None:
    path = tmp_path / "model.safetensors"
    generator = small("srresnet", batch_norm=True)
    getattr(generator.fuse_norm, statistic).fill_(0.5)
    save_weights(path, generator, CARD)
    metadata = dict(registry.read_weights_header(path).metadata)
    getattr(generator.fuse_norm, statistic).fill_(value)
    path.write_bytes(tampered(generator.state_dict(), metadata))
    with pytest.raises(WeightsError, match="not finite"):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("notes.txt", b"hello", "is not a model; models are files ending in"),
        ("model", b"hello", "is not a model"),
        ("model.pth", b"", "is empty"),
        ("model.pth", b"hello", "cannot be read as weights"),
        ("model.pt", b"PK\x03\x04 and then nothing", "cannot be read as weights"),
        ("model.safetensors", b"hello", "not a safetensors file"),
    ],
)
def test_what_is_no_model_is_a_sentence(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=words):
        load_model(tmp_path / name)


def test_a_folder_without_a_model_and_a_missing_file_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="folder without"):
        load_model(tmp_path)
    with pytest.raises(WeightsError, match="there is no file"):
        load_model(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        load_generator(tmp_path / "gone.safetensors")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_weights(path, small(), CARD)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match="cannot be written: the disk is full"):
        save_weights(path, small("compact"), CARD)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(WeightsError, match="cannot be written"):
        save_weights(tmp_path / "no" / "folder.safetensors", small(), CARD)


def test_only_whole_networks_are_kept(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="folded"):
        save_weights(tmp_path / "a.safetensors", fold(small()), CARD)
    broken = small()
    with torch.no_grad():
        broken.get_parameter("head.bias")[0] = float("inf")
    with pytest.raises(WeightsError, match="not finite"):
        save_weights(tmp_path / "a.safetensors", broken, CARD)
    assert list(tmp_path.iterdir()) == []


def test_our_file_of_another_kind_cannot_be_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match="not made by srgan"):
        load_generator(path)
