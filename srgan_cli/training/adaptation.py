"""Unpaired adaptation: learns the wear of a user's own pictures, and teaches the generator to undo it.

Two generators and their discriminators, linked by cycle losses (Zhu et al. 2017, arXiv:1703.10593; for super-resolution
Yuan et al. 2018, arXiv:1809.00437, and Bulat et al. 2018, arXiv:1807.11458): G, which enlarges, is the run's own
generator; F, the *wearer*, makes low pictures from high ones that look like the worn pictures, which have no originals.

In the phase `wear` only F learns. After that, G learns from pairs whose low pictures are made by F's moving average,
with the terms of the current phase: G(F(high)) equals high. Some crops are left clean (identity). The reverse cycle,
F(G(low)) equals low up to noise, is a term of both.

Information that one network hides in its output for the other (Chu et al. 2017, arXiv:1712.02950) does not exist in
real pictures. F gets no gradient from G's use of its results, so it gains nothing by hiding information; and noise is
added to each network's output before the other sees it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from srgan_cli.dataset.codecs import Compression
from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.dataset.draws import generator as draws_for
from srgan_cli.dataset.wear import (
    FileSign,
    Wear,
    WearConfig,
    Wearer,
    compressed,
    drawn_compression,
    random_inputs,
    without_colours,
)
from srgan_cli.networks.discriminators import WearDiscriminator
from srgan_cli.networks.generators import Generator
from srgan_cli.training import checkpoint, losses, wear_losses
from srgan_cli.training.learner import Learner, average, make_learner, placed
from srgan_cli.training.processes import Processes
from srgan_cli.training.steps import Autocast, Examples, Stepped, Terms, Verdicts, verdicts_of
from srgan_cli.training.wear_losses import BlockStatistics
from srgan_cli.training_adaptation_config import AdaptationSettings
from srgan_cli.training_config import TrainConfig

# Philox keys (beside the seed) for everything drawn here; steps count up from 0 in each.
_PAIRS, _LEARNING, _CYCLES, _REPLAY = 0x57656172, 0x4C726E77, 0x4379636C, 0x52706C79
MARGIN_PX = 4  # px of the low picture: borders are padded in F's results but not in real ones, so they are not judged


class Replay:
    """Earlier results of F: the discriminator sees them in turn with new ones, so that it does not forget what F used
    to do (Shrivastava et al. 2017, section 2.3; Zhu et al. 2017, section 4: 50 of them).

    Pictures are stored with 8 bits. Each process has its own; a checkpoint contains the first one's.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._kept: list[Tensor] = []

    def turn(self, fresh: Tensor, source: np.random.Generator) -> Tensor:
        """(N, 3, h, w), 8-bit values -> as many; once there are enough, half of them are replaced by older ones."""
        if not self._capacity:
            return fresh
        shown = []
        for picture in fresh:
            if self._kept and self._kept[0].shape != picture.shape:  # the crop size has changed
                self._kept = []
            if len(self._kept) < self._capacity:
                self._kept.append(_bytes(picture))
                shown.append(picture)
            elif source.random() < 0.5:
                place = int(source.integers(self._capacity))
                shown.append(self._kept[place].to(picture.device).float() / 255.0)
                self._kept[place] = _bytes(picture)
            else:
                shown.append(picture)
        return torch.stack(shown).contiguous(memory_format=torch.channels_last)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": torch.stack(self._kept) if self._kept else torch.empty(0, dtype=torch.uint8)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        kept = state_dict["kept"]
        if not isinstance(kept, Tensor) or kept.dtype != torch.uint8 or (kept.numel() and kept.shape[1:2] != (3,)):
            raise ValueError("no pictures")
        self._kept = list(kept[: self._capacity].clone()) if kept.numel() else []


def _bytes(picture: Tensor) -> Tensor:
    return (picture.detach().clamp(0, 1) * 255.0 + 0.5).to(torch.uint8).cpu()


@dataclass
class Adaptation:
    """F, its moving average and its discriminator. `signs` are how the worn pictures' files were compressed; `grey`:
    they have no colours."""

    settings: AdaptationSettings
    seed: int
    group: Processes
    autocast: Autocast
    learner: Learner
    ema: Wearer
    discriminator: WearDiscriminator
    discriminator_learner: Learner
    replay: Replay
    statistics: BlockStatistics = field(default_factory=BlockStatistics)
    signs: tuple[FileSign | None, ...] = ()
    grey: bool = False

    @property
    def wearer(self) -> Wearer:
        assert isinstance(self.learner.network, Wearer)
        return self.learner.network

    @property
    def parts(self) -> dict[str, checkpoint.Stateful]:
        """Everything learned, and the discriminator's replay buffer."""
        return {
            **self.learner.parts("wearer"),
            "wearer_ema": self.ema,
            **self.discriminator_learner.parts("wear_discriminator"),
            "wear_replay": self.replay,
            "wear_statistics": self.statistics,
        }

    # ------------------------------------------------------------------------------------------------- results of F

    def worn(self, network: Wearer, low: Tensor, high: Tensor, source: np.random.Generator) -> Tensor:
        """Worn versions of `high` and its bicubic `low` by `network`, in 8 bits and through codecs; see
        `wear.compressed`."""
        return self.wear(network, low, high, source).worn

    def wear(self, network: Wearer, low: Tensor, high: Tensor, source: np.random.Generator) -> Wear:
        """The same, with the residual that was added."""
        height, width = low.shape[2:]
        seeds = [int(seed) for seed in source.integers(2**63, size=len(low))]
        codecs: Sequence[Compression | None] = [drawn_compression(self.signs, source) for _ in seeds]
        with self.autocast():
            found: Wear = network(low, high, random_inputs(seeds, height, width, low.device))
        worn = compressed(without_colours(found.worn) if self.grey else found.worn, codecs).contiguous(
            memory_format=torch.channels_last
        )
        return Wear(worn, found.residual)

    @torch.no_grad()
    def pairs(self, examples: Examples, step: int) -> Examples:
        """The batch with low pictures worn by F's moving average, plus noise; some crops stay clean."""
        source = self._source(_PAIRS, step)
        worn = self.worn(self.ema, examples.low, examples.high, source)
        clean = torch.from_numpy(source.random(len(worn)) < self.settings.clean_fraction).to(worn.device)
        low = torch.where(clean[:, None, None, None], examples.low, self._with_noise(worn, source))
        return Examples(low.contiguous(memory_format=torch.channels_last), examples.high, worn=examples.worn)

    def _with_noise(self, pictures: Tensor, source: np.random.Generator) -> Tensor:
        """The noise is invisible, but strong enough to destroy hidden signals."""
        if not self.settings.hidden_noise:
            return pictures
        dice = torch.Generator().manual_seed(int(source.integers(2**63)))
        noise = torch.randn(pictures.shape, generator=dice) * (self.settings.hidden_noise / 255.0)
        return pictures + noise.to(pictures.device)

    def _source(self, stream: int, step: int) -> np.random.Generator:
        """This process's random generator for this step: stateless, so that a run can be resumed."""
        return draws_for(self.seed, stream, step * self.group.world + self.group.rank)

    # -------------------------------------------------------------------------------------------------- reverse cycle

    @property
    def cycled(self) -> int:
        """How many crops of a batch take part in the reverse cycle."""
        return self.settings.cycle_crops if self.settings.cycle_weight else 0

    def add_cycle(self, terms: Terms, generator: Generator, worn: Tensor | None, step: int) -> None:
        """Add a term to G's loss: F(G(low)) equals low, for some of the real worn crops (N, 3, h, w)."""
        if worn is None or not self.cycled:
            return
        low = worn[: self.cycled]
        with self.autocast():
            result = generator(low).float()
        self.ema.requires_grad_(False)
        terms.add("cycle", self.settings.cycle_weight, self._cycle(self.ema, result, low, step))

    def add_wear_cycle(self, terms: Terms, generator: Generator, worn: Tensor, step: int) -> None:
        """Add the same to F's loss; `generator` is used without being changed."""
        if not self.cycled:
            return
        low = worn[: self.cycled]
        with torch.no_grad(), self.autocast():
            result = generator(low).float()
        terms.add("wear.cycle", self.settings.cycle_weight, self._cycle(self.wearer, result, low, step))

    def _cycle(self, wearer: Wearer, result: Tensor, low: Tensor, step: int) -> Tensor:
        source = self._source(_CYCLES, step)
        high = self._with_noise(result, source)
        again = self.worn(wearer, bicubic_down(high, wearer.scale), high, source)
        return wear_losses.cycle(inner(again), inner(low))

    # ----------------------------------------------------------------------------------------------------- a step of F

    def is_due(self, phase_step: int) -> bool:
        """Whether F makes a step beside this one of G."""
        return self.settings.every_steps > 0 and phase_step % self.settings.every_steps == 0

    def step(self, generator: Generator | None, examples: Examples, step: int, rate: float) -> Stepped:
        """F's step, then its discriminator's. `generator`, if given, is used for the cycle."""
        assert examples.worn is not None
        source, settings = self._source(_LEARNING, step), self.settings
        self.discriminator.requires_grad_(False)
        terms, worn = wearer_terms(self, examples, source)
        if generator is not None:
            self.add_wear_cycle(terms, generator, examples.worn, step)
        norm = self.learner.update(terms.total, rate * settings.learning_rate, settings.clip_norm, self.group)
        average(self.ema, self.wearer, settings.ema, step)
        self.discriminator.requires_grad_(True)
        self.discriminator.advance()
        shown = self.replay.turn(worn.detach(), self._source(_REPLAY, step))
        loss, verdicts = wear_discriminator_terms(self, shown, inner(examples.worn))
        discriminator_norm = self.discriminator_learner.update(
            loss.total, rate * settings.discriminator_learning_rate, settings.clip_norm, self.group
        )
        return Stepped(terms, norm, verdicts, loss, discriminator_norm)


def report_wear(terms: Terms, learned: Stepped) -> None:
    """Add the numbers of F and its discriminator to the report of G's step."""
    for name, value in learned.terms.raw.items():
        terms.report(name, value)
    if learned.verdicts is not None:
        terms.report("wear.accuracy", learned.verdicts.accuracy)


def begin_adaptation(config: TrainConfig, group: Processes, device: torch.device, autocast: Autocast) -> Adaptation:
    """F before its first step, when it has almost no effect; all processes create the same, from the same seed."""
    torch.manual_seed(config.seed + 2)
    settings = config.adaptation
    wearer = placed(
        Wearer(WearConfig(config.generator.scale, settings.features, settings.blocks, settings.blur_px)), device
    )
    discriminator = placed(WearDiscriminator(settings.discriminator_channels), device)
    return Adaptation(
        settings, config.seed, group, autocast,
        learner=make_learner(wearer, settings, autocast),
        ema=copy.deepcopy(wearer).eval().requires_grad_(False),
        discriminator=discriminator,
        discriminator_learner=make_learner(discriminator, settings, autocast),
        replay=Replay(settings.replay),
        grey=config.data.grey,
    )  # fmt: skip


def wearer_terms(adaptation: Adaptation, examples: Examples, source: np.random.Generator) -> tuple[Terms, Tensor]:
    """F's side: its loss, and its results without their border."""
    settings, terms = adaptation.settings, Terms()
    assert examples.worn is not None
    worn, residual = adaptation.wear(adaptation.wearer, examples.low, examples.high, source)
    made, real = inner(worn), inner(examples.worn)
    if settings.adversarial_weight:
        with adaptation.autocast():
            verdict = adaptation.discriminator(made).logits
            of_real = adaptation.discriminator(real).logits if settings.objective == "relativistic" else None
        fooled = losses.generator_loss(settings.objective, verdict, of_real)
        terms.add("wear.adversarial", settings.adversarial_weight, fooled)
    if settings.statistics_weight:
        terms.add("wear.statistics", settings.statistics_weight, adaptation.statistics.loss(made, real))
    terms.add("wear.restraint", settings.restraint_weight, residual.abs().mean())
    terms.add("wear.low_frequency", settings.low_frequency_weight, wear_losses.low_frequency(worn, examples.low))
    return terms, made


def wear_discriminator_terms(adaptation: Adaptation, fake: Tensor, real: Tensor) -> tuple[Terms, Verdicts]:
    """Its discriminator's side."""
    objective, terms = adaptation.settings.objective, Terms()
    with adaptation.autocast():
        of_real = adaptation.discriminator(real).logits.float()
        of_fake = adaptation.discriminator(fake).logits.float()
    terms.add("discriminator", 1.0, losses.discriminator_loss(objective, of_real, of_fake))
    return terms, verdicts_of(of_real.detach(), of_fake.detach(), objective)


def inner(pictures: Tensor) -> Tensor:
    """Low pictures without their border of `MARGIN_PX`."""
    margin = MARGIN_PX
    return pictures[:, :, margin:-margin, margin:-margin].contiguous(memory_format=torch.channels_last)
