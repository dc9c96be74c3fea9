"""Residual blocks at low resolution, added to a bilinear enlargement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from srgan_cli.networks.layers import Generator, PReLU, bilinear_subpixels, check_whole, conv, halo_px, initialise


@dataclass(frozen=True)
class CompactConfig:
    """Everything happens at low resolution, and the network only adds to a bilinear enlargement."""

    scale: int = 4
    features: int = 64
    blocks: int = 8

    def __post_init__(self) -> None:
        check_whole(self, {"scale": (1, 16), "features": (1, 512), "blocks": (0, 256)})


class _CompactBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = conv(features, features, 3)
        self.act = PReLU(features)
        self.conv2 = conv(features, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.act(self.conv1(x)))
        return y.add_(x)  # in place: a convolution does not need its output for the backward pass


class Compact(Generator):
    """3×3 convolutions at low resolution, added to a bilinear enlargement; one pixel shuffle at the very end.

    The residual blocks are those of EDSR (Lim et al. 2017), with a PReLU slope per feature.
    """

    architecture = "compact"

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = self.shuffle = config.scale
        features = config.features
        self.head = conv(3, features, 3)
        self.body = nn.ModuleList(_CompactBlock(features) for _ in range(config.blocks))
        self.fuse = conv(features, features, 3)
        self.tail = conv(features, 3 * config.scale**2, 3)
        # The longest path goes through every block; the bilinear one reaches a single px.
        self.halo_px = max(halo_px([(3, 1)] * (2 * config.blocks + 3)), 1)
        initialise(self, [*(cast(_CompactBlock, block).conv2 for block in self.body), self.tail])

    def subpixels(self, low: Tensor) -> Tensor:
        h = self.head(low.to(self.head.weight.dtype))  # (N, 3, H, W) -> (N, F, H, W)
        x = h
        for block in self.body:
            x = block(x)
        x = self.fuse(x).add_(h)
        del h  # a quarter of the peak: the last step makes large fp32 tensors
        x = self.tail(x)  # (N, F, H, W) -> (N, 3·scale², H, W)
        return bilinear_subpixels(low, self.scale).add_(x)
