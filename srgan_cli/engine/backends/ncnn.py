"""ncnn: any GPU with Vulkan; and for networks in ncnn's own files, also the CPU.

srgan's networks are converted to ncnn's format from their weights. ncnn runs in a separate process, one window at a
time, with windows in the host's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends.hosted import HOST, Hosted, largest_values_per_px
from srgan_cli.engine.backends.memory import free_host_bytes, host_tile_bytes
from srgan_cli.engine.backends.protocol import MEMORY_FRACTION, Backend, Device, Prepared, RunPrecision, because
from srgan_cli.engine.backends.pytorch import PyTorch
from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.networks.graph import RESIDUAL, SUBPIXELS, Convolution, convolved, nodes_of
from srgan_cli.networks.ncnn_files import MISSING, NcnnGenerator, NcnnNetwork
from srgan_cli.networks.ncnn_format import ncnn_model
from srgan_cli.networks.ncnn_param import parse_param
from srgan_cli.networks.ncnn_process import VulkanDevice, is_installed, vulkan_devices
from srgan_cli.networks.outside import enlarge
from srgan_cli.networks.weights import Model

# Larger windows gain little, and Windows stops a driver whose work takes longer than two seconds.
MAX_WINDOW_PX = 384
# A layer's input and output, both again in Winograd's transform (36/16 of them), and a skip connection.
_COPIES = 3.5


@dataclass(frozen=True)
class Ncnn(Hosted):
    """A `Backend`. `vulkan` None means ncnn on the CPU."""

    vulkan: VulkanDevice | None
    precision: RunPrecision = "fp32"
    reasons: tuple[str, ...] = ()
    chosen_precision: bool = False

    @property
    def name(self) -> str:
        return "cpu" if self.vulkan is None else f"vulkan:{self.vulkan.index}"

    @property
    def max_window_px(self) -> int:
        return MAX_WINDOW_PX

    @property
    def leaves_host_free(self) -> bool:
        return self.vulkan is not None and _is_real(self.vulkan)

    def exact(self, reason: str | None = None) -> Ncnn:
        return replace(self, precision="fp32", reasons=because(self.reasons, reason))

    def referee(self, models: Sequence[Model]) -> Backend | None:
        if self.vulkan is None:
            return None
        return Ncnn(None) if any(isinstance(m.network, NcnnGenerator) for m in models) else PyTorch(HOST)

    def prepare(self, model: Model) -> Prepared:
        index = None if self.vulkan is None else self.vulkan.index
        half = self.precision == "fp16"
        if isinstance(model.network, NcnnGenerator):
            return _TheirNetwork(model.network, index, half=half)
        return _OurNetwork(model, index, half=half)

    def budget_bytes(self) -> float:
        if self.vulkan is None:
            return host_tile_bytes()
        return min(free_host_bytes(), self.vulkan.free_bytes) * MEMORY_FRACTION

    def bytes_per_px(
        self, networks: Sequence[Prepared], probe: Callable[[int], object], result: float, _held: float = 0.0
    ) -> float:
        values = largest_values_per_px(networks, (_OurNetwork, _TheirNetwork))
        return _COPIES * values * (2 if self.precision == "fp16" else 4) + result


class _OurNetwork:
    """One of srgan's networks, in ncnn's format."""

    def __init__(self, model: Model, device: int | None, *, half: bool) -> None:
        nodes = nodes_of(model.network)
        written = ncnn_model(model.network)
        self.shuffle = model.network.shuffle
        self.values_per_px = parse_param(written.param, model.name).values_per_px
        enlargements = [node.operation for node in nodes if node.exact and isinstance(node.operation, Convolution)]
        # In half precision, the enlargement to which the network's output is added is computed here, in fp32.
        apart = half and any(node.output == RESIDUAL for node in nodes)
        self._enlargement = enlargements[0] if apart else None
        blob = RESIDUAL if apart else SUBPIXELS
        self._network = NcnnNetwork(written.param, written.weights, device=device, half=half, output_blob=blob)
        self._network.load()

    def subpixels(self, low: Tensor) -> Tensor:
        each = [torch.from_numpy(self._network.run(one.contiguous().numpy())) for one in low]
        subpixels = torch.stack(each)
        return subpixels if self._enlargement is None else convolved(low, self._enlargement).add_(subpixels)


class _TheirNetwork:
    """A network in ncnn's files."""

    shuffle = 1

    def __init__(self, generator: NcnnGenerator, device: int | None, *, half: bool) -> None:
        self.values_per_px = generator.param.values_per_px
        self._needs = generator.needs
        self._network = generator.network(device=device, half=half)
        self._network.load()

    def subpixels(self, low: Tensor) -> Tensor:
        return enlarge(self._network.run, self._needs, low)


# ------------------------------------------------------------------------------------------------------- choosing


def devices() -> tuple[Device, ...]:
    """The devices that Vulkan finds; none if ncnn is not installed. Raises `DeviceError` if the driver fails."""
    return tuple(
        Device(f"vulkan:{d.index}", f"{d.title} ({d.kind} GPU)" if _is_real(d) else d.title, d.free_bytes,
               "" if _is_real(d) else "it is a software GPU, slower than the CPU itself")
        for d in (vulkan_devices() if is_installed() else ())
    )  # fmt: skip


def absences() -> tuple[str, ...]:
    """Why there are none, if there are none."""
    if not is_installed():
        return (f"vulkan: {MISSING}",)
    try:
        return () if vulkan_devices() else ("vulkan: ncnn finds no driver",)
    except DeviceError as err:
        return (f"vulkan: {err}",)


def _is_real(device: VulkanDevice) -> bool:
    return device.kind != "cpu"


def first_real() -> VulkanDevice | None:
    """The GPU that `--device auto` takes. Raises `DeviceError` when the driver fails."""
    if not is_installed():
        return None
    real = [device for device in vulkan_devices() if _is_real(device)]
    return min(real, key=lambda device: (device.kind != "discrete", device.index)) if real else None


def why_not(models: Sequence[Model]) -> str | None:
    """Why ncnn cannot run these networks; None if it can."""
    for model in models:
        if not isinstance(model.network, NcnnGenerator):
            try:
                nodes_of(model.network)
            except WeightsError:
                return f"{model.name} is a {model.architecture} network, which runs with PyTorch only"
    return None


def on_vulkan(options: EngineOptions, note: Callable[[str], None], *, half_ok: bool = True) -> Ncnn:
    """The requested device; `vulkan` is a hardware GPU, if there is one. Raises `DeviceError` if it does not exist.
    `note` is told of a GPU in software, which nobody would ask for if they knew."""
    asked = options.device
    if not is_installed():
        raise DeviceError(f"--device {asked} was asked for, but {MISSING}")
    found = {device.index: device for device in vulkan_devices()}
    if not found:
        raise DeviceError(
            f"--device {asked} was asked for, but no Vulkan driver was found; try --device auto, or `srgan doctor`"
        )
    number = asked.partition(":")[2]
    device = found.get(int(number)) if number else first_real() or found[min(found)]
    if device is None:
        have = ", ".join(map(_described, found.values()))
        raise DeviceError(f"--device {asked} was asked for, but there is only {have}")
    if not _is_real(device):
        only = "" if number else "the only device that Vulkan finds is "
        note(f"{only}{_described(device)}, which is slower than the CPU itself; --device cpu is faster")
    return _made(device, options, "asked for", half_ok)


def _described(device: VulkanDevice) -> str:
    return f"vulkan:{device.index} ({device.title}{'' if _is_real(device) else ': a GPU in software'})"


def chosen(device: VulkanDevice, options: EngineOptions, *, half_ok: bool = True) -> Ncnn:
    """The backend for the device that `--device auto` has found."""
    return _made(device, options, "a GPU that PyTorch cannot use, and Vulkan can", half_ok)


def on_cpu(options: EngineOptions, names: str) -> Ncnn:
    why = f"device cpu: ncnn runs {names} there; " + ("asked for" if options.device == "cpu" else "no GPU for Vulkan")
    return Ncnn(None, "fp32", (why, "precision fp32: ncnn on the CPU"), options.precision != "auto")


def _made(device: VulkanDevice, options: EngineOptions, why: str, half_ok: bool) -> Ncnn:
    precision, why_precision = _precision(device, options, half_ok)
    reasons = (f"device vulkan:{device.index}, {device.title}: {why}", why_precision)
    return Ncnn(device, precision, reasons, options.precision != "auto")


def _precision(device: VulkanDevice, options: EngineOptions, half_ok: bool) -> tuple[RunPrecision, str]:
    if options.precision == "bf16" or (options.precision == "fp16" and not half_ok):
        return "fp32", f"precision fp32: this model cannot run in {options.precision} on Vulkan"
    if options.precision != "auto":
        return options.precision, f"precision {options.precision}: asked for"
    if half_ok and _is_real(device):
        return "fp16", "precision fp16: half the memory traffic; checked against fp32 before use and tile by tile"
    return "fp32", "precision fp32: the safe choice here"
