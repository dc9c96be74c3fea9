"""Learned wear: a small network that makes low pictures like those of a particular camera, scanner or film.

`training.adaptation` trains it on worn pictures without originals; this module applies it. Its steps follow the order
in which wear occurs: a blur with a learned kernel; a residual network for the rest (tone, halos, aliasing); grain with
a learned spectrum and a strength that depends on the level; and finally the codecs found in the worn pictures' files.
Initially it is bicubic downscaling with noise of one level.

The residual network does not see the grain: if it could place noise wherever there is texture, it would soon scramble
texture in order to imitate a blur.

Wear is random: one high picture has many low ones. So every crop has a seed, for its grain and for its *code*, a few
normally distributed numbers that select blur and strengths, as these vary between the pictures of a set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.checking import check
from srgan_cli.dataset.codecs import BLOCK_PX, Compression, all_through_codecs, mapper
from srgan_cli.networks.layers import luma

GRAIN = 4  # channels of the input noise: one per colour, and one for all
CODE = 4  # numbers that distinguish one picture's wear from another's
_KERNELS = 4  # number of blurs to choose from
_QUICK = 10.0  # factor on logarithms, so that they change at an adequate speed at the learning rate of the others
_SHARP_PX = 0.3  # initial standard deviation of the blur: almost none
_GRAIN_PX = 7  # side of the grain's kernel
_LEVEL = 1 / 255


@dataclass(frozen=True)
class WearConfig:
    """`blur_px` is the side of the blur's kernel, in px of the low picture."""

    scale: int = 4
    features: int = 16
    blocks: int = 2
    blur_px: int = 9

    def __post_init__(self) -> None:
        bounds = {"scale": (2, 16), "features": (1, 256), "blocks": (0, 32), "blur_px": (1, 33)}
        for name, (least, most) in bounds.items():
            value = getattr(self, name)
            fits = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
            check(fits, f"{name} of a wearer must be a whole number from {least} to {most}, not {value!r}")
        check(self.blur_px % 2 == 1, f"blur_px of a wearer must be odd, not {self.blur_px}")


class RandomInputs(NamedTuple):
    """The random part of a low picture: standard normal numbers.

    `code` (N, CODE) for the whole picture, `grain` (N, GRAIN, h + 6, w + 6) for each position of the low one and a
    margin.
    """

    code: Tensor
    grain: Tensor


class Wear(NamedTuple):
    """`worn`: low pictures (N, 3, h, w), neither clipped nor compressed; `residual`: what its network added to them."""

    worn: Tensor
    residual: Tensor


def without_colours(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> the same without colours, as `pictures.without_colours` has it, neither rounded nor clipped."""
    return luma(pictures).expand_as(pictures)


def random_inputs(seeds: Sequence[int], height: int, width: int, device: torch.device) -> RandomInputs:
    """For low pictures of `height` × `width` px, one per seed. Drawn on the host, so that devices agree."""
    margin = _GRAIN_PX - 1
    codes, grains = [], []
    for seed in seeds:
        source = torch.Generator().manual_seed(seed)
        codes.append(torch.randn(CODE, generator=source))
        grains.append(torch.randn(GRAIN, height + margin, width + margin, generator=source))
    return RandomInputs(torch.stack(codes).to(device), torch.stack(grains).to(device))


class Wearer(nn.Module):
    """From a high picture to a worn low picture, before any codec.

    Everything but the residual network is computed in fp32, even under autocast, since one level is only 1/255.
    """

    def __init__(self, config: WearConfig) -> None:
        super().__init__()
        self.config, self.scale = config, config.scale
        features = config.features
        # Gaussians of any orientation, by the root of their covariance, [[a, 0], [c, b]]. Mixtures of them approximate
        # most blurs, and sixteen numbers are learned quickly.
        self.blur = nn.Parameter(
            torch.tensor([math.log(_SHARP_PX) / _QUICK] * 2 + [0.0]).repeat(_KERNELS, 1)
            + 1e-3 * torch.randn(_KERNELS, 3)
        )
        self.kernel_choice = nn.Parameter(0.1 * torch.randn(_KERNELS, CODE))
        self.grain = nn.Conv2d(GRAIN, 3, _GRAIN_PX, bias=False)
        self.grain_by_level = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 1, 1))
        self.grain_strength = nn.Parameter(torch.zeros(1))
        self.grain_by_code = nn.Parameter(0.01 * torch.randn(CODE))
        self.head = nn.Conv2d(3 + config.scale**2, features, 3, padding=1, padding_mode="replicate")
        self.body = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(features, features, 3, padding=1, padding_mode="replicate"),
                nn.LeakyReLU(0.2),
                nn.Conv2d(features, features, 3, padding=1, padding_mode="replicate"),
            )
            for _ in range(config.blocks)
        )
        self.tail = nn.Conv2d(features, 3, 3, padding=1, padding_mode="replicate")
        self._begin_at_identity()

    def _begin_at_identity(self) -> None:
        with torch.no_grad():
            self.grain.weight.zero_()
            for colour in range(3):
                self.grain.weight[colour, colour, _GRAIN_PX // 2, _GRAIN_PX // 2] = _LEVEL
                self.grain.weight[colour, 3, _GRAIN_PX // 2, _GRAIN_PX // 2] = _LEVEL / 2
            for layer in (self.grain_by_level[2], self.tail):
                assert isinstance(layer, nn.Conv2d)
                assert layer.bias is not None
                layer.weight.zero_()
                layer.bias.zero_()

    def forward(self, low: Tensor, high: Tensor, random: RandomInputs) -> Wear:
        """`low`: bicubic, (N, 3, h, w), of `high` (N, 3, h·scale, w·scale), both in [0, 1]."""
        with torch.autocast(low.device.type, enabled=False):
            low, high = low.float(), high.float()
            blurred = self._blurred(low, random.code)
            detail = F.pixel_unshuffle(high.mean(dim=1, keepdim=True), self.scale) - low.mean(dim=1, keepdim=True)
        x = self.head(torch.cat([blurred, detail], dim=1))
        for block in self.body:
            x = x + block(F.leaky_relu(x, 0.2))
        residual: Tensor = self.tail(F.leaky_relu(x, 0.2))
        with torch.autocast(low.device.type, enabled=False):
            smooth = blurred + residual.float()
            return Wear(smooth + self._grain(smooth, random), residual.float())

    def kernels(self) -> Tensor:
        """(K, B, B), each with sum 1, so that colours do not change."""
        place = torch.arange(self.config.blur_px, device=self.blur.device) - self.config.blur_px // 2.0
        a, b, c = (self.blur[:, i, None, None] * _QUICK for i in range(3))
        along = place[None, None, :] * torch.exp(-a)
        across = (place[None, :, None] - c * along) * torch.exp(-b)
        kernels = torch.exp(-(along.square() + across.square()) / 2)
        return kernels / kernels.sum(dim=(1, 2), keepdim=True)

    def _blurred(self, low: Tensor, code: Tensor) -> Tensor:
        chosen = torch.softmax(code @ self.kernel_choice.T, dim=1)  # (N, K)
        each = torch.einsum("nk,kyx->nyx", chosen, self.kernels()).repeat_interleave(3, dim=0)[:, None]  # (3N, 1, B, B)
        count, _, height, width = low.shape
        padded = F.pad(low, (self.config.blur_px // 2,) * 4, mode="replicate")
        planes = padded.reshape(1, 3 * count, *padded.shape[2:])
        return F.conv2d(planes, each, groups=3 * count).reshape(count, 3, height, width)

    def _grain(self, level: Tensor, random: RandomInputs) -> Tensor:
        of_picture: Tensor = self.grain_strength + random.code @ self.grain_by_code
        strength = self.grain_by_level(level) + _QUICK * of_picture[:, None, None, None]
        grain: Tensor = self.grain(random.grain)
        return torch.exp(strength.clamp(-5.0, 5.0)) * grain


# ------------------------------------------------------------------------------------------------------ through codecs


@dataclass(frozen=True)
class FileSign:
    """How a worn picture's file was compressed: the fields of `Compression`, without the crop's position."""

    codec: str
    quality: int
    halved_chroma: bool

    def __post_init__(self) -> None:
        check(self.codec in ("JPEG", "WEBP"), f"a wearer knows JPEG and WEBP, not {self.codec!r}")
        whole = isinstance(self.quality, int) and not isinstance(self.quality, bool)
        check(whole and 1 <= self.quality <= 100, f"a quality goes from 1 to 100, not {self.quality!r}")
        check(isinstance(self.halved_chroma, bool), "halved_chroma is true or false")


def drawn_compression(signs: Sequence[FileSign | None], source: np.random.Generator) -> Compression | None:
    """The compression of a random one of the worn pictures' files, with a random grid position; None if that file shows
    none."""
    if not signs:
        return None
    sign = signs[int(source.integers(len(signs)))]
    x, y = source.integers(BLOCK_PX, size=2).tolist()
    if sign is None:
        return None
    return Compression("WEBP" if sign.codec == "WEBP" else "JPEG", sign.quality, sign.halved_chroma, (x, y))


def compressed(worn: Tensor, values: Sequence[Compression | None]) -> Tensor:
    """(N, 3, h, w) -> the same, clipped, in 8 bits, and through each one's codec; with identity gradients (the
    straight-through estimator of Bengio et al. 2013, arXiv:1308.3432)."""
    with torch.no_grad():
        levels = (worn.float().clamp(0, 1) * 255.0 + 0.5).floor()
        chosen = [i for i, value in enumerate(values) if value is not None]
        if chosen:
            pixels = levels[chosen].to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            with mapper(len(chosen)) as mapped:
                results = all_through_codecs(list(pixels), [value for value in values if value is not None], mapped)
            levels[chosen] = torch.from_numpy(np.stack(results)).to(levels.device).permute(0, 3, 1, 2).float()
        difference = levels / 255.0 - worn
    return worn + difference
