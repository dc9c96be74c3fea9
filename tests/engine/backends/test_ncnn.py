"""Vulkan through ncnn: agrees with PyTorch if there is a driver (Mesa's software driver is enough), and its
failures."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends import choice, ncnn, pytorch
from srgan_cli.engine.chain import Chain
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError, OutOfMemoryError
from srgan_cli.networks import ncnn_process
from srgan_cli.networks.ncnn_files import NcnnNetwork
from srgan_cli.networks.ncnn_process import NcnnError, VulkanDevice, vulkan_devices
from srgan_cli.networks.outside import Array
from srgan_cli.networks.weights import Model
from tests.faults import Nearest, model_of, tiny_model

pytest.importorskip("ncnn")

CPU = torch.device("cpu")


@functools.cache
def has_vulkan() -> bool:
    try:
        return bool(vulkan_devices())
    except DeviceError:
        return False


needs_vulkan = pytest.mark.skipif(not has_vulkan(), reason="needs a Vulkan driver, such as mesa-vulkan-drivers")
VULKAN = EngineOptions(device="vulkan", precision="fp32")
GPU = VulkanDevice(0, "A Real GPU", "integrated", 2 << 30)

MODELS = {
    "compact": tiny_model(),
    "compact x2": tiny_model(scale=2, blocks=2),
    "srvgg": tiny_model("srvgg"),
    "srresnet": tiny_model("srresnet"),
}


@pytest.fixture
def no_vulkan(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch)


def see(monkeypatch: pytest.MonkeyPatch, *devices: VulkanDevice) -> None:
    monkeypatch.setattr(ncnn_process, "_ask_for_devices", lambda: devices)


def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is none: ncnn computes on the CPU in its place."""
    see(monkeypatch, GPU)
    make = NcnnNetwork.__init__

    def instead(self: NcnnNetwork, param: str, weights: bytes, **options: object) -> None:
        make(self, param, weights, **{**options, "device": None, "half": False})  # type: ignore[arg-type]

    monkeypatch.setattr(NcnnNetwork, "__init__", instead)


def picture(height: int = 30, width: int = 41, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (height, width, channels), np.uint8)


# ------------------------------------------------------------------------------------------------------ on software


@needs_vulkan
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "compact" else pytest.mark.slow) for name in MODELS]
)
def test_it_agrees_with_pytorch(name: str) -> None:
    low = torch.rand(2, 3, 21, 34, generator=torch.Generator().manual_seed(0))
    model = MODELS[name]
    device = vulkan_devices()[0]
    with torch.inference_mode():
        want = Chain([model], pytorch.PyTorch(CPU), color_lock=True).subpixels(low)
        found = Chain([model], ncnn.Ncnn(device), color_lock=True).subpixels(low)
    assert found.shape == want.shape
    assert (found - want).abs().max() < 1e-3


@needs_vulkan
def test_half_precision_leaves_the_enlargement_in_fp32() -> None:
    low = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        want = Chain([MODELS["compact"]], pytorch.PyTorch(CPU)).subpixels(low)
        half = Chain([MODELS["compact"]], ncnn.Ncnn(vulkan_devices()[0], "fp16")).subpixels(low)
    assert 0 < (half - want).abs().max() < 2 / 255


@pytest.mark.slow
@needs_vulkan
def test_tiles_join_exactly_and_chains_work_too() -> None:
    low = picture(channels=4)
    models = [MODELS["compact x2"], MODELS["compact x2"]]
    whole = Upscaler(models, EngineOptions(device="cpu", precision="fp32")).upscale(low)
    upscaler = Upscaler(models, EngineOptions(device="vulkan", precision="fp32", tile_px=13))
    assert upscaler.compute.name.startswith("vulkan:")
    difference = np.abs(upscaler.upscale(low).astype(int) - whole)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@needs_vulkan
def test_doctor_lists_it_with_its_memory() -> None:
    found = {device.name: device for device in choice.devices()}
    assert found["vulkan:0"].free_bytes
    assert found["vulkan:0"].title


# ---------------------------------------------------------------------------------------------------------- choosing


def choose(options: EngineOptions, *models: Model) -> tuple[str, str, list[str]]:
    notes: list[str] = []
    chosen = choice.choose(options, models or (MODELS["compact"],), notes.append)
    assert len(chosen.reasons) == 2
    return chosen.name, chosen.precision, notes


def test_auto_takes_a_real_gpu_and_software_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    software = VulkanDevice(0, "llvmpipe", "cpu", 1 << 30)
    see(monkeypatch, software)
    assert choose(EngineOptions())[0] == "cpu"
    what = "vulkan:0 (llvmpipe: a GPU in software), which is slower than the CPU itself; --device cpu is faster"
    name, precision, (note,) = choose(EngineOptions("vulkan"))
    assert (name, precision) == ("vulkan:0", "fp32")
    assert note.startswith(f"the only device that Vulkan finds is {what}")
    (note,) = choose(EngineOptions("vulkan:0"))[2]
    assert note.startswith(what)
    with pytest.raises(DeviceError, match=r"there is only vulkan:0 \(llvmpipe: a GPU in software\)"):
        choose(EngineOptions("vulkan:1"))
    discrete = VulkanDevice(2, "Large", "discrete", 8 << 30)
    see(monkeypatch, software, VulkanDevice(1, "Small", "integrated", 1 << 30), discrete)
    assert choose(EngineOptions())[:2] == ("vulkan:2", "fp16")
    assert choose(EngineOptions("vulkan"))[::2] == ("vulkan:2", [])
    see(monkeypatch, discrete)
    assert choose(EngineOptions("vulkan"))[0] == "vulkan:2"
    see(monkeypatch, software, VulkanDevice(1, "Small", "integrated", 1 << 30), discrete)
    assert choose(EngineOptions("vulkan:1", "fp32"))[:2] == ("vulkan:1", "fp32")
    assert choose(EngineOptions("vulkan:1", "bf16"))[:2] == ("vulkan:1", "fp32")
    names = [device.name for device in choice.devices()]
    assert [name for name in names if not name.startswith("openvino")] == ["vulkan:0", "vulkan:1", "vulkan:2", "cpu"]
    assert "used only if you name it" in str(choice.devices()[0])


def test_a_foreign_network_stays_with_pytorch_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, GPU)
    name, _, notes = choose(EngineOptions("vulkan"), model_of(Nearest()))
    assert name == "cpu"
    assert "PyTorch only" in notes[0]
    assert choose(EngineOptions(), model_of(Nearest()))[::2] == ("cpu", [])


@pytest.mark.usefixtures("no_vulkan")
def test_no_vulkan_is_a_sentence() -> None:
    with pytest.raises(DeviceError, match="no Vulkan driver"):
        choose(VULKAN)
    assert choose(EngineOptions())[0] == "cpu"
    assert any(sentence.startswith("vulkan:") for sentence in choice.absences())


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, GPU)
    with pytest.raises(DeviceError, match="only vulkan:0"):
        choose(EngineOptions("vulkan:7"))


def test_without_ncnn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn, "is_installed", lambda: False)
    with pytest.raises(DeviceError, match="pip install"):
        choose(VULKAN)
    assert choose(EngineOptions())[0] == "cpu"
    assert any("pip install" in sentence for sentence in choice.absences())


def test_a_driver_that_dies_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ncnn_process._ask_for_devices.__wrapped__
    monkeypatch.setattr(ncnn_process, "_ask_for_devices", ask)
    monkeypatch.setattr(ncnn_process, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    with pytest.raises(DeviceError, match="SIGABRT"):
        choose(VULKAN)
    assert choose(EngineOptions())[0] == "cpu"
    assert any("SIGABRT" in sentence for sentence in choice.absences())
    assert [device.name for device in choice.devices() if device.name != "openvino"] == ["cpu"]


def test_a_driver_that_hangs_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_process, "_ask_for_devices", ncnn_process._ask_for_devices.__wrapped__)
    monkeypatch.setattr(ncnn_process, "_START", "import time; time.sleep(60)")
    monkeypatch.setattr(ncnn_process, "_PROBE_SECONDS", 0.2)
    with pytest.raises(DeviceError, match="failed when it was asked"):
        choose(VULKAN)


# ---------------------------------------------------------------------------------------------------------- failures


def test_too_little_memory_halves_the_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    run, refused = NcnnNetwork.run, []

    def scarce(self: NcnnNetwork, low: Array) -> Array:
        if low.shape[1] * low.shape[2] > 60 * 60:
            refused.append(low.shape)
            raise MemoryError
        return run(self, low)

    low = picture(80, 90)
    want = Upscaler(MODELS["compact"], EngineOptions("cpu", "fp32")).upscale(low)
    upscaler = Upscaler(MODELS["compact"], VULKAN)
    monkeypatch.setattr(NcnnNetwork, "run", scarce)
    assert np.abs(upscaler.upscale(low).astype(int) - want).max() <= 1
    assert refused
    assert upscaler.statistics.out_of_memory >= 1


def test_no_memory_at_all_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)

    def refuse(self: NcnnNetwork) -> None:
        raise MemoryError

    monkeypatch.setattr(NcnnNetwork, "load", refuse)
    with pytest.raises(OutOfMemoryError, match="vulkan:0 has too little"):
        Upscaler(MODELS["compact"], VULKAN)


def test_a_driver_that_dies_at_work_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    upscaler = Upscaler(MODELS["compact"], VULKAN)

    def die(self: NcnnNetwork, low: Array) -> Array:
        raise NcnnError("its process ended by signal SIGSEGV")

    monkeypatch.setattr(NcnnNetwork, "run", die)
    with pytest.raises(DeviceError, match=r"vulkan:0 failed: .*SIGSEGV"):
        upscaler.upscale(picture())


@pytest.mark.parametrize("device", ["auto", "vulkan"])
def test_a_driver_that_computes_wrongly_is_found_out(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    on_the_cpu(monkeypatch)
    run = NcnnNetwork.run
    monkeypatch.setattr(NcnnNetwork, "run", lambda self, low: run(self, low) * 1.2)
    notes: list[str] = []
    options = EngineOptions(device, "auto")
    if device == "vulkan":
        with pytest.raises(DeviceError, match="computes incorrectly"):
            Upscaler(MODELS["compact"], options, on_note=notes.append)
    else:
        upscaler = Upscaler(MODELS["compact"], options, on_note=notes.append)
        assert upscaler.compute.name == "cpu"
        assert any("continuing with cpu" in note for note in notes)


def test_what_leaves_the_range_of_half_precision_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    on_the_cpu(monkeypatch)
    upscaler = Upscaler(MODELS["compact"], EngineOptions("vulkan", "fp16"))
    run = NcnnNetwork.run
    half = upscaler.chain._prepared[0]._network  # type: ignore[attr-defined]

    def overflow(self: NcnnNetwork, low: Array) -> Array:
        return run(self, low) * (np.inf if self is half else 1.0)

    monkeypatch.setattr(NcnnNetwork, "run", overflow)
    low = picture()
    want = Upscaler(MODELS["compact"], EngineOptions("cpu", "fp32")).upscale(low)
    assert np.abs(upscaler.upscale(low).astype(int) - want).max() <= 1
    assert upscaler.statistics.redone_in_fp32 == 1
