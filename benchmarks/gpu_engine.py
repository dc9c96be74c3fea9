"""The parts of the GPU programme that measure the engine: against the device's own speed, and against a plain loop."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.gpu_programme import PRECISIONS, Programme
from benchmarks.plain_loop import plain_loop
from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends import ncnn
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError
from srgan_cli.networks import registry
from srgan_cli.networks.weights import Model, load_model


def picture(programme: Programme, tiny: tuple[int, int], host: tuple[int, int]) -> npt.NDArray[np.uint8]:
    height, width = tiny if programme.tiny else (1500, 2000) if programme.on_cuda else host
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def upscaler_of(programme: Programme, name: str, precision: str, tile_px: int | None = None) -> Upscaler:
    return Upscaler(load_model(name), EngineOptions(programme.device, precision, tile_px))  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- roofline


def measure_roofline(programme: Programme) -> None:
    for precision in PRECISIONS:
        work = partial(lambda p: {"tflops": round(matmul_tflops(programme, p), 3)}, precision)
        programme.find(work, case="matmul", precision=precision, side=_side(programme))
    size = (1 << 20) if programme.tiny else (1 << 28)
    programme.find(partial(_copied, programme, size), case="copy", bytes=size)


def _copied(programme: Programme, size: int) -> Mapping[str, object]:
    source = torch.empty(size, dtype=torch.uint8, device=programme.device)
    target = torch.empty_like(source)
    return {"gigabytes_per_second": round(2 * size / programme.seconds(lambda: target.copy_(source)) / 1e9, 1)}


def _side(programme: Programme) -> int:
    return 256 if programme.tiny else 8192 if programme.on_cuda else 2048


_measured: dict[tuple[str, str], float] = {}


def matmul_tflops(programme: Programme, precision: str) -> float:
    """The device's speed, the same for a whole run; fp32 without TF32, as in the engine."""
    key = programme.device, precision
    if key not in _measured:
        side = _side(programme)
        left, right = (torch.randn(side, side, device=programme.device).to(PRECISIONS[precision]) for _ in range(2))
        _measured[key] = 2 * side**3 / programme.seconds(lambda: left @ right) / 1e12
    return _measured[key]


# ------------------------------------------------------------------------------------------------------------ engine


def measure_engine(programme: Programme) -> None:
    for precision in ["fp32"] if programme.tiny else PRECISIONS:
        for name in ["fast-x4"] if programme.tiny else [entry.name for entry in registry.entries()]:
            programme.find(partial(_engine, programme, name, precision), case="engine", model=name, precision=precision)


def _engine(programme: Programme, name: str, precision: str) -> Mapping[str, object]:
    upscaler = upscaler_of(programme, name, precision)
    (model,) = upscaler.models
    low = picture(programme, (24, 32), (300, 400))
    if programme.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    engine_s = programme.seconds(lambda: upscaler.upscale(low))
    peak_bytes = torch.cuda.max_memory_allocated() if programme.on_cuda else 0
    side = 24 if programme.tiny else min(512, upscaler.tile_px)
    window = torch.rand(1, 3, side, side, device=programme.device).contiguous(memory_format=torch.channels_last)
    with upscaler.compute.inference():
        bare_s = programme.seconds(lambda: upscaler.chain.subpixels(window))
    peer_s = programme.seconds(peer(programme, model, precision, *low.shape[:2]))
    low_px = low.shape[0] * low.shape[1]
    tflops = flops_per_px(model) * low_px / engine_s / 1e12
    return {
        "precision_used": upscaler.compute.precision,
        "tile_px": upscaler.tile_px,
        "engine_mpx_per_s": round(low_px * model.scale**2 / engine_s / 1e6, 2),
        "bare_mpx_per_s": round(side**2 * model.scale**2 / bare_s / 1e6, 2),
        "peer_mpx_per_s": round(low_px * model.scale**2 / peer_s / 1e6, 2),
        "times_peer": round(peer_s / engine_s, 2),
        "tflops": round(tflops, 3),
        "roofline_fraction": round(tflops / matmul_tflops(programme, precision), 3),
        "peak_mib": round(peak_bytes / 2**20),
    }


def peer(programme: Programme, model: Model, precision: str, height: int, width: int) -> Callable[[], Tensor]:
    """`plain_loop`, from a picture on the host to integers there."""
    network = load_model(model.name).network.to(programme.device, PRECISIONS[precision])
    low = torch.rand(1, 3, height, width)

    def upscale() -> Tensor:
        high = plain_loop(network, low.to(programme.device), model.scale)
        return (high.clamp_(0, 1) * 255).round_().byte().cpu()

    return upscale


def flops_per_px(model: Model) -> float:
    """Of the convolutions, per low-resolution px, counting a multiplication and an addition as two."""
    side, total = 16, 0.0

    def count(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        assert isinstance(output, Tensor)
        total += 2.0 * module.weight[0].numel() * output.numel()

    convolutions = [module for module in model.network.modules() if isinstance(module, nn.Conv2d)]
    hooks = [convolution.register_forward_hook(count) for convolution in convolutions]
    with torch.inference_mode():
        model.subpixels(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return total / side**2


# ------------------------------------------------------------------------------------------------ tiles and compiling


def measure_tiles(programme: Programme) -> None:
    sides = (16, 24) if programme.tiny else (96, 192, 256, 384, 512, 768, 936)
    batches: Sequence[int] = (1, 2, 4, 8, 16) if programme.on_cuda and not programme.tiny else (1,)
    for name in ("fast-x4",) if programme.tiny else ("fast-x4", "fidelity-x4"):
        for at_once in batches:
            for tile_px in sides:
                work = partial(_tiled, programme, name, tile_px, at_once)
                programme.find(work, case="tile", model=name, tile_px=tile_px, windows_at_once=at_once)


def _tiled(programme: Programme, name: str, tile_px: int, at_once: int) -> Mapping[str, object]:
    low = picture(programme, (30, 40), (600, 800))
    upscaler = upscaler_of(programme, name, programme.half, tile_px)
    upscaler.windows_at_once = at_once
    seconds = programme.seconds(lambda: upscaler.upscale(low))
    return {"mpx_per_s": round(low[..., 0].size * upscaler.scale**2 / seconds / 1e6, 2)}


def measure_compile(programme: Programme) -> None:
    ways = {
        "eager": _eager,
        **({"cuda graph": _captured} if programme.on_cuda else {}),
        **({} if programme.tiny else {"torch.compile": _compiled, "max-autotune": _tuned}),
    }
    for name in ("fast-x4",) if programme.tiny else ("fast-x4", "srgan-x4"):
        for way, make in ways.items():
            programme.find(partial(_run_as, programme, name, make), case="compile", model=name, way=way)


_Network = Callable[[Tensor], Tensor]


def _run_as(
    programme: Programme, name: str, make: Callable[[_Network, Tensor], Callable[[], object]]
) -> Mapping[str, object]:
    upscaler = upscaler_of(programme, name, programme.half)
    side, count = (24, 1) if programme.tiny else (256, 8 if programme.on_cuda else 1)
    low = torch.rand(count, 3, side, side, device=programme.device).contiguous(memory_format=torch.channels_last)
    with upscaler.compute.inference():
        began = time.perf_counter()
        work = make(upscaler.chain.subpixels, low)
        work()
        set_up_s = time.perf_counter() - began
        seconds = programme.seconds(work)
    speed = round(count * side**2 * upscaler.scale**2 / seconds / 1e6, 2)
    return {"precision": upscaler.compute.precision, "set_up_s": round(set_up_s, 2), "mpx_per_s": speed}


def _eager(network: _Network, low: Tensor) -> Callable[[], object]:
    return lambda: network(low)


def _captured(network: _Network, low: Tensor) -> Callable[[], object]:
    for _ in range(3):
        network(low)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        network(low)
    return graph.replay


def _compiled(network: _Network, low: Tensor) -> Callable[[], object]:
    return functools.partial(torch.compile(network), low)


def _tuned(network: _Network, low: Tensor) -> Callable[[], object]:
    return functools.partial(torch.compile(network, mode="max-autotune-no-cudagraphs"), low)


# ------------------------------------------------------------------------------------------------------------ Vulkan


def measure_vulkan(programme: Programme) -> None:
    try:
        devices = ncnn.devices()
    except DeviceError as err:
        programme.tell(case="vulkan", failed=str(err))
        return
    if not devices:
        programme.tell(case="vulkan", skipped=ncnn.absences()[0])
    for device in devices:
        for name in ("fast-x4",) if programme.tiny else ("fast-x4", "srgan-x4"):
            for precision in ("fp32",) if programme.tiny else ("fp16", "fp32"):
                work = partial(_by_vulkan, programme, device.name, name, precision)
                programme.find(work, case="vulkan", gpu=device.title, model=name, precision=precision)


def _by_vulkan(programme: Programme, device: str, name: str, precision: str) -> Mapping[str, object]:
    upscaler = Upscaler(load_model(name), EngineOptions(device, precision))  # type: ignore[arg-type]
    side = 16 if programme.tiny else 512
    low = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    seconds = programme.seconds(lambda: upscaler.upscale(low))
    return {"tile_px": upscaler.tile_px, "mpx_per_s": round(side**2 * upscaler.scale**2 / seconds / 1e6, 2)}
