"""Which backend runs given networks, and which devices are available."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends import ncnn, onnx, openvino, pytorch
from srgan_cli.engine.backends.protocol import Backend, Device
from srgan_cli.errors import DeviceError
from srgan_cli.networks.ncnn_files import NcnnGenerator
from srgan_cli.networks.ncnn_process import VulkanDevice
from srgan_cli.networks.onnx_files import OnnxGenerator
from srgan_cli.networks.weights import Model


def choose(
    options: EngineOptions, models: Sequence[Model], note: Callable[[str], None] = lambda _sentence: None
) -> Backend:
    """Resolve `auto` device and precision for networks that run in sequence.

    `auto` is CUDA, then Apple's GPU, then a hardware GPU through Vulkan, then the CPU. `note` receives sentences for
    the user about the choice. Raises `DeviceError` if the requested device does not exist.
    """
    if any(isinstance(model.network, NcnnGenerator) for model in models):
        return _for_ncnn_files(options, models, note)
    if any(isinstance(model.network, OnnxGenerator) for model in models):
        return onnx.choose(options, _names(models))
    half_ok, bf16_ok = all(m.supports_half for m in models), all(m.supports_bf16 for m in models)
    if options.device.startswith("vulkan"):
        obstacle = ncnn.why_not(models)
        if obstacle is None:
            return ncnn.on_vulkan(options, note, half_ok=half_ok)
        note(f"{obstacle}: --device auto instead of {options.device}")
        options = replace(options, device="auto")
        return pytorch.choose(options, half_ok=half_ok, bf16_ok=bf16_ok)
    if options.device.startswith("openvino"):
        obstacle = openvino.why_not(models)
        if obstacle is None:
            return openvino.choose(options, half_ok=half_ok, bf16_ok=bf16_ok)
        note(f"{obstacle}: --device auto instead of {options.device}")
        options = replace(options, device="auto")
    best = pytorch.choose(options, half_ok=half_ok, bf16_ok=bf16_ok)
    if options.device != "auto" or best.device.type != "cpu" or ncnn.why_not(models) is not None:
        return best
    if any(model.network.has_noise for model in models):  # which ncnn does not need
        return best
    gpu, why_none = _real_gpu()
    if gpu is not None:
        return ncnn.chosen(gpu, options, half_ok=half_ok)
    return replace(best, reasons=(best.reasons[0] + why_none, *best.reasons[1:]))


def _real_gpu() -> tuple[VulkanDevice | None, str]:
    """The hardware GPU that Vulkan finds. A failing driver only means that the CPU is used."""
    try:
        return ncnn.first_real(), ""
    except DeviceError as err:
        return None, f" ({err})"


def _for_ncnn_files(options: EngineOptions, models: Sequence[Model], note: Callable[[str], None]) -> Backend:
    names = _names(models)
    if options.device.startswith("vulkan"):
        return ncnn.on_vulkan(options, note)
    if options.device not in ("auto", "cpu"):
        raise DeviceError(f"{names} is a network for ncnn, which runs on vulkan or cpu, not on {options.device}")
    gpu = _real_gpu()[0] if options.device == "auto" else None
    return ncnn.on_cpu(options, names) if gpu is None else ncnn.chosen(gpu, options)


def _names(models: Sequence[Model]) -> str:
    return " and ".join(dict.fromkeys(model.name for model in models))


def devices() -> tuple[Device, ...]:
    """All devices of this machine, in the order of `auto`'s preference."""
    *gpus, cpu = pytorch.devices()
    try:
        vulkan = ncnn.devices()
    except DeviceError:  # `absences` reports it
        vulkan = ()
    return (*gpus, *vulkan, cpu, *openvino.devices())


def absences() -> tuple[str, ...]:
    """Why there are no other devices, one sentence for each kind."""
    return (*pytorch.absences(), *ncnn.absences(), *openvino.absences())
