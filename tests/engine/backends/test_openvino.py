"""OpenVINO agrees with PyTorch, in fp32 and in half precision, and reports what it does not support."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from srgan_cli.config import EngineOptions
from srgan_cli.engine import bands
from srgan_cli.engine.backends import choice, openvino, pytorch
from srgan_cli.engine.backends.openvino import OpenVino
from srgan_cli.engine.chain import Chain
from srgan_cli.engine.rows import ArrayRows
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError, SettingsError
from srgan_cli.networks.graph import nodes_of
from srgan_cli.networks.weights import Model
from tests.faults import Nearest, model_of, tiny_model

pytest.importorskip("openvino")

CPU = torch.device("cpu")
FP32 = EngineOptions(device="openvino", precision="fp32")
MODELS = {
    "compact": tiny_model(),
    "compact x2": tiny_model(scale=2, blocks=2),
    "srvgg": tiny_model("srvgg"),
    "srresnet": tiny_model("srresnet"),
}


def low(height: int = 21, width: int = 34) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_it_agrees_with_pytorch(name: str) -> None:
    model = MODELS[name]
    ours = Chain([model], choice.choose(FP32, [model])).subpixels(low())
    theirs = Chain([model], pytorch.PyTorch(CPU)).subpixels(low())
    assert float((ours - theirs).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ["compact", "srvgg"])
def test_half_precision_is_near_and_adds_in_fp32(name: str) -> None:
    model = MODELS[name]
    ours = Chain([model], OpenVino("CPU", "bf16"))
    difference = ours.canary(pytorch.PyTorch(CPU))
    assert difference.is_small
    assert ours.subpixels(low()).dtype == torch.float32


def test_tiles_join() -> None:
    model = MODELS["compact"]
    picture = np.random.default_rng(1).integers(0, 255, (70, 83, 3), np.uint8)
    whole = Upscaler(model, EngineOptions("cpu", "fp32")).upscale(picture)
    tiled = Upscaler(model, EngineOptions("openvino", "fp32", tile_px=24)).upscale(picture)
    assert int(np.abs(whole.astype(int) - tiled).max()) <= 1


def test_an_ensemble_is_followed_from_copy_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every backend that does not say how far it is within a network."""
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    picture = np.random.default_rng(1).integers(0, 255, (20, 24, 3), np.uint8)
    high, reports = np.zeros((160, 192, 3), np.uint8), list[int]()
    chain = Upscaler([tiny_model(scale=2), MODELS["compact"]], EngineOptions("openvino", "fp32"))
    chain.upscale_rows(ArrayRows(picture), high, on_part=reports.append)
    assert reports == [20 * 24 // 5, 20 * 24, 20 * 24], "the second network has four times as many px"
    reports.clear()
    averaged = Upscaler(MODELS["compact"], EngineOptions("openvino", "fp32", ensemble=True))
    averaged.upscale_rows(ArrayRows(picture), high[:80, :96], on_part=reports.append)
    assert reports == [*(20 * 24 * number // 8 for number in range(1, 9)), 20 * 24]


def test_it_is_listed_and_only_when_asked_for() -> None:
    device = next(device for device in choice.devices() if device.name == "openvino")
    assert device.only_when_asked
    assert choice.choose(EngineOptions("auto"), [MODELS["compact"]]).name != "openvino"
    chosen = choice.choose(FP32, [MODELS["compact"]])
    assert chosen.name == "openvino"
    assert "asked for" in chosen.reasons[0]


def test_a_network_of_others_stays_with_pytorch() -> None:
    notes: list[str] = []
    model: Model = model_of(Nearest(2))
    assert choice.choose(FP32, [model], notes.append).name != "openvino"
    assert "OpenVINO does not run" in notes[0]


@pytest.mark.parametrize("name", ["openvino:npu", "openvino:gpu7"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(DeviceError, match="OpenVINO finds only openvino"):
        choice.choose(EngineOptions(device=name), [MODELS["compact"]])


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    with pytest.raises(DeviceError, match=r"needs OpenVINO; .*pip install"):
        choice.choose(FP32, [MODELS["compact"]])
    assert openvino.devices() == ()
    assert "openvino" in openvino.absences()[0]


@pytest.mark.parametrize("device", ["openvino:tpu", "openvino2", "openvino:"])
def test_names_that_mean_nothing(device: str) -> None:
    with pytest.raises(SettingsError, match="device must be"):
        EngineOptions(device=device)


def test_memory_is_counted_by_the_widest_layers() -> None:
    model = tiny_model("srvgg")
    features = nodes_of(model.network)[0].operation.weight.shape[0]  # type: ignore[union-attr]
    assert openvino.values_per_px(nodes_of(model.network)) >= 2 * features
