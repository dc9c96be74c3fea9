"""One or more networks, prepared for a device and used as a single one that enlarges by the product of their scales.

A chain runs tile by tile, without a picture in between: its halo is the sum of its networks' halos, in px of the first
input.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli.engine.backends.protocol import Backend, Drawing, Followed, Prepared
from srgan_cli.engine.ensemble import Ensemble
from srgan_cli.engine.tiles import Pass, chain_halo
from srgan_cli.imaging.standards import LUMA
from srgan_cli.networks.generators import bilinear_subpixels, not_finite
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.weights import Model

# Half-precision results that differ more than this from fp32 are rejected: by one of 255 levels root mean square
# (rounding to 8 bits alone is 0.3), or by 15 levels anywhere. Adversarial networks amplify small differences in the
# canary's noise and hard edges: on photographs the bundled models differ by 0.4 levels, and by at most 4 anywhere.
CANARY_RMS = 1 / 255
CANARY_LARGEST = 15 / 255
# Overlap in px for models with a receptive field that is unbounded or too large: tiles are blended.
BLEND_PX = 32

_LOCK_SIGMA_PX = 3.0
_LOCK_RADIUS_PX = 8
_RED, _GREEN, _BLUE = LUMA


class Difference(NamedTuple):
    """Difference between two results in [0, 1]: the maximum, and the root mean square."""

    largest: float
    rms: float

    @property
    def is_small(self) -> bool:
        return self.largest <= CANARY_LARGEST and self.rms <= CANARY_RMS


class Chain:
    """Networks in order, on a backend.

    `scale` is the product of their scales; `halo_px` the context a tile needs; `blend_px` is 0 if tiles join exactly,
    else the width of the strip in which neighbouring tiles are blended.
    """

    def __init__(self, models: Sequence[Model], backend: Backend, *, color_lock: bool | None = None) -> None:
        self.models = tuple(models)
        self.backend, self.device = backend, backend.device
        self.scale: int = math.prod(m.scale for m in models)
        self.color_lock = any(m.adversarial for m in models) if color_lock is None else color_lock
        bounded = all(m.halo_px is not None for m in models)
        self.blend_px = 0 if bounded else BLEND_PX
        passes = tuple(Pass(m.scale, BLEND_PX if m.halo_px is None else m.halo_px) for m in models)
        # One px more than the correction's own reach, since it is enlarged bilinearly.
        self.halo_px = chain_halo(passes) + (_LOCK_RADIUS_PX + 1 if self.color_lock else 0)
        self._prepared = [backend.prepare(m) for m in models]
        # What runs on another device is only queued when it returns, so that its end is unknown here.
        on_host = self.device.type == "cpu"
        self._followed = [_Whole(one) if on_host and not isinstance(one, Followed) else one for one in self._prepared]
        each = zip(self._followed, models, strict=True)
        self._networks: list[Prepared] = [_Grey(one) if m.input_channels == 1 else one for one, m in each]
        self._single: Chain | None = None  # of an ensemble: the chain that it runs eight times
        self.shuffle = self._networks[-1].shuffle
        # Whether all networks that draw from noise can do so on this backend.
        self.draws = all(
            isinstance(one, Drawing) for one, m in zip(self._networks, models, strict=True) if m.network.has_noise
        )

    def exact(self) -> Chain:
        """The same chain in fp32."""
        chain = Chain(self.models, self.backend.exact(), color_lock=self.color_lock)
        return chain.ensemble() if self.is_ensemble else chain

    @property
    def is_ensemble(self) -> bool:
        return self._single is not None

    def ensemble(self) -> Chain:
        """The chain with the same networks, each of which averages over eight copies of its input."""
        chain = copy.copy(self)
        chain._networks = [Ensemble(one, inner) for one, inner in zip(self._networks, self._followed, strict=True)]
        chain._followed = list(chain._networks)
        chain._single, chain.draws = self, False
        return chain

    def subpixels(self, low: Tensor, noise: Noise | None = None) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3r², H·s/r, W·s/r) with r = `shuffle`, all fp32; may overshoot [0, 1].

        `noise` is that of the N windows, for networks that use it.
        """
        middle, trace = low, None
        for number in range(len(self._networks) - 1):
            middle = F.pixel_shuffle(self._pass(number, middle, noise), self._networks[number].shuffle)
            trace = not_finite(middle) if trace is None else trace + not_finite(middle)
            middle = middle.clamp_(0.0, 1.0).contiguous(memory_format=torch.channels_last)
        subpixels = self._pass(len(self._networks) - 1, middle, noise)
        if trace is not None:
            subpixels += trace
        if not self.color_lock:
            return subpixels
        return _without_new_colours(self._locked(subpixels, low), low)

    def _pass(self, number: int, low: Tensor, noise: Noise | None) -> Tensor:
        one = self._networks[number]
        if noise is None or not isinstance(one, Drawing):
            return one.subpixels(low)
        scale = math.prod(model.scale for model in self.models[:number])
        return one.drawn(low, noise.of_pass(number, scale))

    @contextlib.contextmanager
    def followed(self, on_fraction: Callable[[float], None]) -> Iterator[None]:
        """Calls `on_fraction` with the fraction of the networks' work that is done while they run: within a network on
        backends that report it, else after each one."""
        scales = [math.prod(model.scale for model in self.models[:number]) for number in range(len(self.models))]
        works = [one.work * scale**2 if isinstance(one, Followed) else 0
                 for one, scale in zip(self._followed, scales, strict=True)]  # fmt: skip
        total = max(1, sum(works))
        for number, one in enumerate(self._followed):
            if isinstance(one, Followed):
                one.on_fraction = partial(_pass_on, on_fraction, sum(works[:number]) / total, works[number] / total)
        try:
            yield
        finally:
            for one in self._followed:
                if isinstance(one, Followed):
                    one.on_fraction = None

    def high(self, low: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H·s, W·s), as `subpixels`."""
        return F.pixel_shuffle(self.subpixels(low), self.shuffle)

    def _locked(self, subpixels: Tensor, low: Tensor) -> Tensor:
        """Correct the low frequencies so that the downscaled result has the colours of the input.

        The mean of each s×s block of the result is compared with its input pixel. The difference is smoothed (so that
        colour casts and drifts are corrected, but not texture), enlarged and added.
        """
        colors = subpixels.chunk(3, dim=1)  # a colour's r² sub-pixels are adjacent
        blocks = torch.cat([color.mean(1, keepdim=True) for color in colors], dim=1)  # -> (N, 3, h, w)
        blocks = F.avg_pool2d(blocks, self.scale // self.shuffle)  # -> (N, 3, H, W)
        drift = _smooth(low - blocks.clamp(0.0, 1.0))
        if self.shuffle == self.scale:
            return bilinear_subpixels(drift, self.scale).add_(subpixels)
        high = F.interpolate(drift, scale_factor=float(self.scale), mode="bilinear", align_corners=False)
        return F.pixel_unshuffle(high, self.shuffle).add_(subpixels)

    def canary(self, referee: Backend) -> Difference:
        """The difference from the reference's result for a small synthetic picture; infinite if it is not finite."""
        generator = torch.Generator().manual_seed(20160915)  # arXiv:1609.04802
        coarse = torch.rand(1, 3, 12, 12, generator=generator)
        picture = F.interpolate(coarse, size=(96, 96), mode="bicubic", align_corners=False)
        picture = (picture + 0.1 * torch.randn(1, 3, 96, 96, generator=generator)).clamp_(0.0, 1.0)
        picture[..., 48:, :] = picture[..., 48:, :].round()  # the hardest possible edges
        low = picture.to(self.device).contiguous(memory_format=torch.channels_last)
        result, truth = self.high(low), Chain(self.models, referee, color_lock=self.color_lock).high(low)
        if not bool(torch.isfinite(result).all()):
            return Difference(math.inf, math.inf)
        off = result - truth
        return Difference(float(off.abs().max()), float(off.square().mean().sqrt()))

    def bytes_per_px(self) -> float:
        """Memory for one more low-resolution px of a tile, at the peak.

        The result exists about three times in fp32, and two more of an ensemble, whose sum and turned input are there
        while its networks run. So does, on a heap, the gap that the last copy's result left.
        """
        result = 4.0 * 3 * self.scale**2
        if self._single is None:
            return self.backend.bytes_per_px(self._prepared, self._probe, 3 * result)
        return self.backend.bytes_per_px(self._prepared, self._single._probe, 5 * result, 2 * result + 4 * 3)

    def _probe(self, side: int) -> None:
        self.subpixels(torch.zeros(1, 3, side, side, device=self.device).contiguous(memory_format=torch.channels_last))


def _pass_on(on_fraction: Callable[[float], None], before: float, share: float, fraction: float) -> None:
    on_fraction(before + share * fraction)


class _Whole:
    """A network that does not say how far it is: it is followed only from one call to the next, as for the copies of an
    ensemble."""

    work = 1

    def __init__(self, network: Prepared) -> None:
        self._network = network
        self.shuffle = network.shuffle
        self.on_fraction: Callable[[float], None] | None = None

    def subpixels(self, low: Tensor) -> Tensor:
        subpixels = self._network.subpixels(low)
        if self.on_fraction is not None:
            self.on_fraction(1.0)
        return subpixels


class _Grey:
    """A one-channel network applied to three channels: each colour is treated as a grey picture."""

    def __init__(self, network: Prepared) -> None:
        self._network = network
        self.shuffle = network.shuffle

    def subpixels(self, low: Tensor) -> Tensor:
        height, width = low.shape[-2:]
        subpixels = self._network.subpixels(low.reshape(-1, 1, height, width))  # (N, 3, H, W) -> (3N, r², h, w)
        return subpixels.reshape(-1, 3 * subpixels.shape[1], *subpixels.shape[2:])


def _without_new_colours(subpixels: Tensor, low: Tensor) -> Tensor:
    """Remove colours in place that the input does not have nearby: specks around letters and in foliage.

    Red minus luma and blue minus luma are clamped to the range of the input within one px; luma is unchanged. (N, 3r²,
    h, w), (N, 3, H, W) -> (N, 3r², h, w)
    """
    count, channels, height, width = subpixels.shape
    red, green, blue = subpixels.view(count, 3, channels // 3, height, width).unbind(1)
    luma = (red * _RED).add_(green, alpha=_GREEN).add_(blue, alpha=_BLUE)
    low_luma = low[:, :1] * _RED + low[:, 1:2] * _GREEN + low[:, 2:] * _BLUE
    for color, low_color in ((red, low[:, :1]), (blue, low[:, 2:])):
        difference = low_color - low_luma
        largest = F.max_pool2d(difference, 3, stride=1, padding=1)
        least = -F.max_pool2d(-difference, 3, stride=1, padding=1)
        if height != low.shape[-2]:
            least, largest = (F.interpolate(bound, (height, width), mode="nearest") for bound in (least, largest))
        color.sub_(luma)
        torch.clamp(color, least, largest, out=color)
    green.copy_(luma).add_(red, alpha=-_RED / _GREEN).add_(blue, alpha=-_BLUE / _GREEN)
    red.add_(luma)
    blue.add_(luma)
    return subpixels


def _smooth(x: Tensor) -> Tensor:
    """Gaussian mean over the px inside the picture (normalised at its borders)."""
    offsets = torch.arange(-_LOCK_RADIUS_PX, _LOCK_RADIUS_PX + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-0.5 * (offsets / _LOCK_SIGMA_PX) ** 2)
    taps = taps / taps.sum()
    channels, pad = x.shape[1], _LOCK_RADIUS_PX
    inside = torch.ones_like(x[:1, :1])
    for shape, padding in (((1, 1, -1, 1), (pad, 0)), ((1, 1, 1, -1), (0, pad))):
        kernel = taps.view(shape)
        weight = F.conv2d(inside, kernel, padding=padding)
        x = F.conv2d(x, kernel.expand(channels, -1, -1, -1), padding=padding, groups=channels) / weight
    return x
