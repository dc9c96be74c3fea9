"""A plain chain of convolutions, added to the picture's repeated pixels: the layout that other programs read.

Its files are those of Real-ESRGAN's small models ("SRVGGNetCompact", Wang et al. 2021, arXiv:2107.10833, released with
it): `body.0` is a convolution, `body.1` its PReLU, and so on to the last convolution. So whatever reads those, reads
ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from srgan_cli.networks.layers import Generator, PReLU, check_whole, conv, halo_px, initialise


@dataclass(frozen=True)
class SRVGGConfig:
    """`blocks` are the convolutions between the first and the last one, each followed by a PReLU."""

    scale: int = 4
    features: int = 64
    blocks: int = 16

    def __post_init__(self) -> None:
        check_whole(self, {"scale": (1, 16), "features": (1, 512), "blocks": (0, 256)})


class SRVGG(Generator):
    """3×3 convolutions and PReLUs at low resolution, added to a nearest enlargement; one pixel shuffle at the end."""

    architecture = "srvgg"

    def __init__(self, config: SRVGGConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = self.shuffle = config.scale
        features = config.features
        layers: list[nn.Module] = [conv(3, features, 3), PReLU(features)]
        for _ in range(config.blocks):
            layers += [conv(features, features, 3), PReLU(features)]
        layers.append(conv(features, 3 * config.scale**2, 3))
        self.body = nn.ModuleList(layers)
        self.halo_px = halo_px([(3, 1)] * (config.blocks + 2))
        initialise(self, [self.tail])

    @property
    def tail(self) -> nn.Conv2d:
        return cast(nn.Conv2d, self.body[-1])

    def phases(self, low: Tensor) -> Tensor:
        x = low.to(self.tail.weight.dtype)
        for layer in self.body:
            x = layer(x)  # (N, 3, H, W) -> (N, F, H, W) -> … -> (N, 3·scale², H, W)
        # Each phase of a pixel gets the pixel itself; in fp32, whatever the dtype of x.
        batch, _, height, width = low.shape
        phases = x.view(batch, 3, self.scale**2, height, width).to(low.dtype)
        return phases.add_(low.unsqueeze(2)).flatten(1, 2)  # (N, 3, scale², H, W) -> (N, 3·scale², H, W)
