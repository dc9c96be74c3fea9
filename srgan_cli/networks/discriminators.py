"""The networks that distinguish real pictures from generated ones.

Pictures are NCHW, RGB, float in [0, 1]. An output is a logit: above 0 means real. There are three kinds: one output for
the whole picture (`vgg`, the paper's), per patch (`patch`), or per pixel (`unet`).

How they are trained
--------------------
- For the generator's step, the trainer freezes the weights (`requires_grad_(False)`): gradients pass through, and none
  are computed for them.
- `advance()` is called once before each of the discriminator's own steps, and nowhere else. It updates the estimates of
  the spectral norms (Miyato et al. 2018); forward passes never do. So real and generated pictures, the R1 penalty and
  the generator's step all use the same network, and so does a resumed run.
- Every layer can be differentiated twice, as R1 requires.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, NamedTuple, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import SettingsError

DiscriminatorKind: TypeAlias = Literal["vgg", "patch", "unet"]

_SLOPE = 0.2  # of all leaky ReLUs, as in all three papers


class Verdict(NamedTuple):
    """`logits`: (N, 1) or (N, 1, h, w). `features`: the outputs of the intermediate layers, for feature matching."""

    logits: Tensor
    features: list[Tensor]


class Discriminator(nn.Module):
    """Common base of the three kinds.

    Sides of pictures must be multiples of `size_multiple`, and exactly `crop_px` if that is not None.
    """

    size_multiple: int = 8
    crop_px: int | None = None

    def advance(self) -> None:
        """One power iteration for each spectral norm, once before each step of the discriminator (see above)."""
        for module in self.modules():
            if isinstance(module, _SpectralConv2d):
                module.advance()

    def forward(self, pictures: Tensor) -> Verdict:
        """(N, 3, H, W) in [0, 1] -> a verdict. Raises `SettingsError` for unsupported sizes."""
        height, width = pictures.shape[2:]
        if (self.crop_px or height) != height or (self.crop_px or width) != width:
            raise SettingsError(
                f"this vgg discriminator judges only crops of {self.crop_px} px, not {width}×{height}; "
                "where crops grow (small_crop_px), use patch or unet"
            )
        if height % self.size_multiple or width % self.size_multiple:
            raise SettingsError(
                f"discriminators need sides that are multiples of {self.size_multiple} px, not {width}×{height}"
            )
        # In [-1, 1], zero padding is grey, which is neither black nor unusual.
        features = list(self._layers(pictures * 2.0 - 1.0))
        return Verdict(features.pop(), features)

    def _layers(self, x: Tensor) -> Iterator[Tensor]:
        """Each layer's output, the logits last."""
        raise NotImplementedError


def build_discriminator(kind: DiscriminatorKind, channels: int, crop_px: int) -> Discriminator:
    """A discriminator with new weights (from torch's random generator), for crops of `crop_px`.

    `channels` is the width of its first layer: 64 in the papers. Raises `SettingsError` for crops whose sides are not
    multiples of 16 px for `vgg`, of 8 px for the others.
    """
    multiple = 16 if kind == "vgg" else 8
    if crop_px < multiple or crop_px % multiple:
        raise SettingsError(f"the {kind} discriminator needs crops of a multiple of {multiple} px, not {crop_px}")
    if kind == "vgg":
        return VGGDiscriminator(channels, crop_px)
    return PatchDiscriminator(channels) if kind == "patch" else UNetDiscriminator(channels)


class _SpectralConv2d(nn.Conv2d):
    """A convolution whose kernel, as a matrix of outputs × the rest, has spectral norm 1.

    Miyato et al. 2018, eq. 8. torch's own is not used because it updates its estimate at every pass in training mode,
    and computes the norm in half precision under autocast.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2)
        _initialise(self)
        # The estimates of its first singular vectors.
        self.register_buffer("left", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("right", torch.zeros(inputs * kernel**2))
        for _ in range(15):
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """One power iteration (algorithm 1). One is sufficient, since the weights change little from step to step."""
        left, right = cast(Tensor, self.left), cast(Tensor, self.right)
        with torch.autocast(left.device.type, enabled=False):
            matrix = self.weight.flatten(1)
            right.copy_(F.normalize(matrix.T @ left, dim=0))
            left.copy_(F.normalize(matrix @ right, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        # Copies, so that gradients of an earlier pass can still be computed after `advance`.
        left, right = cast(Tensor, self.left).clone(), cast(Tensor, self.right).clone()
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight / torch.dot(left, self.weight.flatten(1) @ right)
        return cast(Tensor, self._conv_forward(x, weight, self.bias))


def _initialise(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, a=_SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=bias)
    _initialise(conv)
    return conv


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu_(x, _SLOPE)  # in place: neither a convolution nor a norm needs its output for the backward pass


class VGGDiscriminator(Discriminator):
    """The paper's: Ledig et al. 2017, section 2.1 and fig. 4, without its last sigmoid.

    Eight 3×3 convolutions, every other one with stride 2, batch norm on all but the first; then a dense layer of 16 ·
    `channels` (1024 at the paper's 64) and one of 1. The dense layer fixes the size of the crops. Because of the batch
    norms an output depends on the whole batch, so real and generated pictures are passed separately.
    """

    size_multiple = 16

    def __init__(self, channels: int, crop_px: int) -> None:
        super().__init__()
        self.crop_px = crop_px
        widths = [channels * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)]
        # A bias before a batch norm has no effect.
        self.convs = nn.ModuleList(
            _conv(inputs, outputs, 3, 1 + place % 2, bias=place == 0)
            for place, (inputs, outputs) in enumerate(zip([3, *widths], widths, strict=False))
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(width) if place else nn.Identity() for place, width in enumerate(widths)
        )
        self.dense = nn.Linear(widths[-1] * (crop_px // 16) ** 2, 16 * channels)
        self.last = nn.Linear(16 * channels, 1)
        for layer in (self.dense, self.last):
            _initialise(layer)

    def _layers(self, x: Tensor) -> Iterator[Tensor]:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = _leaky(norm(conv(x)))  # (N, 3, H, W) -> … -> (N, 8C, H/16, W/16)
            yield x
        x = _leaky(self.dense(x.flatten(1)))  # -> (N, 16C)
        yield x
        yield self.last(x)  # -> (N, 1)


class PatchDiscriminator(Discriminator):
    """A PatchGAN (Isola et al. 2017, section 3.2.2), with spectral norm instead of batch norm: one output per 8×8 px.

    Each has a receptive field of 54×54 px. Three 4×4 convolutions with stride 2: the stride divides the kernel size, so
    all pixels are covered equally often and gradients have no grid pattern. Then 3×3, where the paper has 4×4: this
    keeps outputs centred on their patches and costs half. At 32 channels a crop of 128 px takes 0.15 G multiply-adds,
    0.22 of `compact`'s 64×8. The first and last layers have no spectral norm, as in Real-ESRGAN, so that logits are not
    bounded.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                _conv(3, channels, 4, 2),
                _SpectralConv2d(channels, 2 * channels, 4, 2),
                _SpectralConv2d(2 * channels, 4 * channels, 4, 2),
                _SpectralConv2d(4 * channels, 8 * channels, 3),
            ]
        )
        self.last = _conv(8 * channels, 1, 3)

    def _layers(self, x: Tensor) -> Iterator[Tensor]:
        for conv in self.convs:
            x = _leaky(conv(x))  # (N, 3, H, W) -> … -> (N, 8C, H/8, W/8)
            yield x
        yield self.last(x)  # -> (N, 1, H/8, W/8)


class UNetDiscriminator(Discriminator):
    """A U-Net with spectral norm and one output per pixel: Schönfeld et al. 2020, as in Real-ESRGAN (Wang et al. 2021).

    Downscaling by 4×4 convolutions with stride 2, bilinear upscaling, and additive skip connections. The first and the
    last layer have no spectral norm.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels * factor for factor in (1, 2, 4, 8)]
        steps = list(itertools.pairwise(widths))
        self.first = _conv(3, channels, 3)
        self.down = nn.ModuleList(_SpectralConv2d(narrow, wide, 4, 2) for narrow, wide in steps)
        self.up = nn.ModuleList(_SpectralConv2d(wide, narrow, 3) for narrow, wide in reversed(steps))
        self.smooth = nn.ModuleList(_SpectralConv2d(channels, channels, 3) for _ in range(2))
        self.last = _conv(channels, 1, 3)

    def _layers(self, x: Tensor) -> Iterator[Tensor]:
        passed = [_leaky(self.first(x))]  # (N, 3, H, W) -> (N, C, H, W)
        for conv in self.down:
            passed.append(_leaky(conv(passed[-1])))  # -> … -> (N, 8C, H/8, W/8)
        yield from passed
        x = passed.pop()
        for conv in self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = _leaky(conv(x))  # -> … -> (N, C, H, W)
            yield x
            x = x + passed.pop()
        for conv in self.smooth:
            x = _leaky(conv(x))
            yield x
        yield self.last(x)  # -> (N, 1, H, W)


class WearDiscriminator(Discriminator):
    """Judges the wear of a low picture in patches of 14 px, with one output per 2×2 px: a minimal PatchGAN.

    Its inputs are the fine structure multiplied by eight, without low frequencies, and the local luminance, on which
    noise depends. So it gets little information on content and colour, which it must not use: the two sets have no
    pictures in common. Spectral norm as in `PatchDiscriminator`.
    """

    size_multiple = 2

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [
                _conv(4, channels, 3),
                _SpectralConv2d(channels, 2 * channels, 4, 2),
                _SpectralConv2d(2 * channels, 2 * channels, 3),
            ]
        )
        self.last = _conv(2 * channels, 1, 3)

    def _layers(self, x: Tensor) -> Iterator[Tensor]:
        around = F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
        x = torch.cat([8.0 * (x - around), around.mean(dim=1, keepdim=True)], dim=1)  # (N, 3, H, W) -> (N, 4, H, W)
        for conv in self.convs:
            x = _leaky(conv(x))  # -> (N, C, H, W) -> (N, 2C, H/2, W/2)
            yield x
        yield self.last(x)  # -> (N, 1, H/2, W/2)
