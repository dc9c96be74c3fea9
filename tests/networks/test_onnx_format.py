"""ONNX Runtime computes the same as PyTorch from srgan's files."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.onnx_format import onnx_model
from srgan_cli.networks.registry import entries
from srgan_cli.networks.weights import load_model
from tests.faults import Nearest, tiny_model

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def computed(data: bytes, low: Tensor) -> Tensor:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["output"], {"input": low.numpy()})[0])


def expected(network: Generator, low: Tensor) -> Tensor:
    with torch.no_grad():
        return network(low).clamp(0, 1)


def noise(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("architecture", "config"), [("compact", {}), ("srvgg", {}), ("srresnet", {"batch_norm": True}), ("srresnet", {})]
)
def test_onnx_runtime_computes_the_same_at_any_size(architecture: str, config: dict[str, bool], scale: int) -> None:
    network = tiny_model(architecture, scale, features=6, **config).network
    data = onnx_model(network, {})
    for shape in ((1, 3, 19, 14), (2, 3, 1, 1), (3, 3, 8, 33)):
        low = noise(*shape)
        torch.testing.assert_close(computed(data, low), expected(network, low), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [entry.name for entry in entries()])
def test_a_bundled_model_computes_the_same(name: str) -> None:
    network = load_model(name).network
    low = noise(1, 3, 21, 34)
    torch.testing.assert_close(computed(onnx_model(network, {}), low), expected(network, low), atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["compact", "srvgg", "srresnet"])
def test_half_precision_is_near_and_ends_in_fp32(architecture: str) -> None:
    network = tiny_model(architecture, 2, features=16).network
    whole, half = onnx_model(network, {}), onnx_model(network, {}, half=True)
    assert len(half) < 0.8 * len(whole)
    low = noise(1, 3, 16, 12)
    result = computed(half, low)
    assert 0 < float((result - expected(network, low)).abs().max()) < 0.01
    assert float((result - result.half().float()).abs().max()) > 0, "the last bits are those of fp32"


def test_the_file_says_what_it_is() -> None:
    model = onnx.load_from_string(onnx_model(tiny_model("compact", 4).network, {"scale": "4", "licence": "CC0"}))
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {"scale": "4", "licence": "CC0"}
    assert model.opset_import[0].version == 17
    (picture,), (result,) = model.graph.input, model.graph.output
    for value, name in ((picture, "input"), (result, "output")):
        kind = value.type.tensor_type
        assert (value.name, kind.elem_type) == (name, onnx.TensorProto.FLOAT)
        assert [d.dim_value or bool(d.dim_param) for d in kind.shape.dim] == [True, 3, True, True]


def test_results_are_clipped() -> None:
    network = tiny_model("srvgg", 2).network
    low = np.stack([np.zeros((9, 9)), np.ones((9, 9)), np.zeros((9, 9))])[None].astype(np.float32)
    result = computed(onnx_model(network, {}), torch.from_numpy(low))
    assert (float(result.min()), float(result.max())) == (0.0, 1.0)


def test_what_is_missing_or_unknown_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="a nearest network cannot be written"):
        onnx_model(Nearest(), {})
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsError, match=r"pip install '.*\[onnx\]'"):
        onnx_model(tiny_model().network, {})
