"""ncnn computes the same as PyTorch from srgan's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from srgan_cli.errors import WeightsError
from srgan_cli.networks.graph import OUTPUT, RESIDUAL, SUBPIXELS
from srgan_cli.networks.ncnn_format import NcnnModel, ncnn_model
from srgan_cli.networks.weights import load_model
from tests.faults import Nearest, tiny_model

ncnn = pytest.importorskip("ncnn")


def computed(files: NcnnModel, low: Tensor, folder: Path, blob: str = OUTPUT) -> Tensor:
    """(3, H, W) -> ncnn's result, in fp32 on the CPU."""
    (folder / "x.param").write_text(files.param, encoding="ascii")
    (folder / "x.bin").write_bytes(files.weights)
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.num_threads = 1  # two wait for each other by spinning
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    assert net.load_param(str(folder / "x.param")) == 0
    assert net.load_model(str(folder / "x.bin")) == 0
    pixels = np.ascontiguousarray(low.numpy())  # ncnn reads it where it lies
    picture = ncnn.Mat(pixels)
    extractor = net.create_extractor()
    assert extractor.input("data", picture) == 0
    failed, result = extractor.extract(blob)
    assert failed == 0
    return torch.from_numpy(np.array(result))


@pytest.mark.parametrize(("height", "width"), [(19, 14), (1, 1)])
@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("architecture", "config"), [("compact", {}), ("srvgg", {}), ("srresnet", {"batch_norm": True}), ("srresnet", {})]
)
def test_ncnn_computes_the_same(
    tmp_path: Path, architecture: str, config: dict[str, bool], scale: int, height: int, width: int
) -> None:
    model = tiny_model(architecture, scale, features=6, **config)
    low = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
    files = ncnn_model(model.network)
    with torch.no_grad():
        expected, subpixels = model.network(low), model.subpixels(low)
    torch.testing.assert_close(computed(files, low[0], tmp_path)[None], expected.clamp(0, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(computed(files, low[0], tmp_path, SUBPIXELS)[None], subpixels, atol=1e-5, rtol=0)


def test_the_residual_is_what_the_network_adds(tmp_path: Path) -> None:
    model = tiny_model("srvgg", 2)
    low = torch.rand(3, 9, 8, generator=torch.Generator().manual_seed(1))
    residual = computed(ncnn_model(model.network), low, tmp_path, RESIDUAL)
    with torch.no_grad():
        plain = low.repeat_interleave(4, dim=0)
        torch.testing.assert_close(residual + plain, model.subpixels(low[None])[0], atol=1e-5, rtol=0)


def test_fp16_kernels_halve_the_file_and_change_little(tmp_path: Path) -> None:
    model = load_model("fast-x4")
    low = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    whole, half = ncnn_model(model.network), ncnn_model(model.network, half=True)
    assert len(half.weights) < 0.52 * len(whole.weights)
    with torch.no_grad():
        expected = model.network(low)
    # The bundled kernels are fp16 values already.
    torch.testing.assert_close(computed(half, low[0], tmp_path)[None], expected.clamp(0, 1), atol=1e-5, rtol=0)


def test_a_blob_is_read_once() -> None:
    lines = [line.split() for line in ncnn_model(tiny_model("compact", 2).network).param.splitlines()[2:]]
    read = [name for line in lines for name in line[4 : 4 + int(line[2])]]
    made = [name for line in lines for name in line[4 + int(line[2]) :][: int(line[3])]]
    assert len(read) == len(set(read))
    assert len(made) == len(set(made))
    assert set(made) - set(read) == {"output"}


@pytest.mark.parametrize("architecture", ["compact", "srvgg", "srresnet"])
def test_only_layers_that_older_programs_have(architecture: str) -> None:
    """Upscayl and realesrgan-ncnn-vulkan were built with few of ncnn's layers: a Clip ends them."""
    lines = ncnn_model(tiny_model(architecture, 2).network).param.splitlines()[2:]
    known = {"Input", "Split", "Convolution", "PReLU", "ReLU", "BinaryOp", "PixelShuffle", "Padding"}
    assert {line.split()[0] for line in lines} <= known


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(WeightsError, match="a nearest network cannot be written"):
        ncnn_model(Nearest())
