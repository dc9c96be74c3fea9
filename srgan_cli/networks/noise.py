"""The noise from which a network draws texture: a function of a seed, a layer and a position.

Karras et al. 2019 (StyleGAN, arXiv:1812.04948, section 3.2) add one channel of noise after each layer, with a strength
learned by each feature; Rakotonirina and Rasoanaivo 2020 (ESRGAN+, arXiv:2001.08073) do so in super-resolution. They
draw it anew for each picture. Here it is a hash of the position instead of a random generator's state, so a pixel gets
the same noise in every tile, band or process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_OTHER = 1 << 62  # a seed that users cannot choose
_PASS_LAYERS = 1 << 16  # layers of one network in a chain
_FACTORS = 0x21F0AAAD, 0x735A2D97
# Mean and standard deviation of the sum of four bytes.
_MEAN, _STD = 4 * 127.5, (4 * (256**2 - 1) / 12) ** 0.5


@dataclass(frozen=True)
class Noise:
    """The noise of a batch of windows whose first px are at `corners` (row, column) of the network's input picture.
    `strength` (0 to 1, for all windows or for each) multiplies it; 0 is equivalent to no noise."""

    seed: int = 0
    strength: float | tuple[float, ...] = 1.0
    corners: tuple[tuple[int, int], ...] = ((0, 0),)
    first_layer: int = 0

    def at(self, corners: Sequence[tuple[int, int]]) -> Noise:
        return replace(self, corners=tuple(corners))

    def other(self, count: int) -> Noise:
        """The same with different noise of full strength for the last `count` windows."""
        return Noise(self.seed ^ _OTHER, corners=self.corners[-count:])

    def of_pass(self, number: int, scale: int) -> Noise:
        """For a later network of a chain, whose input has been enlarged this many times by the earlier ones."""
        corners = tuple((row * scale, column * scale) for row, column in self.corners)
        return replace(self, corners=corners, first_layer=number * _PASS_LAYERS)

    def field(self, layer: int, features: Tensor) -> Tensor:
        """(N, F, H, W) -> (N, 1, H, W) on its device and of its dtype: mean 0, standard deviation `strength`."""
        height, width, device = features.shape[2], features.shape[3], features.device
        first, second = 0x9E3779B9, 0x85EBCA6B
        for word in (self.seed & _WORD, self.seed >> 32 & _WORD, self.first_layer + layer):
            first, second = _mixed(first ^ word), _mixed(second + word & _WORD)

        def edge(starts: Sequence[int], length: int, key: int) -> Tensor:
            # Ranges are made on the device: copying them there would make the CPU wait for it, in every layer.
            ranges = [torch.arange(start, start + length, device=device) for start in starts]
            return _wrapped(_mixed((torch.stack(ranges) & _WORD) ^ key))

        rows = edge([row for row, _ in self.corners], height, first)[:, :, None]
        columns = edge([column for _, column in self.corners], width, second)[:, None, :]
        bits = _mixed_narrow(rows + columns)  # (N, H, W)
        total = bits & 255
        for shift in (8, 16, 24):
            total += (bits >> shift).bitwise_and_(255)
        noise = total.to(torch.float32).sub_(_MEAN)
        if isinstance(self.strength, tuple):
            noise *= torch.tensor(self.strength, device=device).view(-1, 1, 1) / _STD
        else:
            noise *= self.strength / _STD
        field: Tensor = noise[:, None].to(features.dtype)
        return field


Words = TypeVar("Words", int, Tensor)


def _mixed(words: Words) -> Words:
    """A hash of 32 bits in which every bit depends on every bit. It uses int64, in which the products stay below 2^63;
    the multipliers were found by C. Wellons' search (hash-prospector, 2018)."""
    words = words ^ (words >> 16)
    words = words * _FACTORS[0] & _WORD
    words = words ^ (words >> 15)
    words = words * _FACTORS[1] & _WORD
    return words ^ (words >> 15)


def _wrapped(words: Tensor) -> Tensor:
    """32-bit words in int64 -> the same bits in int32."""
    return (words - ((words >> 31) << 32)).to(torch.int32)


def _mixed_narrow(words: Tensor) -> Tensor:
    """`_mixed` for bits in int32: half the memory traffic. Products wrap; right shifts extend the sign, so its copies
    are masked."""
    words = (words >> 16).bitwise_and_(0xFFFF).bitwise_xor_(words).mul_(_FACTORS[0])
    words = (words >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(words).mul_(_FACTORS[1])
    return (words >> 15).bitwise_and_(0x1FFFF).bitwise_xor_(words)
