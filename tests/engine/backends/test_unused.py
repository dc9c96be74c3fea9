"""An available GPU that is not used is reported; Apple's, Intel's and other GPUs: half precision, tiles ahead."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends import pytorch
from srgan_cli.engine.backends.ncnn import Ncnn
from srgan_cli.engine.backends.openvino import OpenVino
from srgan_cli.engine.backends.protocol import Backend
from srgan_cli.networks.ncnn_process import VulkanDevice
from tests.faults import save_tiny
from tests.upscaling.pictures import picture


def test_an_nvidia_gpu_beside_a_torch_without_cuda(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(pytorch, "_has_nvidia_driver", lambda: True)
    assert any("built for the CPU only" in sentence for sentence in pytorch.absences())
    model = save_tiny(tmp_path / "tiny.safetensors", 4, features=4)
    low = picture(tmp_path / "a.png")
    assert main(["upscale", str(low), "-m", str(model), "--precision", "fp32"]) == 0
    assert "note: there is an NVIDIA GPU here" in capsys.readouterr().err
    assert main(["upscale", str(low), "-m", str(model), "--overwrite", "--device", "cpu"]) == 0
    assert "NVIDIA" not in capsys.readouterr().err  # it was asked for
    monkeypatch.setattr(pytorch, "_has_nvidia_driver", lambda: False)
    assert pytorch.unused_gpu() is None


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_half_precision_where_the_model_bears_it(device: str) -> None:
    dtype, why = pytorch._choose_dtype(EngineOptions(), torch.device(device), True, True)
    assert dtype == torch.float16
    assert "checked" in why
    assert pytorch._choose_dtype(EngineOptions(), torch.device(device), False, True)[0] == torch.float32


def on(device: str) -> Backend:
    if device.startswith("vulkan"):
        return Ncnn(VulkanDevice(0, "", device.partition(" ")[2], 1 << 30))
    return pytorch.PyTorch(torch.device(device), torch.float32, (), False)


@pytest.mark.parametrize(
    ("backend", "ahead"),
    [
        (on("cpu"), False), (Ncnn(None), False), (on("vulkan cpu"), False), (OpenVino("CPU"), False),
        (on("mps"), True), (on("xpu"), True), (on("vulkan discrete"), True), (on("vulkan integrated"), True),
        (OpenVino("GPU.1"), True), (OpenVino("NPU"), True),
    ],
)  # fmt: skip
def test_a_tile_runs_ahead_only_beside_the_processor(backend: Backend, ahead: bool) -> None:
    """On the processor itself, both would take turns."""
    assert backend.leaves_host_free == ahead
