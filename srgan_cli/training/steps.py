"""What one step computes: the terms of each network's loss. Nothing here changes a weight.

Both phases share `Terms`: each term's raw mean beside its weight, so that a log can hold both.
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

_DIVERSITY_FRACTION = 0.25  # of a batch, the part that is drawn twice


@dataclass(frozen=True)
class Examples:
    """A batch on the run's device, floats in [0, 1]: `low` (N, 3, H, W), `high` and `taught` (N, 3, H·scale, W·scale).

    `taught` is what a teacher makes of `low`; where a picture has no original, it stands in `high` too. `worn` are real
    worn crops (N, 3, H, W), of other pictures.
    """

    low: Tensor
    high: Tensor
    taught: Tensor | None = None
    worn: Tensor | None = None

    def __len__(self) -> int:
        return len(self.high)


@dataclass
class Terms:
    """Named terms of one loss: raw values, each a scalar tensor with its graph, and their weights."""

    raw: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    reported: dict[str, Tensor] = field(default_factory=dict)  # what is only for the log: parts of a term, say

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
    """Half precision where it is safe; losses leave it again by themselves."""

    device: torch.device
    dtype: torch.dtype

    def __call__(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(frozen=True)
class Verdicts:
    """How the discriminator did, as 0-d tensors: mean logits, and the fraction of its verdicts that were right."""

    real: Tensor
    fake: Tensor
    accuracy: Tensor


@dataclass(frozen=True)
class Stepped:
    """What one step computed, still on the device: reading it would make the CPU wait."""

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
    """Phase 1: `low` (N, 3, H, W); `targets` (N, 3, H·scale, W·scale), each with its weight, which sum to 1."""
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
    """Phase 2, the generator's side: its loss (Ledig et al. 2017, eq. 3, and more terms to choose from) and result.

    `ema` is the moving average of the generator, which tells the artifact term where it is stable. The
    discriminator's weights must not require gradients: they are not what is trained here. `high` is what the result is
    compared with, `real` what the discriminator is shown beside it: the originals both, or a teacher's results. `ramp`
    in [0, 1] is for the adversarial weight. `noise` is what the generator draws from, where it has learned to.
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
        # Crops are drawn at random, so the first are as good as any.
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
    """Draws some crops once more, from other noise: the last ones, since those without noise come first."""
    count = max(1, int(len(low) * _DIVERSITY_FRACTION))
    with autocast():
        other = generator(low[-count:], noise.other(count)).float()
    terms.add("diversity", settings.diversity_weight, losses.diversity(result[-count:], other))
    terms.report("spread", 255 * (result[-count:] - other).abs().mean())  # in levels of 255


def _add_terms_of_pixels(terms: Terms, result: Tensor, high: Tensor, scale: int, settings: AdversarialSettings) -> None:
    """What is computed of result and original alone, where its weight asks for it."""
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
    """Phase 2, the discriminator's side. `fake` is the generator's result without its graph."""
    terms = Terms()
    with autocast():
        of_real, of_fake = discriminator(real).logits.float(), discriminator(fake).logits.float()
    terms.add("discriminator", 1.0, losses.discriminator_loss(settings.objective, of_real, of_fake))
    if settings.r1_weight and step % settings.r1_every_steps == 0:
        # Lazily, as in StyleGAN2 (Karras et al. 2020, section 3.1): rarer, and heavier in proportion.
        terms.add("r1", settings.r1_weight * settings.r1_every_steps, losses.r1(discriminator, real))
    return terms, verdicts_of(of_real.detach(), of_fake.detach(), settings.objective)


def verdicts_of(real: Tensor, fake: Tensor, objective: Objective) -> Verdicts:
    """Logits of real and of made pictures, without their graph."""
    # A relativistic discriminator is right where the real is more real than the average fake, and the other way round;
    # least squares has its border halfway between its targets 0 and 1.
    if objective == "relativistic":
        border_real, border_fake = fake.mean(), real.mean()
    else:
        border_real = border_fake = real.new_tensor(0.5 if objective == "least-squares" else 0.0)
    right = ((real > border_real).float().mean() + (fake < border_fake).float().mean()) / 2
    return Verdicts(real.mean(), fake.mean(), right)
