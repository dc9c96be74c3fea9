"""The networks of a run, their optimisers, and one step of each phase."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from srgan_cli.config import EngineOptions
from srgan_cli.dataset import draws
from srgan_cli.engine.backends import pytorch
from srgan_cli.files import expanded
from srgan_cli.networks.discriminators import Discriminator, build_discriminator
from srgan_cli.networks.features import VGGFeatures, load_features
from srgan_cli.networks.generators import Generator, build
from srgan_cli.networks.growing import grown, with_noise
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.registry import resolve
from srgan_cli.networks.weights import load_generator
from srgan_cli.training import checkpoint, preflight, schedule
from srgan_cli.training.adaptation import Adaptation, begin_adaptation, report_wear
from srgan_cli.training.learner import Learner, average, make_learner, placed
from srgan_cli.training.losses import PerceptualLoss
from srgan_cli.training.processes import Processes
from srgan_cli.training.state import State
from srgan_cli.training.steps import (
    Autocast,
    Examples,
    Stepped,
    Terms,
    discriminator_terms,
    fidelity_terms,
    generator_terms,
)
from srgan_cli.training.teaching import Teacher, load_teacher
from srgan_cli.training_adaptation_config import AdaptationSettings
from srgan_cli.training_config import AdversarialSettings, FidelitySettings, Phase, TrainConfig

_NOISE = 5  # key of a stream of random numbers, beside those of the data
_APART_PX = 1 << 16  # offset between the crops' noise fields: positions far from each other


@dataclass
class Run:
    """Everything that is trained. `ema` is the generator's moving average, which is validated and kept."""

    config: TrainConfig
    device: torch.device
    autocast: Autocast
    group: Processes
    generator: Generator
    ema: Generator
    learner: Learner
    discriminator: Discriminator | None = None
    discriminator_learner: Learner | None = None
    perceptual: PerceptualLoss | None = None
    teacher: Teacher | None = None
    adaptation: Adaptation | None = None

    @property
    def parts(self) -> dict[str, checkpoint.Stateful]:
        """Everything learned, by name: the list used for both saving and loading."""
        parts: dict[str, checkpoint.Stateful] = {"generator": self.generator, "ema": self.ema}
        for name, learner in (("generator", self.learner), ("discriminator", self.discriminator_learner)):
            parts |= {} if learner is None else learner.parts(name)
        return parts if self.adaptation is None else parts | self.adaptation.parts

    def learner_in(self, phase: Phase) -> Learner:
        """The learner of a phase: the wearer's, or the generator's."""
        return self.adaptation.learner if phase == "wear" and self.adaptation is not None else self.learner

    @property
    def networks(self) -> list[nn.Module]:
        """Those that learn, and their moving averages."""
        return [part for part in self.parts.values() if isinstance(part, nn.Module)]


# ------------------------------------------------------------------------------------------------------------ beginning


def choose_compute(config: TrainConfig, group: Processes) -> tuple[torch.device, torch.dtype]:
    """Device and precision. Half precision means bf16, if the device supports it in hardware; it needs no loss scaling.

    Raises `DeviceError` if the requested device does not exist.
    """
    name = config.compute.device
    if group.world > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{group.local}"
    device = pytorch.choose(EngineOptions(device=name, precision="fp32")).device
    if config.compute.threads:
        torch.set_num_threads(config.compute.threads)
    if config.compute.precision != "auto":
        return device, {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[config.compute.precision]
    if device.type == "cuda":
        return device, torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return device, torch.bfloat16 if device.type == "cpu" and pytorch.cpu_has_fast_bf16() else torch.float32


def begin(config: TrainConfig, group: Processes, *, resuming_in: Phase | None = None) -> Run:
    """A run before its first step. All processes create the same networks, from the same seed.

    With `resuming_in`, the weights of a checkpoint in that phase are loaded next, and the file of `init` is no longer
    needed. Everything for later phases is created here too, except what `add_perceptual` loads.
    """
    device, dtype = choose_compute(config, group)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # sizes are constant
    autocast = Autocast(device, dtype)
    generator = placed(
        make_generator(dataclasses.replace(config, init=None) if resuming_in else config), device
    ).train()
    ema = copy.deepcopy(generator).eval().requires_grad_(False)
    learner = make_learner(generator, config.of(resuming_in or config.phases[0]), autocast)
    run = Run(config, device, autocast, group, generator, ema, learner, teacher=load_teacher(config, device))
    if "adversarial" in config.phases:
        _add_discriminator(run)
    if config.adaptation.on:
        run.adaptation = begin_adaptation(config, group, device, autocast)
    if config.compute.compile:
        # R1 is a gradient of a gradient, which compiled networks do not support.
        discriminator = None if config.adversarial.r1_weight else run.discriminator
        for network in filter(None, (run.generator, discriminator)):
            network.compile()  # in place: names in checkpoints do not change
    return run


def _add_discriminator(run: Run) -> None:
    torch.manual_seed(run.config.seed + 1)
    chosen, settings = run.config.discriminator, run.config.adversarial
    discriminator = build_discriminator(chosen.kind, chosen.width, settings.crop_px)
    run.discriminator = placed(discriminator, run.device).train()
    run.discriminator_learner = make_learner(run.discriminator, settings, run.autocast)


def add_perceptual(run: Run) -> None:
    """Load VGG19, if a phase needs it; last, because it may be a download. Raises `WeightsError`."""
    if "adversarial" in run.config.phases and run.config.adversarial.perceptual_weight:
        run.perceptual = placed(make_perceptual(run.config), run.device)


def make_generator(config: TrainConfig) -> Generator:
    """A new one, that of `init`, or one grown from it.

    Raises `WeightsError`, or `SettingsError` if the scales differ and it is not to be grown.
    """
    torch.manual_seed(config.seed)
    settings = dataclasses.asdict(config.generator)
    architecture, grow, noise = (settings.pop(name) for name in ("architecture", "grow", "noise"))
    if noise:
        settings["noise"] = True
    if architecture != "srresnet":
        del settings["batch_norm"]
    if config.init is None:
        return build(architecture, settings)
    path, _ = resolve(config.init, None if grow else config.generator.scale)
    generator = load_generator(path)
    if grow:
        return grown(generator, architecture, settings)
    preflight.check_scale(config, generator.scale)
    return with_noise(generator) if noise else generator


def with_sizes_of_init(config: TrainConfig) -> TrainConfig:
    """The settings with the architecture and sizes of the file that training starts from."""
    if config.init is None or config.generator.grow:
        return config
    generator = make_generator(config)
    sizes = {**dataclasses.asdict(generator.config), "architecture": generator.architecture}  # type: ignore[call-overload]
    return dataclasses.replace(config, generator=dataclasses.replace(config.generator, **sizes))


def make_perceptual(config: TrainConfig) -> PerceptualLoss:
    """Raises `WeightsError` if its weights are not available."""
    settings = config.perceptual
    return PerceptualLoss(make_features(config), settings.layers, settings.distance, settings.scaling)


def make_features(config: TrainConfig) -> VGGFeatures:
    """The features for the perceptual loss. Raises as `make_perceptual`."""
    settings = config.perceptual
    file = expanded(settings.weights_file) if settings.weights_file else None
    return load_features(settings.source, tuple(settings.layers), settings.activation, file, seed=0)


def enter(run: Run, phase: Phase) -> None:
    """Begin another phase, starting from the moving average, which is better than the current weights."""
    run.generator.load_state_dict(run.ema.state_dict())
    run.learner = make_learner(run.generator, run.config.of(phase), run.autocast)


def restore(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """Restore the state of all parts from a checkpoint, and return its plain values. The generator's optimiser is that
    of the phase it was in, since phases may have different ones. Raises `WeightsError`."""
    phase = found["values"].get("phase")
    if phase in run.config.phases:
        run.learner = make_learner(run.generator, run.config.of(phase), run.autocast)
    return checkpoint.restore(found, run.parts)


# ------------------------------------------------------------------------------------------------------------- one step


def step(run: Run, state: State, fraction: float, examples: Examples) -> Stepped:
    """One step of the run's current phase, after `fraction` of it."""
    settings, adaptation = run.config.of(state.phase), run.adaptation
    rate = state.rate * schedule.rate_factor(settings, fraction, state.phase_step)
    if isinstance(settings, AdaptationSettings):
        assert adaptation is not None
        return adaptation.step(None, examples, state.step, rate)
    pairs = examples if adaptation is None else adaptation.pairs(examples, state.step)
    if isinstance(settings, FidelitySettings):
        stepped = _fidelity_step(run, settings, rate, pairs, state.step)
    else:
        noise = noise_of(run, len(pairs), state.step, state.rollbacks)
        stepped = _adversarial_step(run, settings, state, fraction, rate, pairs, noise)
    average(run.ema, run.generator, settings.ema, state.phase_step)
    if adaptation is not None and adaptation.is_due(state.phase_step):
        learned = adaptation.step(run.ema, examples, state.step, rate)
        report_wear(stepped.terms, learned)
    return stepped


def _fidelity_step(run: Run, settings: FidelitySettings, rate: float, examples: Examples, step: int) -> Stepped:
    targets = _targets(examples, run.config.teacher.weight)
    terms = fidelity_terms(run.generator, examples.low, targets, settings, run.autocast)
    _add_cycle(run, terms, examples, step)
    norm = run.learner.update(terms.total, rate * settings.learning_rate, settings.clip_norm, run.group)
    return Stepped(terms, norm)


def _add_cycle(run: Run, terms: Terms, examples: Examples, step: int) -> None:
    if run.adaptation is not None:
        run.adaptation.add_cycle(terms, run.generator, examples.worn, step)


def noise_of(run: Run, count: int, step: int, rollbacks: int = 0) -> Noise | None:
    """The noise for this process's `count` crops in a step, which depends on seed and step; none for the first of them.
    None for a network without noise."""
    if not run.generator.has_noise:
        return None
    seed = int(draws.generator(run.config.seed + rollbacks, _NOISE, step).integers(1 << 62))
    without = round(run.config.adversarial.noise_off_fraction * count)
    strengths = (0.0,) * without + (1.0,) * (count - without)
    first = run.group.rank * count
    return Noise(seed, strengths, tuple((0, number * _APART_PX) for number in range(first, first + count)))


def _targets(examples: Examples, weight: float) -> list[tuple[float, Tensor]]:
    """The targets of the fidelity phase: the originals, and a teacher's results with their `weight`."""
    if examples.taught is None:
        return [(1.0, examples.high)]
    both = [(weight, examples.taught), (1.0 - weight, examples.high)]
    return [(part, target) for part, target in both if part]


def _real(examples: Examples, kind: Literal["original", "teacher", "both"], group: Processes) -> Tensor:
    """What the discriminator is shown as real. `both`: original and teacher alternating, counted over all processes."""
    if examples.taught is None or kind == "original":
        return examples.high
    if kind == "teacher":
        return examples.taught
    places = torch.arange(len(examples), device=examples.high.device) + group.rank * len(examples)
    return torch.where((places % 2 == 0)[:, None, None, None], examples.high, examples.taught)


def _adversarial_step(
    run: Run,
    settings: AdversarialSettings,
    state: State,
    fraction: float,
    rate: float,
    examples: Examples,
    noise: Noise | None,
) -> Stepped:
    """The generator's step, then the discriminator's on the same pictures: once each (Ledig et al. 2017, 3.2)."""
    discriminator, discriminator_learner = run.discriminator, run.discriminator_learner
    assert discriminator is not None
    assert discriminator_learner is not None
    target = examples.high if examples.taught is None else examples.taught
    real = _real(examples, run.config.teacher.real, run.group)
    discriminator.requires_grad_(False)
    terms, result = generator_terms(
        run.generator, run.ema, discriminator, run.perceptual, examples.low, target, real, settings,
        schedule.ramp(settings, fraction), run.autocast, noise,
    )  # fmt: skip
    _add_cycle(run, terms, examples, state.step)
    norm = run.learner.update(terms.total, rate * settings.learning_rate, settings.clip_norm, run.group)
    discriminator.requires_grad_(True)
    discriminator.advance()
    discriminator_loss, verdicts = discriminator_terms(
        discriminator, result.detach(), real, settings, state.phase_step, run.autocast
    )
    discriminator_norm = discriminator_learner.update(
        discriminator_loss.total, rate * settings.discriminator_learning_rate, settings.clip_norm, run.group
    )
    return Stepped(terms, norm, verdicts, discriminator_loss, discriminator_norm)
