"""Convolutions that also do what follows them: bias, PReLU and residual sum in one pass, on NVIDIA GPUs.

PyTorch runs these as separate kernels, each of which reads and writes all features; for 64 features that takes longer
than the convolution's arithmetic. Here the sums of products stay in registers until the block's result is written. The
convolution is an implicit matrix product (Chetlur et al. 2014, arXiv:1410.0759): for each of the nine taps, a row of px
by the tap's weights. It needs Triton and a C compiler, which Triton uses. Where either is missing, or PyTorch's own
kernels are faster, those run.
"""

from __future__ import annotations

import functools
import importlib.util
import statistics
from collections.abc import Callable
from functools import partial
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from srgan_cli.networks.compact import Compact, CompactBlock
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.noise import Noise

_FEATURES = (32, 64, 128)  # numbers of features that the kernel can divide into matrix products
_MIN_CAPABILITY = (8, 0)  # copies to the multiprocessors' own memory while they compute
_BLOCKS_CAPABILITY = (9, 0)  # copies whole blocks of tensors, with one instruction
# Below this number of values (px times features), starting the kernels takes longer than running them, and PyTorch's
# start sooner.
MIN_VALUES = 12_800_000
_TRIAL_PX = 768
# Two ways of rounding to half precision differ by less, as a fraction of the result's root mean square.
_TRIAL_TOLERANCE = 0.02


# How the kernels divide their work: px of a row at a time, warps for them, and blocks that are copied ahead.
_PX, _WARPS, _STAGES = 128, 4, 3


class FusedConv(nn.Module):
    """A 3×3 convolution of `nn.Conv2d`'s weights, then PReLU if `slope` is given. Inference only, NHWC in memory."""

    def __init__(self, conv: nn.Conv2d, slope: Tensor | None = None, *, by_blocks: bool | None = None) -> None:
        """`by_blocks`: which of the two kernels; None: the one for the GPU that holds the weights."""
        super().__init__()
        self.inputs, self.outputs = conv.in_channels, conv.out_channels
        self.by_blocks = _capability(conv.weight.device) >= _BLOCKS_CAPABILITY if by_blocks is None else by_blocks
        # (O, I, 3, 3) -> (9·I, O): a matrix per tap
        self.weight = conv.weight.detach().permute(2, 3, 1, 0).reshape(9 * self.inputs, self.outputs).contiguous()
        self.bias = cast(Tensor, conv.bias).detach().float()
        self.slope = None if slope is None else slope.detach().float()

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(N, I, H, W) -> (N, O, H, W) in the weights' dtype; `residual`, of the result's shape, is added last."""
        x = x.contiguous(memory_format=torch.channels_last)
        count, _, height, width = x.shape
        out = torch.empty(
            (count, self.outputs, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last
        )
        added = out if residual is None else residual.contiguous(memory_format=torch.channels_last)
        across = -(-width // _PX)
        start = self._blocks if self.by_blocks else self._px
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]  # where Triton starts kernels
            start((count * height * across,), x, added, out, across)(
                INPUTS=self.inputs,
                OUTPUTS=self.outputs,
                PX=_PX,
                PRELU=self.slope is not None,
                RESIDUAL=residual is not None,
                num_warps=_WARPS,
                num_stages=_STAGES,
            )
        return out

    def _blocks(self, grid: tuple[int], x: Tensor, added: Tensor, out: Tensor, across: int) -> Callable[..., object]:
        from triton.tools.tensor_descriptor import TensorDescriptor

        from srgan_cli.engine.backends.fused_kernel import convolve_blocks

        def rows(of: Tensor) -> object:
            return TensorDescriptor.from_tensor(of.permute(0, 2, 3, 1), [1, 1, _PX, of.shape[1]])

        weight = TensorDescriptor.from_tensor(self.weight, [self.inputs, self.outputs])
        return partial(
            convolve_blocks[grid], rows(x), weight, *self._vectors, rows(added), rows(out), x.shape[2], across
        )

    def _px(self, grid: tuple[int], x: Tensor, added: Tensor, out: Tensor, across: int) -> Callable[..., object]:
        from srgan_cli.engine.backends.fused_kernel import convolve_px

        return partial(convolve_px[grid], x, self.weight, *self._vectors, added, out, *x.shape[2:], across)

    @property
    def _vectors(self) -> tuple[Tensor, Tensor]:
        """The biases, and the slopes or what stands in for them."""
        return self.bias, self.bias if self.slope is None else self.slope


class FusedBlock(nn.Module):
    """A block of `Compact` in two kernels, or as it was for small pictures."""

    def __init__(self, block: CompactBlock, *, by_blocks: bool | None = None) -> None:
        super().__init__()
        self.block = block
        self.first = FusedConv(block.conv1, block.act.weight, by_blocks=by_blocks)
        self.second = FusedConv(block.conv2, by_blocks=by_blocks)

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < MIN_VALUES:
            return cast(Tensor, self.block(x))
        return cast(Tensor, self.second(self.first(x), x))

    def roughened(self, x: Tensor, noise: Noise, layer: int) -> Tensor:
        return self.block.roughened(x, noise, layer)


def fuse(network: Compact, *, by_blocks: bool | None = None) -> None:
    """Replace the blocks of `network` in place. `by_blocks` as in `FusedConv`."""
    for number, block in enumerate(network.body):
        network.body[number] = FusedBlock(cast(CompactBlock, block), by_blocks=by_blocks)


def fastest(network: Generator, copy: Callable[[], Generator]) -> Generator:
    """`network`, or a copy of it with fused layers where that works here, agrees, and takes less time.

    `network` is on its device, in the precision in which it will run.
    """
    if not _is_suitable(network):
        return network
    fused = copy()
    fuse(cast(Compact, fused))
    device = network.head.weight.device
    try:
        generator = torch.Generator(device).manual_seed(0)  # PyTorch's own belongs to the caller
        low = torch.rand(1, 3, _TRIAL_PX, _TRIAL_PX, device=device, generator=generator)
        with torch.inference_mode(), torch.cuda.device_of(low):  # type: ignore[no-untyped-call]
            agree = _differ(network.subpixels(low), fused.subpixels(low)) < _TRIAL_TOLERANCE
            return fused if agree and _seconds(fused, low) < _seconds(network, low) else network
    except Exception:  # noqa: BLE001 - Triton's compiler and driver fail in many ways, and all mean the same here
        return network


def _is_suitable(network: Generator) -> TypeGuard[Compact]:
    if not isinstance(network, Compact) or network.config.features not in _FEATURES:
        return False
    weight = network.head.weight
    if weight.device.type != "cuda" or weight.dtype not in (torch.float16, torch.bfloat16):
        return False
    return _capability(weight.device) >= _MIN_CAPABILITY and _has_triton()


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


@functools.cache
def _has_triton() -> bool:
    return torch.version.cuda is not None and importlib.util.find_spec("triton") is not None


def _differ(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt() / one.square().mean().sqrt())


def _seconds(network: Generator, low: Tensor) -> float:
    """The median of a few runs, by the GPU's own clock."""
    taken = []
    for _ in range(7):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        network.subpixels(low)
        ended.record()
        ended.synchronize()
        taken.append(began.elapsed_time(ended) / 1000.0)
    return float(statistics.median(taken[2:]))
