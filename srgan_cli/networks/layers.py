"""Common layers of the networks, and the interface of a generator.

Tensors are NCHW, RGB, float in [0, 1], here and everywhere past `imaging`. `low` is the small picture, `high` the large
one. The paper has `high` in [-1, 1]; here both are in [0, 1], which is equivalent up to an affine map and less
error-prone.

Inference contract: `generator.subpixels(low)` is the output before its last pixel shuffle and `generator.shuffle` that
shuffle's factor, so that the caller can quantise before the shuffle. `forward` does both:

    subpixels(low)  # (N, 3, H, W) -> (N, 3·r², H·scale/r, W·scale/r), r = shuffle, in the dtype of `low`
    forward(low)    # (N, 3, H, W) -> (N, 3, H·scale, W·scale)

`low` is fp32, whatever the dtype of the weights: after `generator.to(torch.bfloat16)` the convolutions run in bf16, but
the operation that determines the last bits of a pixel (the final addition, or the last convolution of a network without
one) stays in fp32.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.imaging.standards import LUMA
from srgan_cli.networks.noise import Noise

# A layer for the receptive field: (kernel side, its resolution as a multiple of the low picture's).
Layer: TypeAlias = tuple[int, int]


def halo_px(layers: Iterable[Layer]) -> int:
    """How far, in low-resolution px, an output pixel's receptive field extends from the pixel that contains it.

    A kernel of side k reaches (k - 1) / 2 px at its own resolution. Below a pixel shuffle of r, a reach of n px becomes
    ceil(n / r). Because ceil(ceil(a) / r) = ceil(a / r), rounding once at the end gives the exact value.
    """
    return math.ceil(sum(Fraction(kernel // 2, resolution) for kernel, resolution in layers))


def luma(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W), neither rounded nor clipped. For arrays see `imaging.standards.luma`."""
    return (pictures * pictures.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)


def check(condition: bool, message: str) -> None:
    if not condition:
        raise WeightsError(message)


def check_whole(config: object, bounds: Mapping[str, tuple[int, int]]) -> None:
    # The values may come from somebody else's file, so their types are checked as well.
    for name, (least, most) in bounds.items():
        value = getattr(config, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        check(
            whole and least <= value <= most,
            f"{name} must be a whole number between {least} and {most}, not {value!r}",
        )


class Generator(nn.Module):
    """The interface of every network that enlarges. `subpixels` and `shuffle` are described in the module's docstring.

    `halo_px` is the radius of the receptive field in low-resolution px, or None if it is unbounded or unknown.
    """

    architecture: str
    scale: int
    halo_px: int | None
    shuffle: int

    def subpixels(self, low: Tensor) -> Tensor:
        raise NotImplementedError

    @property
    def has_noise(self) -> bool:
        """Whether `drawn` uses noise."""
        return False

    def drawn(self, low: Tensor, noise: Noise | None) -> Tensor:
        """Like `subpixels`, with detail drawn from `noise`; None: without."""
        return self.subpixels(low)

    def forward(self, low: Tensor, noise: Noise | None = None) -> Tensor:
        return F.pixel_shuffle(self.subpixels(low) if noise is None else self.drawn(low, noise), self.shuffle)

    def simplify(self) -> None:
        """Rewrite the weights in place so that inference needs less work for the same result. Applying it twice is
        safe."""


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


@torch.no_grad()
def initialise(network: nn.Module, quiet: Iterable[nn.Conv2d]) -> None:
    """He et al. 2015 (eq. 15, for the PReLU's slope of 1/4); `quiet` layers start ten times smaller.

    The last layer of a residual branch is quiet, so that a deep network starts near the identity and tolerates a high
    learning rate.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.25, nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for conv in quiet:
        conv.weight.mul_(0.1)


class SinglePrecisionConv2d(nn.Conv2d):
    """A convolution that stays in fp32 (or fp64) when the rest of the network is converted to half precision.

    Its output is the pixel itself: without a residual addition, a bf16 result would have errors of up to one step of 8
    bits.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SinglePrecisionConv2d:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype not in (torch.float16, torch.bfloat16):
                return moved
            return torch.empty_like(moved, dtype=tensor.dtype).copy_(tensor)  # moved's device and memory format

        return cast("SinglePrecisionConv2d", super()._apply(keep, recurse))  # type: ignore[no-untyped-call]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Module's own name
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class _QuickPReLU(torch.autograd.Function):
    """PReLU with one slope per feature, with a backward pass four times as fast on a CPU as PyTorch's.

    PyTorch's takes as long as a 3×3 convolution there: a fifth of a training step. (At exactly 0 the gradient is that
    of the positive side.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope.to(x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        negative = torch.ops.aten.threshold_backward(gradient, -x, 0)  # the gradient where x < 0, else 0
        to_x = torch.addcmul(gradient, negative, (slope - 1.0).to(x.dtype).view(1, -1, 1, 1))
        to_slope = (negative * x).sum((0, 2, 3), dtype=torch.float32)
        return to_x, to_slope.to(slope.dtype)


class PReLU(nn.PReLU):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Module's own name
        if input.device.type == "cpu" and torch.is_grad_enabled() and self.weight.requires_grad:
            return cast(Tensor, _QuickPReLU.apply(input, self.weight))
        return super().forward(input)


def bilinear_subpixels(low: Tensor, scale: int) -> Tensor:
    """Bilinear enlargement (`align_corners=False`) by an integer factor, before its pixel shuffle.

    Each of the scale² sub-pixels is a fixed mixture of a pixel and its neighbours, with the border repeated, so no
    high-resolution picture is needed. (N, C, H, W) -> (N, C·scale², H, W), in the dtype of `low`. It is a convolution,
    whose result has the memory format of other convolutions' results, so that adding it is one pass over both. Treating
    each channel as a picture would need a grouped convolution, which is slow; a kernel of mostly zeros is not.
    """
    padded = F.pad(low, (1, 1, 1, 1), mode="replicate")  # (N, C, H, W) -> (N, C, H+2, W+2)
    kernel = _kernel_on(scale, low.shape[1], low.dtype, low.device)
    with torch.autocast(low.device.type, enabled=False), without_tf32(low.device):
        return F.conv2d(padded.contiguous(memory_format=torch.channels_last), kernel)


def without_tf32(device: torch.device) -> AbstractContextManager[object]:
    """A context in which convolutions in fp32 are as exact as fp32 is: by default, cuDNN rounds their factors to TF32
    (ten bits of mantissa)."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    return cast(
        "AbstractContextManager[object]",
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False),
    )


@functools.cache
def _kernel_on(scale: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept on the device: a copy from the host would wait there for all that runs."""
    with torch.inference_mode(False):
        return bilinear_kernel(scale, channels).to(device, dtype)


@functools.cache
def bilinear_kernel(scale: int, channels: int) -> Tensor:
    """(channels·scale², channels, 3, 3) in fp64: the weights of each sub-pixel for its pixel's 3×3 neighbourhood."""
    with torch.inference_mode(False):  # the result is cached, and must also work in training after inference
        taps = torch.zeros(scale, 3, dtype=torch.float64)
        for sub in range(scale):
            shift = (sub + 0.5) / scale - 0.5
            taps[sub, 1] = 1.0 - abs(shift)
            taps[sub, 0 if shift < 0 else 2] += abs(shift)
        subpixels = torch.einsum("ai,bj->abij", taps, taps).flatten(0, 1)  # (scale², 3, 3)
        same = torch.eye(channels, dtype=torch.float64)
        return torch.einsum("cd,pij->cpdij", same, subpixels).flatten(0, 1)


def not_finite(x: Tensor) -> Tensor:
    """(N, 1, 1, 1): 0 for each picture of finite numbers, NaN for others. Added after clipping, so that an overflow is
    not mistaken for white or black."""
    total = x.float().sum((1, 2, 3), keepdim=True)
    return total - total
