"""A chain of convolutions added to the picture's repeated pixels, in the file layout that other programs read.

The files are like those of Real-ESRGAN's small models ("SRVGGNetCompact", Wang et al. 2021, arXiv:2107.10833, released
with it): `body.0` is a convolution, `body.1` its PReLU, and so on to the last convolution. So programs that read those
also read srgan's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.networks.blank import without_numbers
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

    def subpixels(self, low: Tensor) -> Tensor:
        x = low.to(self.tail.weight.dtype)
        for layer in self.body:
            x = layer(x)  # (N, 3, H, W) -> (N, F, H, W) -> … -> (N, 3·scale², H, W)
        # Each sub-pixel gets the pixel itself; in fp32, whatever the dtype of x.
        batch, _, height, width = low.shape
        subpixels = x.view(batch, 3, self.scale**2, height, width).to(low.dtype)
        return subpixels.add_(low.unsqueeze(2)).flatten(1, 2)  # (N, 3, scale², H, W) -> (N, 3·scale², H, W)


def srvgg_of(tensors: Mapping[str, object]) -> SRVGG | None:
    """The network with these weights, by any program, in fp32; None if they do not have this layout."""
    first, last = tensors.get("body.0.weight"), tensors.get(f"body.{len(tensors) // 3 * 2}.bias")
    if not (isinstance(first, Tensor) and isinstance(last, Tensor) and first.dim() == 4 and last.dim() == 1):
        return None
    scale, blocks = math.isqrt(last.shape[0] // 3), len(tensors) // 3 - 1
    try:
        with without_numbers():
            network = SRVGG(SRVGGConfig(scale=scale, features=first.shape[0], blocks=blocks))
    except WeightsError:
        return None
    wanted = network.state_dict()
    found = {key: tensor for key, tensor in tensors.items() if isinstance(tensor, Tensor)}
    if len(found) != len(tensors) or {k: t.shape for k, t in found.items()} != {k: t.shape for k, t in wanted.items()}:
        return None
    if not all(tensor.is_floating_point() for tensor in found.values()):
        return None
    network.load_state_dict({key: tensor.float() for key, tensor in found.items()}, assign=True)
    return network.requires_grad_(True)
