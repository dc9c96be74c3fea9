"""PyTorch: the CPU, CUDA (and ROCm, which uses the same name), Apple's GPUs and Intel's (xpu)."""

from __future__ import annotations

import contextlib
import copy
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends import fused
from srgan_cli.engine.backends.memory import HEAP_GROWTH, free_host_bytes, host_tile_bytes, keep_large_blocks
from srgan_cli.engine.backends.protocol import (
    ACCELERATOR_BATCH,
    MAX_WINDOW_PX,
    MEMORY_FRACTION,
    Device,
    Prepared,
    RunPrecision,
    because,
)
from srgan_cli.errors import DeviceError
from srgan_cli.networks.layers import Generator, without_tf32
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.weights import Model
from srgan_cli.wording import counted

# Memory of a convolution that the CPU has no instructions for, beside one that it has: measured 2.3 to 5.4.
_EMULATION_GROWTH = 5.5
_EMULATED = ", though this CPU has no instructions for it: fp32 is many times faster"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_PRECISIONS: dict[torch.dtype, RunPrecision] = {
    torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
}  # fmt: skip


@dataclass(frozen=True)
class PyTorch:
    """A `Backend`."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    reasons: tuple[str, ...] = ()
    chosen_precision: bool = False

    @property
    def name(self) -> str:
        return str(self.device)

    @property
    def precision(self) -> RunPrecision:
        return _PRECISIONS[self.dtype]

    @property
    def max_window_px(self) -> int:
        return MAX_WINDOW_PX

    @property
    def windows_at_once(self) -> int:
        return 1 if self.device.type == "cpu" else ACCELERATOR_BATCH

    @property
    def leaves_host_free(self) -> bool:
        return self.device.type != "cpu"

    def exact(self, reason: str | None = None) -> PyTorch:
        return replace(self, dtype=torch.float32, reasons=because(self.reasons, reason))

    def referee(self, _models: Sequence[Model]) -> PyTorch | None:
        return None if self.dtype == torch.float32 else self.exact()

    def prepare(self, model: Model) -> Prepared:
        return _TorchNetwork(model, self.device, self.dtype)

    def inference(self) -> AbstractContextManager[None]:
        return inference(self.device)

    def budget_bytes(self) -> float:
        return host_tile_bytes() if self.device.type == "cpu" else free_memory_bytes(self.device) * MEMORY_FRACTION

    def bytes_per_px(
        self, networks: Sequence[Prepared], probe: Callable[[int], object], result: float, held: float = 0.0
    ) -> float:
        estimated = _estimated_bytes_per_px(networks, probe)
        if self.device.type == "cpu":
            if not cpu_convolves(self.dtype):
                estimated *= _EMULATION_GROWTH
            # The last features have been freed when the result exists.
            return HEAP_GROWTH * max(estimated + held, result)
        if self.device.type == "cuda":
            estimated = max(0.5 * estimated, self._measured_bytes_per_px(probe))
        return estimated + result

    def _measured_bytes_per_px(self, probe: Callable[[int], object]) -> float:
        """Memory is affine in px, so two probes give the slope. The first run of each size is not counted, since
        libraries initialise in it."""
        peaks = []
        for side in (128, 256):
            probe(side)
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            probe(side)
            peaks.append(torch.cuda.max_memory_allocated(self.device) - before)
        return (peaks[1] - peaks[0]) / (256**2 - 128**2)

    def is_out_of_memory(self, err: BaseException) -> bool:
        return is_out_of_memory(err)

    def empty_cache(self) -> None:
        empty_cache(self.device)


class _TorchNetwork:
    """A copy of one network, in channels_last, on its device."""

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype) -> None:
        def placed() -> Generator:
            return copy.deepcopy(model.network).to(device, dtype).to(memory_format=torch.channels_last)

        self.network = fused.fastest(placed(), placed)
        self.shuffle = self.network.shuffle
        # A layer's work is about its number of weights per px; enlarged pictures at the end are few layers of many.
        self._layers = [(layer, work) for layer in self.network.modules() if (work := _work(layer))]
        self.work = sum(work for _, work in self._layers)
        self.on_fraction: Callable[[float], None] | None = None

    def subpixels(self, low: Tensor) -> Tensor:
        with self._following():
            return self.network.subpixels(low)

    def drawn(self, low: Tensor, noise: Noise) -> Tensor:
        with self._following():
            return self.network.drawn(low, noise)

    @contextlib.contextmanager
    def _following(self) -> Iterator[None]:
        """Report after each layer. On a GPU a layer is only queued when it returns, so nothing is reported there."""
        report, done = self.on_fraction, 0
        if report is None or self.work == 0 or next(self.network.parameters()).device.type != "cpu":
            yield
            return

        def note(work: int, *_: object) -> None:
            nonlocal done
            done = min(done + work, self.work)  # a layer may be used several times
            report(done / self.work)

        hooks = [layer.register_forward_hook(partial(note, work)) for layer, work in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _work(module: nn.Module) -> int:
    weight = getattr(module, "weight", None)
    return weight.numel() if isinstance(weight, Tensor) and weight.ndim > 1 else 0


def _estimated_bytes_per_px(networks: Sequence[Prepared], probe: Callable[[int], object]) -> float:
    """Estimated from the layers' outputs, where the allocator has no statistics.

    In eager mode a layer's input and output and a skip connection exist at the same time: twice the largest sum of a
    layer's input and output.
    """
    side, largest = 48, 0

    def note(_module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal largest
        tensors = [t for t in (*inputs, output) if isinstance(t, Tensor)]
        largest = max(largest, sum(t.numel() * t.element_size() for t in tensors))

    layers = [layer for one in networks if isinstance(one, _TorchNetwork) for layer in one.network.modules()]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        probe(side)
    finally:
        for hook in hooks:
            hook.remove()
    return 2.0 * largest / side**2


# ------------------------------------------------------------------------------------------------------- choosing


def choose(options: EngineOptions, *, half_ok: bool = True, bf16_ok: bool = True) -> PyTorch:
    """Resolve `auto` device and precision. `half_ok`, `bf16_ok`: what the model itself supports.

    Raises `DeviceError` if the requested device does not exist.
    """
    device, why_device = choose_device(options.device)
    dtype, why_dtype = _choose_dtype(options, device, half_ok, bf16_ok)
    if device.type == "cpu":
        keep_large_blocks()
    return PyTorch(device, dtype, (why_device, why_dtype), options.precision != "auto")


def choose_device(name: str) -> tuple[torch.device, str]:
    """PyTorch's device of that name, or with `auto` the best one available; and the reason.

    Raises `DeviceError` if it does not exist.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        if cuda:
            title = torch.cuda.get_device_name(0)
            return torch.device("cuda", 0), f"device cuda:0, {title}: the fastest found"
        if mps:
            return torch.device("mps"), "device mps: Apple's GPU was found"
        if torch.xpu.is_available():
            return torch.device("xpu", 0), "device xpu:0: Intel's GPU was found"
        return torch.device("cpu"), "device cpu: no usable GPU was found"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if cuda else 0
        if (device.index or 0) >= count:
            have = f"this machine has {counted(count, 'CUDA device')}" if count else "no CUDA device was found"
            raise DeviceError(f"--device {name} was asked for, but {have}; try --device auto, or see `srgan doctor`")
        device = torch.device("cuda", device.index or 0)
    if device.type == "mps" and not mps:
        raise DeviceError("--device mps was asked for, but PyTorch finds no Apple GPU here; try --device auto")
    if device.type == "xpu":
        count = torch.xpu.device_count() if torch.xpu.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"--device {name} was asked for, but PyTorch finds {count or 'none'} of Intel's GPUs here"
            )
        device = torch.device("xpu", device.index or 0)
    return device, f"device {device}: asked for"


def devices() -> tuple[Device, ...]:
    """All devices that PyTorch can use, best first."""
    found = [
        Device(f"cuda:{i}", torch.cuda.get_device_name(i), free_memory_bytes(torch.device("cuda", i)))
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    if torch.backends.mps.is_available():
        found.append(Device("mps", "Apple's GPU", free_memory_bytes(torch.device("mps"))))
    if torch.xpu.is_available():
        names = [torch.xpu.get_device_name(i) for i in range(torch.xpu.device_count())]
        found += [Device(f"xpu:{i}", name, free_memory_bytes(torch.device("xpu", i))) for i, name in enumerate(names)]
    bf16 = "bf16 in hardware" if cpu_has_fast_bf16() else "no fast bf16"
    threads = torch.get_num_threads()
    return (*found, Device("cpu", f"{counted(threads, 'thread')}, {bf16}", free_host_bytes()))


def absences() -> tuple[str, ...]:
    """Why there are no other devices, one sentence for each kind."""
    built = torch.version.cuda or getattr(torch.version, "hip", None)
    if torch.cuda.is_available():
        return ()
    if built is None:
        return (f"cuda: {unused_gpu() or 'this PyTorch is built for the CPU only'}",)
    return ("cuda: PyTorch finds no such GPU, or no driver for it",)


def unused_gpu() -> str | None:
    """A sentence if there is an NVIDIA GPU that this PyTorch cannot use: on Windows, pip's default version cannot."""
    if torch.version.cuda or getattr(torch.version, "hip", None) or not _has_nvidia_driver():
        return None
    return (
        "there is an NVIDIA GPU here, but this PyTorch is built for the CPU only; install PyTorch's CUDA edition "
        "(docs/INSTALL.md)"
    )


def _has_nvidia_driver() -> bool:
    windows = Path(os.environ.get("SYSTEMROOT", "C:/Windows"), "System32", "nvcuda.dll")
    return Path("/proc/driver/nvidia/version").exists() or (os.name == "nt" and windows.exists())


def _choose_dtype(
    options: EngineOptions, device: torch.device, half_ok: bool, bf16_ok: bool
) -> tuple[torch.dtype, str]:
    if options.precision != "auto":
        dtype = _DTYPES[options.precision]
        if (dtype == torch.float16 and not half_ok) or (dtype == torch.bfloat16 and not bf16_ok):
            return torch.float32, f"precision fp32: this model cannot run in {options.precision}"
        slow = device.type == "cpu" and not cpu_convolves(dtype)
        return dtype, f"precision {options.precision}: asked for" + (_EMULATED if slow else "")
    if device.type == "cuda" and half_ok:
        return torch.float16, "precision fp16: tensor cores; checked against fp32 before use and tile by tile"
    if device.type in ("mps", "xpu") and half_ok:
        return torch.float16, "precision fp16: half the memory; checked against fp32 before use and tile by tile"
    if device.type == "cpu" and bf16_ok and cpu_has_fast_bf16():
        return torch.bfloat16, "precision bf16: this CPU multiplies bf16 in hardware; checked against fp32 before use"
    if device.type == "cpu":
        return torch.float32, "precision fp32: this CPU (or model) has no fast half precision"
    return torch.float32, f"precision fp32: the safe choice on {device.type}"


def cpu_convolves(dtype: torch.dtype) -> bool:
    """Whether oneDNN has convolutions of this type for the CPU.

    Without, PyTorch copies the neighbourhood of each px and multiplies number by number: for bf16 on a CPU with AVX2,
    one convolution of 64 features took 180 times as long as in fp32.
    """
    if dtype == torch.float32:
        return True
    name = "bf16" if dtype == torch.bfloat16 else "fp16"
    known = getattr(torch.ops.mkldnn, f"_is_mkldnn_{name}_supported", None)
    return bool(torch.backends.mkldnn.enabled) and (known is None or bool(known()))


def cpu_has_fast_bf16() -> bool:
    """Whether the CPU has AVX512-BF16 or AMX, with which bf16 convolutions measured 2 to 2.5 times as fast as fp32."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if torch.cpu._is_amx_tile_supported():
        return True
    flag = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if flag is not None:
        return bool(flag())
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False


@contextlib.contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """No gradients; and on CUDA, true fp32.

    By default cuDNN rounds the factors of fp32 convolutions to TF32 (ten bits of mantissa). Then the canary could not
    be trusted, and tiles would not agree to float rounding.
    """
    with torch.inference_mode(), without_tf32(device):
        yield


def free_memory_bytes(device: torch.device) -> int:
    """Bytes that can be allocated on `device` now, including what PyTorch's cache holds unused."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    if device.type == "xpu":
        return int(torch.xpu.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return free_host_bytes()


# Messages of allocators without an exception type of their own: PyTorch's on the CPU, oneDNN's, Metal's, those of cuDNN
# and cuBLAS, and CUDA's for pinned host memory.
_NO_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "MPS backend out of memory",
    "Invalid buffer size",
    "STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
)


def is_out_of_memory(err: BaseException) -> bool:
    """Whether an error means that a smaller tile may succeed."""
    if isinstance(err, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(err, RuntimeError) and any(words in str(err) for words in _NO_MEMORY)


def empty_cache(device: torch.device) -> None:
    """Return PyTorch's unused memory to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "xpu":
        torch.xpu.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
