"""What a network that draws texture makes it of: noise that is a function of a seed, a layer and a place.

Karras et al. 2019 (StyleGAN, arXiv:1812.04948, section 3.2) add noise of one channel behind each layer, by a strength
that each feature learns; in super-resolution Rakotonirina and Rasoanaivo 2020 (ESRGAN+, arXiv:2001.08073). Theirs is
drawn again for each picture. Here a counter in the place of a generator of random numbers gives it: whoever computes a
pixel, in whatever tile, band or process, computes it with the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_OTHER = 1 << 62  # no seed of a person's
_PASS_LAYERS = 1 << 16  # layers of one network of a chain
# Of the sum of four bytes: their mean, and the standard deviation.
_MEAN, _STD = 4 * 127.5, (4 * (256**2 - 1) / 12) ** 0.5


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of windows, whose first px are at `corners` (row, column) of the picture that the network is
    given. `strength` 0 to 1, of all windows or of each, multiplies it; 0 is as without."""

    seed: int = 0
    strength: float | tuple[float, ...] = 1.0
    corners: tuple[tuple[int, int], ...] = ((0, 0),)
    first_layer: int = 0

    def at(self, corners: Sequence[tuple[int, int]]) -> Noise:
        return replace(self, corners=tuple(corners))

    def other(self, count: int) -> Noise:
        """Another for the last `count` windows, of full strength."""
        return Noise(self.seed ^ _OTHER, corners=self.corners[-count:])

    def of_pass(self, number: int, scale: int) -> Noise:
        """For a further network of a chain, whose picture the earlier ones have enlarged that many times."""
        corners = tuple((row * scale, column * scale) for row, column in self.corners)
        return replace(self, corners=corners, first_layer=number * _PASS_LAYERS)

    def field(self, layer: int, features: Tensor) -> Tensor:
        """(N, F, H, W) -> (N, 1, H, W) on its device and of its dtype: mean 0, standard deviation `strength`."""
        height, width, device = features.shape[2], features.shape[3], features.device
        words = torch.tensor([self.seed & _WORD, self.seed >> 32 & _WORD, self.first_layer + layer])
        first, second = torch.tensor([0x9E3779B9]), torch.tensor([0x85EBCA6B])
        for word in words:
            first, second = _mixed(first ^ word), _mixed((second + word) & _WORD)
        tops, lefts = torch.tensor(self.corners, device=device).T
        rows = (tops[:, None] + torch.arange(height, device=device)) & _WORD  # (N, H)
        columns = (lefts[:, None] + torch.arange(width, device=device)) & _WORD  # (N, W)
        rows = _mixed(rows ^ first.to(device))[:, :, None]
        bits = _mixed((rows + _mixed(columns ^ second.to(device))[:, None, :]) & _WORD)  # (N, H, W)
        total = (bits & 255) + (bits >> 8 & 255) + (bits >> 16 & 255) + (bits >> 24)
        strength = torch.tensor(self.strength, device=device).view(-1, 1, 1)
        noise = (total.to(torch.float32) - _MEAN) * (strength / _STD)
        field: Tensor = noise[:, None].to(features.dtype)
        return field


def _mixed(words: Tensor) -> Tensor:
    """Every bit of 32 depends on every bit. int64, whose products here stay below 2^63; the multipliers are those that
    C. Wellons found by search (hash-prospector, 2018)."""
    words = words ^ (words >> 16)
    words = words * 0x21F0AAAD & _WORD
    words = words ^ (words >> 15)
    words = words * 0x735A2D97 & _WORD
    folded: Tensor = words ^ (words >> 15)
    return folded
