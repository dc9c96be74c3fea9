"""A plain inference loop like that of most programs, as a comparison: the whole picture on the device, tiles in
sequence, joined as floats."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_TILE_PX, _PAD_PX = 256, 10


@torch.no_grad()
def plain_loop(network: nn.Module, low: Tensor, scale: int) -> Tensor:
    """(1, 3, H, W) -> (1, 3, H·scale, W·scale), with the type and device of `low`. There are seams if the receptive
    field exceeds 10 px."""
    height, width = low.shape[2:]
    high = low.new_zeros(1, 3, height * scale, width * scale)
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            bottom, right = min(top + _TILE_PX, height), min(left + _TILE_PX, width)
            above, before = max(top - _PAD_PX, 0), max(left - _PAD_PX, 0)
            part = network(low[:, :, above : min(bottom + _PAD_PX, height), before : min(right + _PAD_PX, width)])
            y, x = (top - above) * scale, (left - before) * scale
            inner = part[:, :, y : y + (bottom - top) * scale, x : x + (right - left) * scale]
            high[:, :, top * scale : bottom * scale, left * scale : right * scale] = inner
    return high
