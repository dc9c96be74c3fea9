"""The paper's generator, and moving its slowest layer for inference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.networks.blank import without_numbers
from srgan_cli.networks.layers import (
    Generator,
    SinglePrecisionConv2d,
    check,
    check_whole,
    conv,
    halo_px,
    initialise,
)


@dataclass(frozen=True)
class SRResNetConfig:
    """The paper's generator has 64 features, 16 blocks and batch norm. It trains better without batch norm (EDSR)."""

    scale: int = 4
    features: int = 64
    blocks: int = 16
    batch_norm: bool = False

    def __post_init__(self) -> None:
        check_whole(self, {"scale": (2, 8), "features": (1, 512), "blocks": (0, 256)})
        check(self.scale in (2, 3, 4, 8), f"srresnet enlarges 2, 3, 4 or 8 times, not {self.scale}")
        check(isinstance(self.batch_norm, bool), f"batch_norm must be true or false, not {self.batch_norm!r}")


class _PaperBlock(nn.Module):
    """Conv – (BN) – PReLU – conv – (BN) – sum (fig. 4). The PReLU has one slope, as is usual for this network."""

    def __init__(self, features: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = conv(features, features, 3)
        self.norm1 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.act = nn.PReLU()
        self.conv2 = conv(features, features, 3)
        self.norm2 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return y.add_(x)  # in place: neither a convolution nor a batch norm needs its output for the backward pass


class _Enlarging(nn.Module):
    """Conv – pixel shuffle – PReLU.

    The PReLU has a single slope, so it commutes with the shuffle; `fold` can then remove the shuffle.
    """

    def __init__(self, features: int, factor: int) -> None:
        super().__init__()
        self.conv = conv(features, features * factor**2, 3)
        self.act = nn.PReLU()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.act(self.conv(x)), self.factor)  # (N, F, H, W) -> (N, F, H·factor, W·factor)


class SRResNet(Generator):
    """The generator of Ledig et al. 2017 (arXiv:1609.04802), fig. 4.

    Its halo at the paper's size and scale 4 is 39.5 px, rounded up to 40. As built, it ends in a convolution at full
    resolution, so `shuffle` is 1; `fold` moves that convolution before the last shuffle.
    """

    architecture = "srresnet"

    def __init__(self, config: SRResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.shuffle = 1
        factors = (3,) if config.scale == 3 else (2,) * (config.scale.bit_length() - 1)
        features = config.features
        self.head = conv(3, features, 9)
        self.head_act = nn.PReLU()
        self.body = nn.ModuleList(_PaperBlock(features, config.batch_norm) for _ in range(config.blocks))
        self.fuse = conv(features, features, 3)
        self.fuse_norm = nn.BatchNorm2d(features) if config.batch_norm else nn.Identity()
        self.up = nn.ModuleList(_Enlarging(features, factor) for factor in factors)
        self.tail: nn.Conv2d = SinglePrecisionConv2d(features, 3, 9, padding=4)
        self.halo_px = halo_px(
            [
                (9, 1),
                *[(3, 1)] * (2 * config.blocks + 1),
                *[(3, math.prod(factors[:stage])) for stage in range(len(factors))],
                (9, config.scale),
            ]
        )
        quiet = [] if config.batch_norm else [cast(_PaperBlock, block).conv2 for block in self.body]
        initialise(self, [*quiet, self.tail])
        nn.init.constant_(cast(nn.Parameter, self.tail.bias), 0.5)  # mid grey: the 0 of the paper's [-1, 1]

    def subpixels(self, low: Tensor) -> Tensor:
        h = self.head_act(self.head(low.to(self.head.weight.dtype)))  # (N, 3, H, W) -> (N, F, H, W)
        x = h
        for block in self.body:
            x = block(x)
        x = h + self.fuse_norm(self.fuse(x))
        for stage in self.up:
            x = stage(x)  # (N, F, H, W) -> (N, F, H·scale, W·scale); folded, the last one (N, F·r², H·scale/r, …)
        y: Tensor = self.tail(x)
        return y.to(low.dtype)

    def simplify(self) -> None:
        """Merge batch norms into the convolutions before them. The 9×9 convolution at full resolution, the slowest
        layer, becomes a 5×5 one before the last pixel shuffle: for ×2, 64 → 3 at (2H, 2W) becomes 256 → 12 at (H,
        W)."""
        if self.shuffle > 1:
            return
        for block in cast("Iterable[_PaperBlock]", self.body):
            block.norm1 = _fold_norm(block.conv1, block.norm1)
            block.norm2 = _fold_norm(block.conv2, block.norm2)
        self.fuse_norm = _fold_norm(self.fuse, self.fuse_norm)
        last = cast(_Enlarging, self.up[-1])
        self.tail, self.shuffle = _before_shuffle(self.tail, last.factor), last.factor
        last.factor = 1


def _fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Identity:
    """Merge an eval-mode batch norm (Ioffe & Szegedy 2015, alg. 2) into the convolution before it, in fp64."""
    if isinstance(norm, nn.BatchNorm2d):
        mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
        gain = norm.weight.double() / torch.sqrt(variance + norm.eps)
        bias = cast(Tensor, conv.bias)
        bias.copy_((bias.double() - mean) * gain + norm.bias.double())
        conv.weight.copy_(conv.weight.double() * gain[:, None, None, None])
    return nn.Identity()


def _before_shuffle(conv: nn.Conv2d, factor: int) -> nn.Conv2d:
    """The convolution which, followed by a pixel shuffle of `factor`, equals `conv` after the shuffle.

    Output sub-pixel p at tap u of the high-resolution kernel reads sub-pixel (u + p) mod factor of low-resolution
    neighbour (u + p) div factor. So the kernel, shifted by p inside a window of whole low-resolution pixels and divided
    into sub-pixels, is the new kernel for p. Zero padding stays zero padding, because the PReLU maps 0 to 0.
    """
    reach = conv.kernel_size[0] // 2
    new_reach = -(-reach // factor)
    window = (2 * new_reach + 1) * factor

    def margins(sub: int) -> tuple[int, int]:
        before = factor * new_reach - reach + sub
        return before, window - conv.kernel_size[0] - before

    shifted = [
        F.pixel_unshuffle(F.pad(conv.weight, (*margins(column), *margins(row))), factor)
        for row in range(factor)
        for column in range(factor)
    ]
    with without_numbers():  # its own initial weights are not needed
        merged = SinglePrecisionConv2d(
            conv.in_channels * factor**2, conv.out_channels * factor**2, 2 * new_reach + 1, padding=new_reach
        )
    merged.weight = nn.Parameter(torch.stack(shifted, dim=1).flatten(0, 1))  # (3, r², F·r², 5, 5) -> (3·r², …)
    merged.bias = nn.Parameter(cast(Tensor, conv.bias).repeat_interleave(factor**2))
    return merged
