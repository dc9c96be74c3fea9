"""Computes the loss terms of one training step, for the generator and the discriminator. No weights are changed here.

Both phases use `Terms`, which keeps each term's raw value and its weight, so that both can be logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from srgan_cli.networks.discriminators import Discriminator
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.noise import Noise
from srgan_cli.training import losses, processes
from srgan_cli.training.losses import PerceptualLoss
from srgan_cli.training_config import AdversarialSettings, FidelitySettings, Objective

_DIVERSITY_FRACTION = 0.25  # fraction of a batch that is generated again, with other noise


@dataclass(frozen=True)
class Examples:
    """A batch on the run's device, floats in [0, 1]: `low` (N, 3, H, W), `high` and `taught` (N, 3, H·scale, W·scale).

    `taught` is a teacher's result for `low`; for pictures without an original, `high` holds it as well. `worn` holds
    real worn crops (N, 3, H, W), from other pictures.
    """

    low: Tensor
    high: Tensor
    taught: Tensor | None = None
    worn: Tensor | None = None

    def __len__(self) -> int:
        return len(self.high)


@dataclass
class Terms:
    """The named terms of one loss: raw values (0-d tensors with their graph) and weights."""

    raw: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    reported: dict[str, Tensor] = field(default_factory=dict)  # only logged, such as the parts of a term

    def add(self, name: str, weight: float, value: Tensor) -> None:
        self.raw[name] = value
        self.weights[name] = weight

    def report(self, name: str, value: Tensor) -> None:
        self.reported[name] = value.detach()

    @property
    def total(self) -> Tensor:
        return torch.stack([self.raw[name].float() * weight for name, weight in self.weights.items()]).sum()


@dataclass(frozen=True)
class Autocast:
    """Enables autocast to `dtype`; the losses convert back to fp32 themselves."""

    device: torch.device
    dtype: torch.dtype

    def __call__(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class Verdicts:
    """The discriminator's performance, as 0-d tensors: mean logits, and the fraction of correct verdicts."""

    real: Tensor
    fake: Tensor
    accuracy: Tensor


@dataclass(frozen=True)
class Stepped:
    """The results of one step, still on the device, since reading them would make the CPU wait."""

    terms: Terms
    gradient_norm: Tensor
    verdicts: Verdicts | None = None
    discriminator_loss: Terms | None = None
    discriminator_norm: Tensor | None = None


def fidelity_terms(
    generator: Generator,
    low: Tensor,
    targets: Sequence[tuple[float, Tensor]],
    settings: FidelitySettings,
    autocast: Autocast,
) -> Terms:
    """Phase 1. `low`: (N, 3, H, W). `targets`: pairs of weight and (N, 3, H·scale, W·scale); the weights sum to 1."""
    with autocast():
        result = generator(low).float()

    def to_all(distance: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([distance(target) * weight for weight, target in targets]).sum()

    terms = Terms()
    terms.add("pixel", 1.0, to_all(lambda target: losses.pixel(settings.loss, result, target)))
    if settings.frequency_weight:
        terms.add("frequency", settings.frequency_weight, to_all(lambda target: losses.frequency(result, target)))
    return terms


def generator_terms(
    generator: Generator,
    ema: Generator,
    discriminator: Discriminator,
    perceptual: PerceptualLoss | None,
    low: Tensor,
    high: Tensor,
    real: Tensor,
    settings: AdversarialSettings,
    ramp: float,
    autocast: Autocast,
    noise: Noise | None = None,
) -> tuple[Terms, Tensor]:
    """Phase 2, generator: its loss (Ledig et al. 2017, eq. 3, plus optional terms) and its result.

    `ema` is the generator's moving average, needed by the artifact term. The discriminator's weights must not require
    gradients, since only the generator is trained here. `high` is the target of the result, and `real` is what the
    discriminator compares it with: both the originals, or both a teacher's results. `ramp` in [0, 1] multiplies the
    adversarial weights. `noise` is the noise input of a generator that uses one.
    """
    terms = Terms()
    with autocast():
        result = generator(low, noise).float()
        verdict = discriminator(result)
        with torch.no_grad():
            verdict_of_real = (
                discriminator(real)
                if settings.objective == "relativistic" or settings.feature_matching_weight
                else None
            )
            ema_result = ema(low, noise).float() if settings.artifact_weight else None
    if settings.pixel_weight:
        terms.add("pixel", settings.pixel_weight, losses.pixel(settings.pixel_loss, result, high))
    if perceptual is not None and settings.perceptual_weight:
        # Crops are in random order, so any subset will do: take the first.
        seen = processes.part_of(settings.perceptual_crops) if settings.perceptual_crops else len(high)
        with autocast():
            distance, layers = perceptual(result[:seen], high[:seen])
        terms.add("perceptual", settings.perceptual_weight, distance)
        for name, value in layers.items():
            terms.report(f"perceptual.{name}", value)
    fooled = losses.generator_loss(
        settings.objective, verdict.logits, None if verdict_of_real is None else verdict_of_real.logits
    )
    terms.add("adversarial", settings.adversarial_weight * ramp, fooled)
    if settings.feature_matching_weight:
        assert verdict_of_real is not None
        matching = losses.feature_matching(verdict.features, verdict_of_real.features)
        terms.add("feature_matching", settings.feature_matching_weight * ramp, matching)
    if ema_result is not None:
        terms.add("artifact", settings.artifact_weight, losses.artifact(result, ema_result, high))
    _add_terms_of_pixels(terms, result, high, generator.scale, settings)
    if noise is not None and settings.diversity_weight:
        _add_diversity(terms, generator, low, result, noise, settings, autocast)
    return terms, result


def _add_diversity(
    terms: Terms, generator: Generator, low: Tensor, result: Tensor, noise: Noise, settings: AdversarialSettings,
    autocast: Autocast,
) -> None:  # fmt: skip
    """Generates some crops a second time with other noise: the last ones, since crops without noise come first."""
    count = max(1, int(len(low) * _DIVERSITY_FRACTION))
    with autocast():
        other = generator(low[-count:], noise.other(count)).float()
    terms.add("diversity", settings.diversity_weight, losses.diversity(result[-count:], other))
    terms.report("spread", 255 * (result[-count:] - other).abs().mean())  # in levels of 255


def _add_terms_of_pixels(terms: Terms, result: Tensor, high: Tensor, scale: int, settings: AdversarialSettings) -> None:
    """Add the terms that depend only on result and original, where their weight is not 0."""
    if settings.frequency_weight:
        terms.add("frequency", settings.frequency_weight, losses.frequency(result, high))
    if settings.chroma_weight:
        terms.add("chroma", settings.chroma_weight, losses.chroma(result, high))
    if settings.flat_weight:
        terms.add("flat", settings.flat_weight, losses.flat(result, high))
    if settings.grid_weight:
        terms.add("grid", settings.grid_weight, losses.grid(result, high, scale))
    if settings.spectrum_weight:
        terms.add("spectrum", settings.spectrum_weight, losses.spectrum(result, high))
    if settings.consistency_weight:
        terms.add("consistency", settings.consistency_weight, losses.consistency(result, high, scale))


def discriminator_terms(
    discriminator: Discriminator,
    fake: Tensor,
    real: Tensor,
    settings: AdversarialSettings,
    step: int,
    autocast: Autocast,
) -> tuple[Terms, Verdicts]:
    """Phase 2, discriminator. `fake` is the generator's result, detached."""
    terms = Terms()
    with autocast():
        of_real, of_fake = discriminator(real).logits.float(), discriminator(fake).logits.float()
    terms.add("discriminator", 1.0, losses.discriminator_loss(settings.objective, of_real, of_fake))
    if settings.r1_weight and step % settings.r1_every_steps == 0:
        # Lazy regularisation, as in StyleGAN2 (Karras et al. 2020, section 3.1): less often, at a higher weight.
        terms.add("r1", settings.r1_weight * settings.r1_every_steps, losses.r1(discriminator, real))
    return terms, verdicts_of(of_real.detach(), of_fake.detach(), settings.objective)


def verdicts_of(real: Tensor, fake: Tensor, objective: Objective) -> Verdicts:
    """`real`, `fake`: detached logits of real and generated pictures."""
    # For a relativistic discriminator, a real picture must score above the average fake, and a fake below the average
    # real. For least squares, the threshold lies halfway between the targets 0 and 1.
    if objective == "relativistic":
        border_real, border_fake = fake.mean(), real.mean()
    else:
        border_real = border_fake = real.new_tensor(0.5 if objective == "least-squares" else 0.0)
    right = ((real > border_real).float().mean() + (fake < border_fake).float().mean()) / 2
    return Verdicts(real.mean(), fake.mean(), right)
