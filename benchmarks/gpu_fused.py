"""A part of the GPU programme: the engine and one layer, with PyTorch's kernels and with `fused`'s."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu_engine import picture, upscaler_of
from benchmarks.gpu_programme import Programme
from srgan_cli.engine.backends import fused
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.networks.compact import CompactBlock

_LAYER_PX = 1000
_CALLS = 10


def measure_fused(programme: Programme) -> None:
    for name in ("fast-x4",) if programme.tiny else ("fidelity-x4", "srgan-x4", "photo-x2", "fast-x4"):
        programme.find(partial(_engines, programme, name), case="engine", model=name)
    for features in (32,) if programme.tiny else (32, 64, 128):
        programme.find(partial(_layers, programme, features), case="layer", features=features)


def _engines(programme: Programme, name: str) -> Mapping[str, object]:
    with mock.patch.object(fused, "fastest", lambda network, _copy: network):
        plain = upscaler_of(programme, name, programme.half)
    chosen = upscaler_of(programme, name, programme.half)
    low = picture(programme, (24, 32), (300, 400))
    speeds = {}
    for way, each in (("pytorch", plain), ("fused", chosen)):
        px = low[..., 0].size * each.scale**2
        speeds[f"{way}_mpx_per_s"] = round(px / programme.seconds(partial(each.upscale, low)) / 1e6)
    off = abs(plain.upscale(low).astype(int) - chosen.upscale(low).astype(int))
    return {**speeds, "is_fused": _is_fused(chosen), "differ_by_at_most": int(off.max())}


def _is_fused(upscaler: Upscaler) -> bool:
    """Whether the trial has chosen the fused kernels; otherwise both speeds are of PyTorch's."""
    networks = [getattr(one, "network", None) for one in upscaler.chain._prepared]
    return any(isinstance(layer, fused.FusedBlock) for one in networks if one is not None for layer in one.modules())


def _layers(programme: Programme, features: int) -> Mapping[str, object]:
    """A convolution with bias and PReLU, of `features` in and out."""
    side = 32 if programme.tiny else _LAYER_PX
    block = CompactBlock(features, False).to(programme.device, torch.float16 if programme.on_cuda else torch.float32)
    block.to(memory_format=torch.channels_last)
    x = torch.randn(1, features, side, side, device=programme.device, dtype=block.conv1.weight.dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    ways: dict[str, Callable[[Tensor], Tensor]] = {"pytorch": lambda low: block.act(block.conv1(low))}
    if programme.on_cuda:
        ways["fused"] = fused.FusedConv(block.conv1, block.act.weight)

    def several(layer: Callable[[Tensor], Tensor]) -> None:
        for _ in range(_CALLS):
            layer(x)

    operations = _CALLS * 2 * 9 * features**2 * side**2
    with torch.inference_mode():
        return {
            f"{way}_tflops": round(operations / programme.seconds(partial(several, layer)) / 1e12, 2)
            for way, layer in ways.items()
        }
