"""Eight results instead of one: the self-ensemble of enhanced prediction.

Timofte et al. 2016 (arXiv:1511.02228) and Lim et al. 2017 (EDSR, arXiv:1707.02921, section 3.4): a network
enlarges the eight mirrored and turned copies of a picture, and the mean of the results, turned back, is closer to the
original than any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from srgan_cli.engine.backends.protocol import Followed, Prepared

COPIES = 8


class Ensemble:
    """A prepared network whose result is the mean over all copies. Its windows need no more context than the network's,
    whose receptive field is a square. It draws nothing from noise: a mean of draws would be blurred."""

    def __init__(self, network: Prepared, prepared: Prepared) -> None:
        """`prepared`: the network on its backend, inside `network`, which is called."""
        self._network, self._prepared = network, prepared
        self.shuffle = network.shuffle
        self.work = prepared.work if isinstance(prepared, Followed) else 0
        self.on_fraction: Callable[[float], None] | None = None

    def subpixels(self, low: Tensor) -> Tensor:
        try:
            total = self._result(low, 0)
            for number in range(1, COPIES):
                total += self._result(low, number)  # whose memory is free again when the next one is made
        finally:
            if isinstance(self._prepared, Followed):
                self._prepared.on_fraction = None
        return total.div_(COPIES)

    def _result(self, low: Tensor, number: int) -> Tensor:
        """For one of the copies, turned back; in memory of its own."""
        if self.on_fraction is not None and isinstance(self._prepared, Followed):
            self._prepared.on_fraction = partial(_copy_done, self.on_fraction, number)
        turned = _turned(low, number).contiguous(memory_format=torch.channels_last)
        return self._turned_back(self._network.subpixels(turned), number)

    def _turned_back(self, subpixels: Tensor, number: int) -> Tensor:
        """(N, C·r², H, W), whose r² sub-pixels are part of the picture and so are turned too."""
        count, channels, height, width = subpixels.shape
        side = self.shuffle
        block = subpixels.reshape(count, channels // side**2, side, side, height, width)
        if number & 4:
            block = block.transpose(2, 3).transpose(4, 5)
        axes = [axis for bit, pair in ((1, (3, 5)), (2, (2, 4))) if number & bit for axis in pair]
        return block.flip(axes).flatten(1, 3)


def _turned(low: Tensor, number: int) -> Tensor:
    """One of the copies: mirrored left to right, then top to bottom, then along the diagonal, by the number's bits."""
    axes = [axis for bit, axis in ((1, -1), (2, -2)) if number & bit]
    return low.flip(axes).transpose(-1, -2) if number & 4 else low.flip(axes)


def _copy_done(on_fraction: Callable[[float], None], number: int, fraction: float) -> None:
    on_fraction((number + fraction) / COPIES)
