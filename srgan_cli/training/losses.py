"""What training minimises: each term as one number per batch.

Pictures are NCHW, RGB, float in [0, 1], logits of any shape. Everything is computed in fp32 (fp64 where it is given),
under autocast too: half-precision tensors are widened first. Results are 0-d tensors with their graph. A term is a mean
over the batch, so that the mean of several processes' terms is that of one process with all their pictures; where a
term needs a mean inside (`relativistic`, `relative`), it is taken over all processes.
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
from srgan_cli.networks.discriminators import Verdict
from srgan_cli.networks.features import VGGFeatures
from srgan_cli.training_config import Objective, PixelLoss

# Ledig et al. 2017, section 3.2: VGG's features are divided by 12.75, which multiplies their MSE by 0.006.
PAPER_SCALING = 12.75
_ARTIFACT_WINDOW_PX = 7  # Liang et al. 2022: n
_ARTIFACT_ROOT = 5  # Liang et al. 2022: a
_LUMA = (0.299, 0.587, 0.114)
_CHROMA = ((-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_FLAT_WINDOW_PX, _FLAT_STD = 9, 2 / 255
_GRID_PX = 8  # side of a neighbourhood, in low pixels; half of it from one to the next
SPECTRUM_PX = 32  # side of a window; half of it from one to the next
_SPECTRUM_FLOOR = (1 / 255) ** 2  # power of noise that nobody sees: below it, ratios mean nothing


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

    The transform is orthonormal, so that a weight holds for crops of any size: white differences count for 0.7 times as
    much as in `pixel`. The field's code does not normalise; its weights are to be multiplied by sqrt(H·W).
    """
    spectrum = torch.fft.rfft2(wide(result) - wide(high), norm="ortho")  # linear, so one transform does for both
    return torch.view_as_real(spectrum).abs().mean()


class PerceptualLoss(nn.Module):
    """How far apart two pictures are in VGG's features (Ledig et al. 2017, eq. 5), layer by layer.

    `weights`: of each layer's term; all must be among the layers of `features`. `scaling`: `paper` divides features by
    12.75 before the distance; `relative` divides them by the mean absolute feature of the originals in the batch, so
    that layers weigh what their weights say, whatever the size of their numbers.
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
        """Two batches (N, 3, H, W) -> the weighted sum, and each layer's own term without weight and graph."""
        with torch.no_grad():
            wanted = self.features(high)
        found = self.features(result)
        terms = {name: self._term(found[name], wanted[name]) for name in self.weights}
        total = torch.stack([terms[name] * weight for name, weight in self.weights.items()]).sum()
        return total, {name: term.detach() for name, term in terms.items()}

    def _term(self, found: Tensor, wanted: Tensor) -> Tensor:
        if self.scaling == "paper":
            size: Tensor | float = PAPER_SCALING  # not a tensor: a GPU would be waited for
        else:
            size = mean_over_processes(_mean_size(wanted)).clamp(min=1e-8)  # black pictures have no features
        # = the distance of divided features, but cheaper
        if self.distance == "l1":
            return cast(Tensor, _MeanDistance.apply(found, wanted)) / size
        return _distance(self.distance, wide(found), wide(wanted)) / size**2


class _MeanDistance(torch.autograd.Function):
    """The mean absolute difference of two tensors of any dtype, of which the second is fixed.

    Features of half precision stay so, which halves what has to pass through memory: at conv1_2 there are a million
    numbers for each crop of 128 px. Their rounding is part of them already; the sum is in fp32.
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
    """How far the generator is from deceiving: `fake` are the logits of its results, `real` those of originals.

    - nonsaturating: -log D(fake) (Goodfellow et al. 2014, section 3; Ledig et al. 2017, eq. 6, as a mean).
    - relativistic: Wang et al. 2018 (ESRGAN), eq. 2, after Jolicoeur-Martineau 2018; needs `real`. The means are
      over all of the batch's verdicts.
    - hinge: -D(fake) (Miyato et al. 2018, eq. 17). Can be negative.
    - least-squares: ½ (D(fake) - 1)² (Mao et al. 2017, eq. 9).
    """
    fake = wide(fake)
    if objective == "relativistic":
        assert real is not None, "a relativistic generator is judged beside originals"
        return _relativistic(real=fake, fake=wide(real))  # eq. 2 is eq. 1 with the sides changed
    if objective == "nonsaturating":
        return F.softplus(-fake).mean()
    return -fake.mean() if objective == "hinge" else (fake - 1.0).square().mean() / 2


def discriminator_loss(objective: Objective, real: Tensor, fake: Tensor) -> Tensor:
    """How badly real and made pictures are told apart, from their logits.

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
    """½ |gradient of the verdict with respect to the real picture|² (Mescheder et al. 2018, eq. 9, without its gamma).

    Where a picture gets K verdicts, their sum is differentiated and the square divided by K: for independent verdicts
    this is the mean of their own penalties, so that a weight holds for all discriminators and sizes of crops. Taken
    every n steps, it should weigh n times as much (Karras et al. 2020, section 3.1).
    """
    with torch.autocast(high.device.type, enabled=False):  # squares of small gradients: not for half precision
        pictures = wide(high).detach().requires_grad_()
        logits = discriminator(pictures).logits
        (gradient,) = torch.autograd.grad(logits.sum(), pictures, create_graph=True)
        verdicts_per_picture = logits[0].numel()
        return gradient.square().sum(dim=(1, 2, 3)).mean() / (2 * verdicts_per_picture)


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 between what the discriminator's layers make of results and of originals (Wang et al. 2018, pix2pixHD, eq. 4).

    The sum over layers of each one's mean. Originals' features count as given.
    """
    distances = [_distance("l1", wide(ours), wide(theirs).detach()) for ours, theirs in zip(fake, real, strict=True)]
    return torch.stack(distances).sum()


def artifact(result: Tensor, ema: Tensor, high: Tensor) -> Tensor:
    """LDL (Liang et al. 2022, arXiv:2203.09195, section 3.3): L1 where the residual looks like an artifact.

    `ema` is the result of the generator's moving average. The residual R = sum over channels of |high - result|
    varies much from pixel to pixel where texture is wrong rather than missing: each pixel weighs var(R)^(1/5), over
    the whole crop, times the variance of R in 7×7 px around it; and nothing where the result is nearer to the original
    than the moving average's. As in the authors' code, borders are mirrored, variances unbiased, and the weights have
    gradients as well.
    """
    result, ema, high = wide(result), wide(ema).detach(), wide(high)
    difference = high - result
    residual = difference.abs().sum(dim=1, keepdim=True)  # (N, 3, H, W) -> (N, 1, H, W)
    ema_residual = (high - ema).abs().sum(dim=1, keepdim=True)
    whole = residual.var(dim=(1, 2, 3), keepdim=True)  # -> (N, 1, 1, 1)
    # A fifth root is infinitely steep at 0; a perfect result must still have a gradient.
    weight = (whole + 1e-12) ** (1 / _ARTIFACT_ROOT) * _local_variance(residual, _ARTIFACT_WINDOW_PX)
    weight = torch.where(residual < ema_residual, 0.0, weight)
    return (weight * difference).abs().mean()


def _local_variance(x: Tensor, window_px: int) -> Tensor:
    """(N, 1, H, W) -> the same: the unbiased variance in a window around each pixel, borders mirrored."""
    margin = window_px // 2
    padded = F.pad(x, (margin,) * 4, mode="reflect")
    # Around each picture's own mean, or the difference of two large numbers would leave nothing of a small one.
    padded = padded - x.mean(dim=(1, 2, 3), keepdim=True).detach()
    mean = F.avg_pool2d(padded, window_px, stride=1)
    mean_of_squares = F.avg_pool2d(padded.square(), window_px, stride=1)
    count = window_px**2
    return (mean_of_squares - mean.square()).clamp(min=0.0) * (count / (count - 1))


def grid(result: Tensor, high: Tensor, scale: int) -> Tensor:
    """What a result has too much or too little of at each place within a low pixel, as a mean over neighbourhoods.

    A network whose last step is a pixel shuffle makes each low pixel's `scale`² large ones by filters of their own.
    Under a perceptual loss these soon agree on one small pattern, repeated from pixel to pixel, wherever there is
    texture: it looks like detail to VGG and like dots to us. Detail that is right by its look, but not pixel by pixel,
    averages out over a neighbourhood of low pixels at each of the places; the pattern does not. So the difference is
    averaged over 8 × 8 low pixels, place by place, and its size is the loss. 0 where the means agree.
    """
    with torch.autocast(result.device.type, enabled=False):
        places = F.pixel_unshuffle(wide(result) - wide(high), scale)  # (N, 3, H, W) -> (N, 3·scale², h, w)
        reach = min(_GRID_PX, *places.shape[2:])
        return F.avg_pool2d(places, reach, max(1, reach // 2)).abs().mean()


def spectrum(result: Tensor, high: Tensor) -> Tensor:
    """How much more power a result has than the original, frequency by frequency: 0 where it has less or the same.

    Dots, hatching and checkers that an adversarial generator draws have their power in a few high frequencies, where
    natural pictures have hardly any (Durall et al. 2020, arXiv:2003.01826, section 3, who compare averages over
    circles). Unlike in `grid`, they are found wherever they stand, and whatever their period: only power counts, not
    the position. The luminance of both batches (N, 3, H, W) is cut into overlapping windows of 32×32 px, tapered by
    Hann's function. The logarithm of the power (plus that of noise of one level) is averaged over all windows, so
    that a flat place weighs as much as a textured one; the mean over frequencies of the excess, in nats, is the loss.
    """
    with torch.autocast(result.device.type, enabled=False):
        excess = log_power(wide(result)).mean(dim=0) - log_power(wide(high)).mean(dim=0)
        return F.relu(excess).mean()


def log_power(pictures: Tensor) -> Tensor:
    """(N, 3, H, W) -> (K, h, w // 2 + 1): the logarithm of the power at each frequency of each of K windows.

    As `spectrum` describes; white noise of standard deviation s has a mean power of s². Pictures smaller than a window
    are one window.
    """
    luminance = (pictures * pictures.new_tensor(_LUMA)[:, None, None]).sum(dim=1)  # -> (N, H, W)
    height, width = (min(SPECTRUM_PX, length) for length in luminance.shape[1:])
    windows = luminance.unfold(1, height, max(1, height // 2)).unfold(2, width, max(1, width // 2)).flatten(0, 2)
    taper = torch.outer(*(torch.hann_window(n, dtype=pictures.dtype, device=pictures.device) for n in (height, width)))
    windows = (windows - windows.mean(dim=(1, 2), keepdim=True)) * taper
    power = torch.view_as_real(torch.fft.rfft2(windows)).square().sum(dim=-1) / taper.square().sum()
    return (power + _SPECTRUM_FLOOR).log()


def chroma(result: Tensor, high: Tensor) -> Tensor:
    """L1 between the colour differences Cb and Cr of BT.601 (JPEG's, full range), whatever the luminance does.

    What an adversarial generator invents is texture, and in photographs texture is luminance nearly everywhere; colour
    that it invents beside it shows as specks, most of all around black letters, which have none.
    """
    with torch.autocast(result.device.type, enabled=False):  # three small products, whose rounding would be colour
        difference = wide(result) - wide(high)
        weights = difference.new_tensor(_CHROMA)
        return torch.einsum("cd,ndhw->nchw", weights, difference).abs().mean()


def flat(result: Tensor, high: Tensor) -> Tensor:
    """L1 where the original is flat, as a mean over the crop: against grain on walls, skies and paper.

    Each pixel weighs exp(-(s / 2 levels)²), s the standard deviation of the original's luminance in 9×9 px around it:
    1 on paper, .4 at 2 levels, nothing in texture. 0 for equal pictures.
    """
    result, high = wide(result), wide(high)
    luminance = (high * high.new_tensor(_LUMA)[:, None, None]).sum(dim=1, keepdim=True)  # (N, 3, H, W) -> (N, 1, H, W)
    quiet = torch.exp(-_local_variance(luminance, _FLAT_WINDOW_PX) / _FLAT_STD**2)
    return (quiet * (result - high)).abs().mean()


def diversity(one: Tensor, other: Tensor) -> Tensor:
    """How alike two results of the same low pictures are that were drawn from other noise: mode seeking, Mao et al.
    2019 (arXiv:1903.05628), eq. 2, turned over: the mean over pictures of 1 / (d + 1 / 255), d their L1.

    Between fields of white noise there is always the same distance, so that it is left out. 255 for equal results, 64
    at three levels; the slope falls with the square, so that it is heard most while noise is still ignored.
    """
    apart: Tensor = (wide(one) - wide(other)).abs().mean((1, 2, 3))
    return (1 / (apart + 1 / 255)).mean()


def consistency(result: Tensor, high: Tensor, scale: int) -> Tensor:
    """L1 between the result and the original, both made `scale` times smaller again (bicubic).

    That is the difference to the network's input where that is bicubic, too. Where it is a worn picture, the result
    must agree with what it was before the wear.
    """
    with torch.autocast(result.device.type, enabled=False):  # the shrinking is a product of matrices
        return _distance("l1", bicubic_down(wide(result), scale), bicubic_down(wide(high), scale))


# -------------------------------------------------------------------------------------------------------- all processes


_alone = False


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Means over processes are this process's own, while inside: for what not all of them do alike."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, with gradients to each; in a single process, the tensor itself.

    For what stands inside a loss and must be the same everywhere. Each process's gradients are then to be averaged
    (`processes.average_gradients`), as the losses are. All processes must come here alike, forward and backward.
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
        # The mean enters every process's loss, so every process's gradient comes back through it.
        return _averaged(gradient)


def _averaged(value: Tensor) -> Tensor:
    total = value.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total / dist.get_world_size()
