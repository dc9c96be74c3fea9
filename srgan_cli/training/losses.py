"""The loss terms that training minimises, each one scalar per batch.

Pictures are NCHW, RGB, floats in [0, 1]; logits may have any shape. Everything is computed in fp32 (fp64 for fp64
inputs), also under autocast: half-precision tensors are converted to fp32 first. Results are 0-d tensors with their
graph. Each term is a mean over the batch, so averaging the terms of several processes gives the same value as one
process with all their pictures. Terms with an inner mean (`relativistic`, `relative`, `spectrum`) take it over all
processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.imaging.standards import CHROMA
from srgan_cli.networks.discriminators import Verdict
from srgan_cli.networks.features import VGGFeatures
from srgan_cli.networks.layers import luma
from srgan_cli.training_config import Objective, PixelLoss

# Ledig et al. 2017, section 3.2: VGG's features are divided by 12.75, which multiplies their MSE by 0.006.
PAPER_SCALING = 12.75
_ARTIFACT_WINDOW_PX = 7  # Liang et al. 2022: n
_ARTIFACT_ROOT = 5  # Liang et al. 2022: a
_FLAT_WINDOW_PX, _FLAT_STD = 9, 2 / 255
_GRID_PX = 8  # side of a neighbourhood, in low pixels; neighbourhoods overlap by half
SPECTRUM_PX = 32  # side of a window; windows overlap by half
_SPECTRUM_FLOOR = (1 / 255) ** 2  # power of invisible noise: below it, ratios are meaningless


def wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _distance(kind: PixelLoss, a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    return difference.abs().mean() if kind == "l1" else difference.square().mean()


def pixel(kind: PixelLoss, result: Tensor, high: Tensor) -> Tensor:
    """Mean absolute (`l1`) or squared (`mse`: Ledig et al. 2017, eq. 4) difference."""
    return _distance(kind, wide(result), wide(high))


def frequency(result: Tensor, high: Tensor) -> Tensor:
    """L1 between Fourier transforms: the mean over |real| and |imaginary| parts (Cho et al. 2021, MIMO-UNet, eq. 5).

    The transform is orthonormal, so one weight suits crops of any size: a white-noise difference yields 0.7 times its
    `pixel` loss. Published implementations usually do not normalise; multiply their weights by sqrt(H·W).
    """
    spectrum = torch.fft.rfft2(wide(result) - wide(high), norm="ortho")  # linear, so one transform is enough
    return torch.view_as_real(spectrum).abs().mean()


class PerceptualLoss(nn.Module):
    """Distance between two pictures in VGG feature space (Ledig et al. 2017, eq. 5), summed over layers.

    `weights`: one per layer; every layer must be in `features.layers`. `scaling`: `paper` divides features by 12.75
    before the distance is taken; `relative` divides them by the mean absolute feature of the originals in the batch, so
    that a layer's influence depends on its weight and not on the magnitude of its features.
    """

    def __init__(
        self,
        features: VGGFeatures,
        weights: Mapping[str, float],
        distance: PixelLoss = "l1",
        scaling: Literal["relative", "paper"] = "relative",
    ) -> None:
        super().__init__()
        assert set(weights) <= set(features.layers), "every weighted layer must be among those computed"
        self.features = features
        self.weights = dict(weights)
        self.distance: PixelLoss = distance
        self.scaling = scaling

    def forward(self, result: Tensor, high: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Two batches (N, 3, H, W) -> the weighted sum, and each layer's unweighted term, detached."""
        with torch.no_grad():
            wanted = self.features(high)
        found = self.features(result)
        terms = {name: self._term(found[name], wanted[name]) for name in self.weights}
        total = torch.stack([terms[name] * weight for name, weight in self.weights.items()]).sum()
        return total, {name: term.detach() for name, term in terms.items()}

    def _term(self, found: Tensor, wanted: Tensor) -> Tensor:
        if self.scaling == "paper":
            size: Tensor | float = PAPER_SCALING  # a tensor would force a GPU synchronisation
        else:
            size = mean_over_processes(_mean_size(wanted)).clamp(min=1e-8)  # features can be all zero
        # Equal to the distance between divided features, but cheaper.
        if self.distance == "l1":
            return cast(Tensor, _MeanDistance.apply(found, wanted)) / size
        return _distance(self.distance, wide(found), wide(wanted)) / size**2


class _MeanDistance(torch.autograd.Function):
    """The mean absolute difference of two tensors of any dtype; the second one gets no gradient.

    Half-precision features stay in half precision, which halves the memory traffic: conv1_2 has a million values per
    128 px crop. The features have already been rounded, so nothing more is lost; the sum is accumulated in fp32.
    """

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> Tensor:
        difference = found - wanted
        ctx.save_for_backward(difference)
        return _mean_size(difference)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (difference,) = ctx.saved_tensors
        return difference.sign().mul_(gradient / difference.numel()), None


def _mean_size(x: Tensor) -> Tensor:
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    return x.abs().sum(dtype=dtype) / x.numel()


# ---------------------------------------------------------------------------------------------------------- adversarial


def generator_loss(objective: Objective, fake: Tensor, real: Tensor | None = None) -> Tensor:
    """The generator's adversarial loss. `fake`: logits of its results; `real`: logits of originals.

    - nonsaturating: -log D(fake) (Goodfellow et al. 2014, section 3; Ledig et al. 2017, eq. 6, as a mean).
    - relativistic: Wang et al. 2018 (ESRGAN), eq. 2, after Jolicoeur-Martineau 2018; needs `real`. The means are
      taken over all logits of the batch.
    - hinge: -D(fake) (Miyato et al. 2018, eq. 17). Can be negative.
    - least-squares: ½ (D(fake) - 1)² (Mao et al. 2017, eq. 9).
    """
    fake = wide(fake)
    if objective == "relativistic":
        assert real is not None, "the relativistic objective needs the logits of originals"
        return _relativistic(real=fake, fake=wide(real))  # eq. 2 is eq. 1 with real and fake swapped
    if objective == "nonsaturating":
        return F.softplus(-fake).mean()
    return -fake.mean() if objective == "hinge" else (fake - 1.0).square().mean() / 2


def discriminator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss, from its logits of real and generated pictures.

    - nonsaturating: -log D(real) - log(1 - D(fake)) (Goodfellow et al. 2014, eq. 1).
    - relativistic: Wang et al. 2018 (ESRGAN), eq. 1.
    - hinge: max(0, 1 - D(real)) + max(0, 1 + D(fake)) (Miyato et al. 2018, eq. 16).
    - least-squares: ½ (D(real) - 1)² + ½ D(fake)² (Mao et al. 2017, eq. 9).
    """
    real, fake = wide(real), wide(fake)
    if objective == "relativistic":
        return _relativistic(real, fake)
    if objective == "nonsaturating":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if objective == "hinge":
        return F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
    return (real - 1.0).square().mean() / 2 + fake.square().mean() / 2


def _relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """-log s(real - mean(fake)) - log(1 - s(fake - mean(real))), s the sigmoid: ESRGAN, eq. 1."""
    above = real - mean_over_processes(fake.mean())
    below = fake - mean_over_processes(real.mean())
    return F.softplus(-above).mean() + F.softplus(below).mean()


def r1(discriminator: Callable[[Tensor], Verdict], high: Tensor) -> Tensor:
    """½ |gradient of the logit with respect to the real picture|² (Mescheder et al. 2018, eq. 9, without gamma).

    If a picture has K logits, their sum is differentiated and the squared norm is divided by K. For independent logits
    this equals the mean of their individual penalties, so one weight suits all discriminators and crop sizes. When
    computed only every n steps, it needs n times the weight (Karras et al. 2020, section 3.1).
    """
    with torch.autocast(high.device.type, enabled=False):  # squares of small gradients underflow in half precision
        pictures = wide(high).detach().requires_grad_()
        logits = discriminator(pictures).logits
        (gradient,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
        verdicts_per_picture = logits[0].numel()
        return gradient.square().sum(dim=(1, 2, 3)).mean() / (2 * verdicts_per_picture)


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 between the discriminator's features of results and of originals (Wang et al. 2018, pix2pixHD, eq. 4).

    Each layer contributes the mean over its features; layers are summed. The originals' features are detached.
    """
    distances = [_distance("l1", wide(a), wide(b).detach()) for a, b in zip(fake, real, strict=True)]
    return torch.stack(distances).sum()


def artifact(result: Tensor, ema: Tensor, high: Tensor) -> Tensor:
    """LDL (Liang et al. 2022, arXiv:2203.09195, section 3.3): L1 where the residual looks like an artifact.

    `ema` is the result of the generator's moving average. The residual R = sum over channels of |high - result| varies
    strongly between neighbouring pixels where texture is wrong rather than missing. A pixel's weight is therefore
    var(R)^(1/5) over the whole crop, times the variance of R in the 7×7 px around it; it is 0 where `result` is closer
    to the original than `ema`. As in the authors' code, borders are mirrored, variances are unbiased, and gradients
    flow through the weights too.
    """
    result, ema, high = wide(result), wide(ema).detach(), wide(high)
    difference = high - result
    residual = difference.abs().sum(dim=1, keepdim=True)  # (N, 3, H, W) -> (N, 1, H, W)
    ema_residual = (high - ema).abs().sum(dim=1, keepdim=True)
    whole = residual.var(dim=(1, 2, 3), keepdim=True)  # -> (N, 1, 1, 1)
    # The fifth root has an infinite slope at 0; a perfect result must still have a finite gradient.
    weight = (whole + 1e-12) ** (1 / _ARTIFACT_ROOT) * _local_variance(residual, _ARTIFACT_WINDOW_PX)
    weight = torch.where(residual < ema_residual, 0.0, weight)
    return (weight * difference).abs().mean()


def _local_variance(x: Tensor, window_px: int) -> Tensor:
    """(N, 1, H, W) -> (N, 1, H, W): the unbiased variance in a window around each pixel, with mirrored borders."""
    margin = window_px // 2
    padded = F.pad(x, (margin,) * 4, mode="reflect")
    # Subtract each picture's mean first: E[x²] - E[x]² loses small variances to rounding when the mean is large.
    padded = padded - x.mean(dim=(1, 2, 3), keepdim=True).detach()
    mean = F.avg_pool2d(padded, window_px, stride=1)
    mean_of_squares = F.avg_pool2d(padded.square(), window_px, stride=1)
    count = window_px**2
    return (mean_of_squares - mean.square()).clamp(min=0.0) * (count / (count - 1))


def grid(result: Tensor, high: Tensor, scale: int) -> Tensor:
    """Penalises patterns that repeat with every low pixel: the mean error at each sub-pixel position of a low pixel.

    A network that ends in a pixel shuffle computes the `scale`² output pixels of each low pixel with separate filters.
    Under a perceptual loss these tend to produce the same small pattern at every low pixel of a textured area: VGG
    takes it for detail, people see dots. Plausible detail that differs from the original pixel by pixel averages out
    over a neighbourhood of low pixels at each sub-pixel position; the pattern does not. The difference is therefore
    averaged over 8 × 8 low pixels, separately for each position, and the loss is the mean absolute value. It is 0
    where the means agree.
    """
    with torch.autocast(result.device.type, enabled=False):
        places = F.pixel_unshuffle(wide(result) - wide(high), scale)  # (N, 3, H, W) -> (N, 3·scale², h, w)
        reach = min(_GRID_PX, *places.shape[2:])
        return F.avg_pool2d(places, reach, max(1, reach // 2)).abs().mean()


def spectrum(result: Tensor, high: Tensor) -> Tensor:
    """Penalises power that a result has in excess of the original, per frequency: 0 where it has less or the same.

    Dots, hatching and checkerboards drawn by an adversarial generator have their power in a few high frequencies, where
    natural pictures have hardly any (Durall et al. 2020, arXiv:2003.01826, section 3, who compare averages over
    circles). Unlike `grid`, this finds patterns of any period and at any position, since phase is ignored. The
    luminance of both batches (N, 3, H, W) is cut into overlapping windows of 32×32 px, tapered by a Hann window. The
    logarithm of the power (plus that of noise with a standard deviation of one level) is averaged over all windows, so
    that flat areas weigh as much as textured ones. The loss is the excess, in nats, averaged over frequencies.
    """
    with torch.autocast(result.device.type, enabled=False):
        excess = log_power(wide(result)).mean(dim=0) - log_power(wide(high)).mean(dim=0)
        return F.relu(mean_over_processes(excess)).mean()


def log_power(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (K, h, w // 2 + 1): the logarithm of the power at each frequency, for each of K windows.

    The windows are described at `spectrum`. White noise with standard deviation s has a mean power of s². A picture
    smaller than a window is treated as one window.
    """
    luminance = luma(pictures).squeeze(1)
    height, width = (min(SPECTRUM_PX, length) for length in luminance.shape[1:])
    windows = luminance.unfold(1, height, max(1, height // 2)).unfold(2, width, max(1, width // 2)).flatten(0, 2)
    taper = torch.outer(*(torch.hann_window(n, dtype=pictures.dtype, device=pictures.device) for n in (height, width)))
    windows = (windows - windows.mean(dim=(1, 2), keepdim=True)) * taper
    power = torch.view_as_real(torch.fft.rfft2(windows)).square().sum(dim=-1) / taper.square().sum()
    return (power + _SPECTRUM_FLOOR).log()


def chroma(result: Tensor, high: Tensor) -> Tensor:
    """L1 between the chroma channels Cb and Cr of BT.601 (full range, as in JPEG); luminance is ignored.

    An adversarial generator invents texture, and in photographs texture is almost entirely luminance. Invented colour
    shows as coloured specks, most visibly around black letters.
    """
    with torch.autocast(result.device.type, enabled=False):  # rounding in half precision would look like colour
        difference = wide(result) - wide(high)
        weights = difference.new_tensor(CHROMA)
        return torch.einsum("cd,ndhw->nchw", weights, difference).abs().mean()


def flat(result: Tensor, high: Tensor) -> Tensor:
    """L1 where the original is flat, averaged over the crop: suppresses grain on walls, skies and paper.

    A pixel's weight is exp(-(s / 2 levels)²), where s is the standard deviation of the original's luminance in the
    9×9 px around it: 1 on paper, 0.4 at 2 levels, nearly 0 in texture. The loss is 0 for equal pictures.
    """
    result, high = wide(result), wide(high)
    luminance = luma(high)
    quiet = torch.exp(-_local_variance(luminance, _FLAT_WINDOW_PX) / _FLAT_STD**2)
    return (quiet * (result - high)).abs().mean()


def diversity(one: Tensor, other: Tensor) -> Tensor:
    """Penalises similar results for the same low pictures with different noise.

    This is the mode-seeking term of Mao et al. 2019 (arXiv:1903.05628), eq. 2, inverted: the mean over pictures of
    1 / (d + 1 / 255), where d is the L1 distance between the two results. The distance between the noise inputs is
    omitted, since it is nearly constant for white noise. The term is 255 for equal results and 64 at a distance of
    three levels. Its slope falls with the square of the distance, so it acts mainly while the noise is still ignored.
    """
    apart: Tensor = (wide(one) - wide(other)).abs().mean((1, 2, 3))
    return (1 / (apart + 1 / 255)).mean()


def consistency(result: Tensor, high: Tensor, scale: int) -> Tensor:
    """L1 between the result and the original, both downscaled by `scale` (bicubic).

    If the network's input was downscaled bicubically, this is the difference to the input. If it was degraded as well,
    the result is compared with the picture before the degradation.
    """
    with torch.autocast(result.device.type, enabled=False):  # downscaling is a matrix product
        return _distance("l1", bicubic_down(wide(result), scale), bicubic_down(wide(high), scale))


# -------------------------------------------------------------------------------------------------------- all processes


_alone = False


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside this context, `mean_over_processes` returns the local value: for code that not all processes run."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with gradients to each of them; in a single process, the tensor itself.

    Used for quantities inside a loss that must be the same in all processes. The caller then averages the gradients
    over processes (`processes.average_gradients`), like the losses. All processes must call this in the same order,
    forward and backward; otherwise they deadlock.
    """
    if _alone or not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    return _MeanOverProcesses.apply(value)  # type: ignore[no-any-return]


class _MeanOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _averaged(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # The mean is part of every process's loss, so the gradients of all processes flow back through it.
        return _averaged(gradient)


def _averaged(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()
