"""The networks that make a small picture large.

Tensors are NCHW, RGB, float in [0, 1], here and everywhere past `imaging`. `low` is the small picture, `high` the large
one. The paper keeps `high` in [-1, 1]; we keep both sides in [0, 1]: an affine map away, and one mistake fewer.

Inference contract: `generator.phases(low)` is the output before its last pixel shuffle and `generator.shuffle` that
shuffle's factor, so that whoever runs the network can quantise before it shuffles. `forward` does both:

    phases(low)    # (N, 3, H, W) -> (N, 3·r², H·scale/r, W·scale/r), r = shuffle, in the dtype of `low`
    forward(low)   # (N, 3, H, W) -> (N, 3, H·scale, W·scale)

`low` is fp32 whatever the dtype of the weights: `generator.to(torch.bfloat16)` makes the convolutions run in bf16, and
what decides the last bits of a pixel (the final addition, or the last convolution of a network without one) stays fp32.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import WeightsError

# A layer for the receptive field: (kernel side, its resolution as a multiple of the low picture's).
Layer: TypeAlias = tuple[int, int]


def halo_px(layers: Iterable[Layer]) -> int:
    """How far, in low-resolution px, an output pixel sees from the pixel it lies in.

    A kernel of side k reaches (k - 1) / 2 px of its own resolution. Going down one pixel shuffle of r, a reach of n px
    becomes ceil(n / r); because ceil(ceil(a) / r) = ceil(a / r), one rounding at the end gives the exact value.
    """
    return math.ceil(sum(Fraction(kernel // 2, resolution) for kernel, resolution in layers))


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise WeightsError(message)


def _check_whole(config: object, bounds: Mapping[str, tuple[int, int]]) -> None:
    # The values may come from a file somebody else made, so their types are checked as well.
    for name, (least, most) in bounds.items():
        value = getattr(config, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        _check(
            whole and least <= value <= most,
            f"{name} must be a whole number between {least} and {most}, not {value!r}",
        )


@dataclass(frozen=True)
class SRResNetConfig:
    """The paper's generator has 64 features, 16 blocks and batch norm. Without the latter it trains better (EDSR)."""

    scale: int = 4
    features: int = 64
    blocks: int = 16
    batch_norm: bool = False

    def __post_init__(self) -> None:
        _check_whole(self, {"scale": (2, 8), "features": (1, 512), "blocks": (0, 256)})
        _check(self.scale in (2, 3, 4, 8), f"srresnet enlarges 2, 3, 4 or 8 times, not {self.scale}")
        _check(isinstance(self.batch_norm, bool), f"batch_norm must be true or false, not {self.batch_norm!r}")


@dataclass(frozen=True)
class CompactConfig:
    """Everything happens at low resolution, and the network only adds to a bilinear enlargement."""

    scale: int = 4
    features: int = 64
    blocks: int = 8

    def __post_init__(self) -> None:
        _check_whole(self, {"scale": (1, 16), "features": (1, 512), "blocks": (0, 256)})


Config: TypeAlias = SRResNetConfig | CompactConfig


class Generator(nn.Module):
    """What every network that enlarges offers; see the module's docstring for `phases` and `shuffle`.

    `halo_px` is the radius of the receptive field in low-resolution px, or None where it is unbounded or not known.
    """

    architecture: str
    scale: int
    halo_px: int | None
    shuffle: int

    def phases(self, low: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, low: Tensor) -> Tensor:
        return F.pixel_shuffle(self.phases(low), self.shuffle)


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


@torch.no_grad()
def _initialise(network: nn.Module, quiet: Iterable[nn.Conv2d]) -> None:
    """He et al. 2015 (eq. 15, for the PReLU's slope of 1/4); `quiet` layers start ten times smaller.

    The last layer of a residual branch is quiet, so that a deep network starts near the identity and stands a high
    learning rate.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.25, nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for conv in quiet:
        conv.weight.mul_(0.1)


class _SinglePrecisionConv2d(nn.Conv2d):
    """A convolution that stays in fp32 (or fp64) when the network around it goes to half precision.

    It makes the pixel itself: with no residual to add to, a bf16 result would be off by up to one step of 8 bits.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _SinglePrecisionConv2d:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if moved.dtype not in (torch.float16, torch.bfloat16):
                return moved
            return torch.empty_like(moved, dtype=tensor.dtype).copy_(tensor)  # moved's device and memory format

        return cast("_SinglePrecisionConv2d", super()._apply(keep, recurse))  # type: ignore[no-untyped-call]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Module's own name
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class _PaperBlock(nn.Module):
    """Conv – (BN) – PReLU – conv – (BN) – sum (fig. 4). The PReLU has one slope, as is usual for this network."""

    def __init__(self, features: int, batch_norm: bool) -> None:
        super().__init__()
        self.conv1 = _conv(features, features, 3)
        self.norm1 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()
        self.act = nn.PReLU()
        self.conv2 = _conv(features, features, 3)
        self.norm2 = nn.BatchNorm2d(features) if batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))
        return y.add_(x)  # in place: neither a convolution nor a batch norm needs its output for the backward pass


class _Enlarging(nn.Module):
    """Conv – pixel shuffle – PReLU.

    The PReLU has a single slope, so it commutes with the shuffle; before it, `fold` can take the shuffle away.
    """

    def __init__(self, features: int, factor: int) -> None:
        super().__init__()
        self.conv = _conv(features, features * factor**2, 3)
        self.act = nn.PReLU()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.act(self.conv(x)), self.factor)  # (N, F, H, W) -> (N, F, H·factor, W·factor)


class SRResNet(Generator):
    """The generator of Ledig et al. 2017 (arXiv:1609.04802), fig. 4.

    Its halo is 39.5 px at the paper's size and scale 4, that is 40. As made, it ends in a convolution at full
    resolution, so `shuffle` is 1; `fold` moves that convolution before the last shuffle.
    """

    architecture = "srresnet"

    def __init__(self, config: SRResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = config.scale
        self.shuffle = 1
        factors = (3,) if config.scale == 3 else (2,) * (config.scale.bit_length() - 1)
        features = config.features
        self.head = _conv(3, features, 9)
        self.head_act = nn.PReLU()
        self.body = nn.ModuleList(_PaperBlock(features, config.batch_norm) for _ in range(config.blocks))
        self.fuse = _conv(features, features, 3)
        self.fuse_norm = nn.BatchNorm2d(features) if config.batch_norm else nn.Identity()
        self.up = nn.ModuleList(_Enlarging(features, factor) for factor in factors)
        self.tail: nn.Conv2d = _SinglePrecisionConv2d(features, 3, 9, padding=4)
        self.halo_px = halo_px(
            [
                (9, 1),
                *[(3, 1)] * (2 * config.blocks + 1),
                *[(3, math.prod(factors[:stage])) for stage in range(len(factors))],
                (9, config.scale),
            ]
        )
        quiet = [] if config.batch_norm else [cast(_PaperBlock, block).conv2 for block in self.body]
        _initialise(self, [*quiet, self.tail])
        nn.init.constant_(cast(nn.Parameter, self.tail.bias), 0.5)  # mid grey: the 0 of the paper's [-1, 1]

    def phases(self, low: Tensor) -> Tensor:
        h = self.head_act(self.head(low.to(self.head.weight.dtype)))  # (N, 3, H, W) -> (N, F, H, W)
        x = h
        for block in self.body:
            x = block(x)
        x = h + self.fuse_norm(self.fuse(x))
        for stage in self.up:
            x = stage(x)  # (N, F, H, W) -> (N, F, H·scale, W·scale); folded, the last one (N, F·r², H·scale/r, …)
        y: Tensor = self.tail(x)
        return y.to(low.dtype)


class _QuickPReLU(torch.autograd.Function):
    """PReLU with one slope per feature, whose backward pass is four times as fast on a CPU as PyTorch's.

    That one takes as long as a 3×3 convolution there: a fifth of a training step. (At exactly 0 the gradient is that of
    the positive side.)
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope.to(x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, slope = ctx.saved_tensors
        negative = torch.ops.aten.threshold_backward(gradient, -x, 0)  # the gradient where x < 0, else 0
        to_x = torch.addcmul(gradient, negative, (slope - 1.0).to(x.dtype).view(1, -1, 1, 1))
        to_slope = (negative * x).sum((0, 2, 3), dtype=torch.float32)
        return to_x, to_slope.to(slope.dtype)


class _PReLU(nn.PReLU):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Module's own name
        if input.device.type == "cpu" and torch.is_grad_enabled() and self.weight.requires_grad:
            return cast(Tensor, _QuickPReLU.apply(input, self.weight))
        return super().forward(input)


class _CompactBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = _conv(features, features, 3)
        self.act = _PReLU(features)
        self.conv2 = _conv(features, features, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.act(self.conv1(x)))
        return y.add_(x)  # in place: a convolution does not need its output for the backward pass


def bilinear_phases(low: Tensor, scale: int) -> Tensor:
    """Bilinear enlargement (`align_corners=False`) by a whole number, before its pixel shuffle.

    Each of the scale² phases is a fixed mixture of a pixel and its neighbours, with the border repeated; so it needs no
    high-resolution picture. (N, C, H, W) -> (N, C·scale², H, W), exact in the dtype of `low`: on CUDA as `lerp`s, for
    a convolution would round to TF32 there; elsewhere as the fixed 3×3 convolution that it is, whose result has the
    memory format of the other convolutions, so that adding it to theirs is one pass over both.
    """
    shifts = [(phase + 0.5) / scale - 0.5 for phase in range(scale)]  # of a phase from its pixel's centre, in low px
    padded = F.pad(low, (1, 1, 1, 1), mode="replicate")  # (N, C, H, W) -> (N, C, H+2, W+2)
    if not low.is_cuda:
        # One picture per channel would be a grouped convolution, which is slow: a kernel of mostly zeros is not.
        with torch.autocast(low.device.type, enabled=False):
            return F.conv2d(padded, _bilinear_kernel(scale, low.shape[1]).to(low))
    above, middle, below = padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]
    rows = torch.stack([torch.lerp(middle, above if t < 0 else below, abs(t)) for t in shifts], dim=2)
    left, middle, right = rows[..., :-2], rows[..., 1:-1], rows[..., 2:]  # rows: (N, C, scale, H, W+2)
    grid = torch.stack([torch.lerp(middle, left if t < 0 else right, abs(t)) for t in shifts], dim=3)
    return grid.flatten(1, 3)  # (N, C, scale, scale, H, W) -> (N, C·scale², H, W)


@functools.cache
def _bilinear_kernel(scale: int, channels: int) -> Tensor:
    """(channels·scale², channels, 3, 3) in fp64: what each phase takes of its pixel's 3×3 neighbourhood."""
    with torch.inference_mode(False):  # it is kept, and must serve training after inference
        taps = torch.zeros(scale, 3, dtype=torch.float64)
        for phase in range(scale):
            shift = (phase + 0.5) / scale - 0.5
            taps[phase, 1] = 1.0 - abs(shift)
            taps[phase, 0 if shift < 0 else 2] += abs(shift)
        phases = torch.einsum("ai,bj->abij", taps, taps).flatten(0, 1)  # (scale², 3, 3)
        same = torch.eye(channels, dtype=torch.float64)
        return torch.einsum("cd,pij->cpdij", same, phases).flatten(0, 1)


def not_finite(x: Tensor) -> Tensor:
    """(N, 1, 1, 1): 0 for each picture of finite numbers, NaN for others. Added to a result that was clipped since, it
    keeps an overflow from passing for white or black."""
    total = x.float().sum((1, 2, 3), keepdim=True)
    return total - total


class Compact(Generator):
    """3×3 convolutions at low resolution, added to a bilinear enlargement; one pixel shuffle at the very end.

    The residual blocks are those of EDSR (Lim et al. 2017), with a PReLU slope per feature.
    """

    architecture = "compact"

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        self.scale = self.shuffle = config.scale
        features = config.features
        self.head = _conv(3, features, 3)
        self.body = nn.ModuleList(_CompactBlock(features) for _ in range(config.blocks))
        self.fuse = _conv(features, features, 3)
        self.tail = _conv(features, 3 * config.scale**2, 3)
        # The longest path goes through every block; the bilinear one reaches a single px.
        self.halo_px = max(halo_px([(3, 1)] * (2 * config.blocks + 3)), 1)
        _initialise(self, [*(cast(_CompactBlock, block).conv2 for block in self.body), self.tail])

    def phases(self, low: Tensor) -> Tensor:
        h = self.head(low.to(self.head.weight.dtype))  # (N, 3, H, W) -> (N, F, H, W)
        x = h
        for block in self.body:
            x = block(x)
        x = self.fuse(x).add_(h)
        del h  # a quarter of the peak: the last step makes large fp32 tensors
        x = self.tail(x)  # (N, F, H, W) -> (N, 3·scale², H, W)
        return bilinear_phases(low, self.scale).add_(x)


_ARCHITECTURES: Mapping[str, tuple[type[Config], Callable[..., Generator]]] = {
    "srresnet": (SRResNetConfig, SRResNet),
    "compact": (CompactConfig, Compact),
}


def build(architecture: str, config: Mapping[str, object]) -> Generator:
    """A generator with fresh weights, of an architecture given by name and settings given as plain values.

    Raises `WeightsError` on a name or a setting that there is not, or a value out of range.
    """
    known = _ARCHITECTURES.get(architecture)
    if known is None:
        raise WeightsError(f"there is no architecture {architecture!r}; there are {', '.join(_ARCHITECTURES)}")
    config_type, make = known
    names = {field.name for field in dataclasses.fields(config_type)}
    strange = sorted(str(name) for name in set(config) - names)
    _check(not strange, f"{architecture} has no setting {', '.join(map(repr, strange))}")
    return make(config_type(**config))  # type: ignore[arg-type]  # the dataclass checks its values


def fold(generator: Generator) -> Generator:
    """A copy for inference, in eval mode and without gradients, that computes the same with less work.

    Batch norms go into the convolutions before them. SRResNet's 9×9 convolution at full resolution, its slowest layer,
    becomes a 5×5 one before the last pixel shuffle: for ×2, 64 → 3 at (2H, 2W) becomes 256 → 12 at (H, W).
    """
    folded = copy.deepcopy(generator).requires_grad_(False)
    if isinstance(folded, SRResNet) and folded.shuffle == 1:
        for block in cast("Iterable[_PaperBlock]", folded.body):
            block.norm1 = _fold_norm(block.conv1, block.norm1)
            block.norm2 = _fold_norm(block.conv2, block.norm2)
        folded.fuse_norm = _fold_norm(folded.fuse, folded.fuse_norm)
        last = cast(_Enlarging, folded.up[-1])
        folded.tail, folded.shuffle = _before_shuffle(folded.tail, last.factor), last.factor
        last.factor = 1
    return folded.eval().requires_grad_(False)


def _fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Identity:
    """Put an eval-mode batch norm (Ioffe & Szegedy 2015, alg. 2) into the convolution before it, in fp64."""
    if isinstance(norm, nn.BatchNorm2d):
        mean, variance = cast(Tensor, norm.running_mean).double(), cast(Tensor, norm.running_var).double()
        gain = norm.weight.double() / torch.sqrt(variance + norm.eps)
        bias = cast(Tensor, conv.bias)
        bias.copy_((bias.double() - mean) * gain + norm.bias.double())
        conv.weight.copy_(conv.weight.double() * gain[:, None, None, None])
    return nn.Identity()


def _before_shuffle(conv: nn.Conv2d, factor: int) -> nn.Conv2d:
    """The convolution before a pixel shuffle of `factor` that, shuffled after it, equals `conv` after the shuffle.

    Output phase p at tap u of the high-resolution kernel reads phase (u + p) mod factor of low-resolution neighbour
    (u + p) div factor. So the kernel, shifted by p inside a window of whole low-resolution pixels and cut into
    phases, is the new kernel of that phase. Zero padding stays zero padding, because the PReLU maps 0 to 0.
    """
    reach = conv.kernel_size[0] // 2
    new_reach = -(-reach // factor)
    window = (2 * new_reach + 1) * factor

    def margins(phase: int) -> tuple[int, int]:
        before = factor * new_reach - reach + phase
        return before, window - conv.kernel_size[0] - before

    shifted = [
        F.pixel_unshuffle(F.pad(conv.weight, (*margins(column), *margins(row))), factor)
        for row in range(factor)
        for column in range(factor)
    ]
    merged = _SinglePrecisionConv2d(
        conv.in_channels * factor**2,
        conv.out_channels * factor**2,
        2 * new_reach + 1,
        padding=new_reach,
        device="meta",  # its own weights are not wanted, and would roll dice
    )
    merged.weight = nn.Parameter(torch.stack(shifted, dim=1).flatten(0, 1))  # (3, r², F·r², 5, 5) -> (3·r², …)
    merged.bias = nn.Parameter(cast(Tensor, conv.bias).repeat_interleave(factor**2))
    return merged
