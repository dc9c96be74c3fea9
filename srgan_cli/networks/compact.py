"""Residual blocks at low resolution, added to a bilinear enlargement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from srgan_cli.networks.layers import (
    Generator,
    PReLU,
    bilinear_subpixels,
    check,
    check_whole,
    conv,
    halo_px,
    initialise,
)
from srgan_cli.networks.noise import Noise


@dataclass(frozen=True)
class CompactConfig:
    """All layers work at low resolution, and the result is added to a bilinear enlargement. `noise`: each block adds
    noise to its features, with learned strengths; see `networks.noise`."""

    scale: int = 4
    features: int = 64
    blocks: int = 8
    noise: bool = False

    def __post_init__(self) -> None:
        check(isinstance(self.noise, bool), f"noise must be true or false, not {self.noise!r}")
        check_whole(self, {"scale": (1, 16), "features": (1, 512), "blocks": (0, 256)})


class CompactBlock(nn.Module):
    strength: nn.Parameter | None

    def __init__(self, features: int, noise: bool) -> None:
        super().__init__()
        self.conv1 = conv(features, features, 3)
        self.act = PReLU(features)
        self.conv2 = conv(features, features, 3)
        self.register_parameter("strength", nn.Parameter(torch.zeros(features)) if noise else None)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.act(self.conv1(x)))
        return y.add_(x)  # in place: a convolution does not need its output for the backward pass

    def roughened(self, x: Tensor, noise: Noise, layer: int) -> Tensor:
        """The result of `forward` with this layer's noise added, in place."""
        if self.strength is None:
            return x
        return x.addcmul_(noise.field(layer, x), self.strength.to(x.dtype).view(1, -1, 1, 1))


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
        self.body = nn.ModuleList(CompactBlock(features, config.noise) for _ in range(config.blocks))
        self.fuse = conv(features, features, 3)
        self.tail = conv(features, 3 * config.scale**2, 3)
        # The longest path passes through every block; the bilinear one has a radius of one px.
        self.halo_px = max(halo_px([(3, 1)] * (2 * config.blocks + 3)), 1)
        initialise(self, [*(cast(CompactBlock, block).conv2 for block in self.body), self.tail])

    @property
    def has_noise(self) -> bool:
        return self.config.noise

    def subpixels(self, low: Tensor) -> Tensor:
        return self.drawn(low, None)

    def drawn(self, low: Tensor, noise: Noise | None) -> Tensor:
        h = self.head(low.to(self.head.weight.dtype))  # (N, 3, H, W) -> (N, F, H, W)
        x = h
        for layer, block in enumerate(self.body):
            x = block(x)
            if noise is not None:
                x = cast(CompactBlock, block).roughened(x, noise, layer)
        x = self.fuse(x).add_(h)
        del h  # saves a quarter of the peak memory: the last step makes large fp32 tensors
        x = self.tail(x)  # (N, F, H, W) -> (N, 3·scale², H, W)
        return bilinear_subpixels(low, self.scale).add_(x)
