"""Networks run by another library, from arrays to arrays; their scale and requirements are determined by trial.

Their files do not reliably describe them, so a small picture is enlarged: the result's size gives the scale, sizes that
fail give the requirements, and the result must resemble the input.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.errors import WeightsError

Array: TypeAlias = npt.NDArray[np.float32]
# (C, H, W) in [0, 1] -> (C, h, w). Raises the library's exceptions.
Run: TypeAlias = Callable[[Array], Array]

_SCALES = range(2, 17)
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_MIN_SIZES = (1, 8, 16, 32, 64, 128)
# The minimum correlation of the downscaled result with the input; below it, it is not the same picture.
_MIN_CORRELATION = 0.7
# … and the maximum difference of their means: values must be in [0, 1].
_MAX_OFFSET = 0.25
_TRIED_PX = (18, 23)  # odd, and both sides different


@dataclass(frozen=True)
class Needs:
    scale: int
    size_multiple: int = 1
    minimum_size_px: int = 1
    channels: int = 3


def probe(run: Run, name: str, *, channels: int = 3) -> Needs:
    """The scale and requirements of `run`. Raises `WeightsError` if it does not enlarge arbitrary pictures."""
    size_multiple, scale = _multiple(run, name, channels)
    sides = ((least, _up(least, size_multiple)) for least in _MIN_SIZES)
    least = next((least for least, side in sides if _scale(run, side, channels) == scale), None)
    if least is None:
        raise WeightsError(f"{name} does not accept small pictures, so it cannot run tile by tile")
    _check_picture(run, name, scale, _up(max(_TRIED_PX[1], least), size_multiple), channels)
    return Needs(scale, size_multiple, least, channels)


def _multiple(run: Run, name: str, channels: int) -> tuple[int, int]:
    failure: Exception | None = None
    for multiple in _MULTIPLES:
        height, width = (_up(side, multiple) for side in _TRIED_PX)
        try:
            high = run(_picture(height, width, channels))
        except (RuntimeError, ValueError, MemoryError) as err:
            failure = failure or err
            continue
        if (scale := _scale_of(high, height, width, channels)) is not None:
            return multiple, scale
        failure = failure or ValueError(f"{width}×{height} px become {_size(high)}")
    raise WeightsError(f"{name} is not a network that enlarges pictures of any size 2 to 16 times: {failure}")


def _scale(run: Run, side: int, channels: int) -> int | None:
    try:
        return _scale_of(run(_picture(side, side, channels)), side, side, channels)
    except (RuntimeError, ValueError, MemoryError):
        return None


def _scale_of(high: Array, height: int, width: int, channels: int) -> int | None:
    if high.ndim != 3 or high.shape[0] != channels:
        return None
    scale, rest = divmod(high.shape[1], height)
    fits = rest == 0 and scale in _SCALES and high.shape[2] == width * scale
    return scale if fits else None


def _size(high: Array) -> str:
    return "×".join(map(str, high.shape[::-1])) or "a number"


def _up(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _picture(height: int, width: int, channels: int) -> Array:
    """A smooth picture with some noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, channels, 5, 5, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=True)
    noise = 0.02 * torch.randn(smooth.shape, generator=generator)
    return (0.1 + 0.8 * smooth + noise).clamp_(0.0, 1.0)[0].numpy()


def _check_picture(run: Run, name: str, scale: int, side: int, channels: int) -> None:
    low = _picture(side, side, channels)
    high = run(low)
    if not np.isfinite(high).all():
        raise WeightsError(f"{name} gives numbers that are not finite: its weights are damaged")
    small = high.reshape(channels, side, scale, side, scale).mean((2, 4))
    offset = float(np.abs(small.mean((1, 2)) - low.mean((1, 2))).max())
    correlation = float(np.corrcoef(small.ravel(), low.ravel())[0, 1]) if float(small.std()) > 0 else 0.0
    if correlation < _MIN_CORRELATION or offset > _MAX_OFFSET:
        raise WeightsError(
            f"{name} does not return its picture enlarged (correlation {correlation:.2f}, {offset:.2f} brighter or "
            "darker); srgan needs a network from RGB in [0, 1] to the same, enlarged"
        )


def enlarge(run: Run, needs: Needs, low: Tensor) -> Tensor:
    """(N, C, H, W) fp32 on the host -> (N, C, H·scale, W·scale). Pictures that are too small, or not a multiple of what
    `run` accepts, are padded below and on the right, and the result is cropped."""
    height, width = low.shape[-2:]
    target = [
        max(_up(side, needs.size_multiple), _up(needs.minimum_size_px, needs.size_multiple)) for side in (height, width)
    ]
    padded = F.pad(low, (0, target[1] - width, 0, target[0] - height), mode="replicate")
    high = [torch.from_numpy(np.array(run(one.contiguous().numpy()), np.float32)) for one in padded]
    return torch.stack(high)[..., : height * needs.scale, : width * needs.scale]
