"""All settings of a training run, with defaults and checks.

Standard library only. A value out of range raises `SettingsError` when its section is created, never later. The
sections are those of the TOML file. Weights of losses multiply a term's mean over pixels and pictures, with colours in
[0, 1].
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from srgan_cli.checking import check, check_choice, check_numbers
from srgan_cli.training_adaptation_config import AdaptationSettings, check_adversary, check_learning
from srgan_cli.training_data_config import DataSettings, DegradationSettings, TeacherSettings

Phase: TypeAlias = Literal["wear", "fidelity", "adversarial"]
Phases: TypeAlias = Literal["both", "fidelity", "adversarial"]
PixelLoss: TypeAlias = Literal["l1", "mse"]
Objective: TypeAlias = Literal["nonsaturating", "relativistic", "hinge", "least-squares"]
Schedule: TypeAlias = Literal["constant", "cosine", "halfway"]
Optimizer: TypeAlias = Literal["adamw", "muon"]


@dataclass(frozen=True)
class GeneratorSettings:
    """The network to train. With `init` in the run, the file's architecture and sizes are used instead, unless
    `grow`."""

    architecture: Literal["compact", "srvgg", "srresnet"] = "compact"
    scale: int = 4
    features: int = 64
    blocks: int = 16  # residual blocks; for srvgg, the convolutions between the first and the last one
    batch_norm: bool = False  # for srresnet only
    # compact only: noise inputs, which the adversarial phase learns to draw texture from, see networks.noise
    noise: bool = False
    grow: bool = False  # with init: use these sizes, and start from what the file has learned, see networks.growing

    def __post_init__(self) -> None:
        check_choice("generator", self, architecture=("compact", "srvgg", "srresnet"))
        check_numbers("generator", self, {"scale": (2, 8), "features": (1, 512), "blocks": (0, 256)})
        check(not self.batch_norm or self.architecture == "srresnet", "generator.batch_norm is for srresnet only")
        check(not self.noise or self.architecture == "compact", "generator.noise is for compact only")
        check(
            self.architecture != "srresnet" or self.scale in (2, 3, 4, 8),
            f"srresnet enlarges 2, 3, 4 or 8 times, not {self.scale}",
        )


@dataclass(frozen=True)
class FidelitySettings:
    """Phase 1, the paper's SRResNet: minimises pixel error."""

    loss: PixelLoss = "l1"
    # L1 between orthonormal Fourier transforms; at this weight about eighteen times the pixel loss
    frequency_weight: float = 25.6
    batch: int = 16
    crop_px: int = 128  # of the high picture
    small_crop_px: int = 0  # smaller crops for the first `small_crop_fraction` of the phase; 0: none
    small_crop_fraction: float = 0.0
    learning_rate: float = 3e-3
    schedule: Schedule = "cosine"  # halfway: a tenth of the rate for the second half
    warmup_steps: int = 200
    optimizer: Optimizer = "muon"  # see training.muon
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0  # clips the norm of all gradients together; 0: none
    ema: float = 0.999  # 0: none

    def __post_init__(self) -> None:
        check_choice("fidelity", self, loss=("l1", "mse"))
        check_learning("fidelity", self)
        check_numbers("fidelity", self, {"frequency_weight": (0, 100)})


@dataclass(frozen=True)
class AdversarialSettings:
    """Phase 2, the paper's SRGAN: content, perceptual and adversarial loss, starting from phase 1's weights."""

    objective: Objective = "relativistic"
    pixel_loss: PixelLoss = "l1"
    pixel_weight: float = 1.0
    perceptual_weight: float = 1.0
    # number of crops that VGG sees of a whole batch, since it is the most expensive term; 0: all
    perceptual_crops: int = 0
    adversarial_weight: float = 0.1
    ramp_fraction: float = 0.1  # fraction of the phase over which the adversarial weight rises from 0
    feature_matching_weight: float = 0.0
    artifact_weight: float = 0.0  # LDL, Liang et al. 2022
    frequency_weight: float = 0.0
    consistency_weight: float = 1.0  # L1 between the result and the original, both downscaled
    chroma_weight: float = 0.0  # L1 of chroma only, against coloured specks, see losses.chroma
    flat_weight: float = 0.0  # L1 where the original is flat, against grain on walls and skies, see losses.flat
    grid_weight: float = 10.0  # against patterns with the period of the low picture's pixels, see losses.grid
    spectrum_weight: float = 2.0  # against dots and hatching of any period, see losses.spectrum
    # with generator.noise: different noise should give different results, see losses.diversity
    diversity_weight: float = 1e-4
    noise_off_fraction: float = 0.25  # with generator.noise: crops of each batch that are enlarged without it
    r1_weight: float = 0.0  # Mescheder et al. 2018
    r1_every_steps: int = 16
    batch: int = 16
    crop_px: int = 128
    small_crop_px: int = 0
    small_crop_fraction: float = 0.0
    learning_rate: float = 2e-4
    discriminator_learning_rate: float = 2e-4
    schedule: Schedule = "cosine"
    warmup_steps: int = 0
    optimizer: Optimizer = "adamw"  # the generator's; the discriminator's is always adamw
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.999

    def __post_init__(self) -> None:
        check_choice("adversarial", self, pixel_loss=("l1", "mse"))
        check_learning("adversarial", self)
        check_adversary("adversarial", self)
        check_numbers("adversarial", self, {"ramp_fraction": (0, 1), "r1_every_steps": (1, 1000)})
        check_numbers("adversarial", self, {"noise_off_fraction": (0, 1)})
        check_numbers("adversarial", self, {"perceptual_crops": (0, 4096)})


PhaseSettings: TypeAlias = FidelitySettings | AdversarialSettings | AdaptationSettings


@dataclass(frozen=True)
class PerceptualSettings:
    """VGG19 features. `layers` are names as in the VGG paper (`conv3_4`), each with the weight of its term."""

    source: Literal["vgg19", "random"] = "vgg19"
    weights_file: str | None = None  # None: torchvision's, downloaded once
    layers: Mapping[str, float] = field(default_factory=lambda: {"conv1_2": 0.1, "conv2_2": 0.3, "conv3_4": 1.0})
    activation: Literal["before", "after"] = "before"  # after: the output of the ReLU that follows the layer
    distance: Literal["l1", "mse"] = "l1"
    # relative: each term is divided by the mean size of the original's features, so that the weights alone decide how
    # much each layer counts. paper: features are divided by 12.75, as in Ledig et al. 2017, section 3.2. That was for
    # the original network's weights; torchvision's have the same shape, but activations of another size.
    scaling: Literal["relative", "paper"] = "relative"

    @property
    def min_px(self) -> int:
        """The smallest crop at which the deepest layer has any output: each block of VGG19 halves the size."""
        return 1 << max(int(name[4]) - 1 for name in self.layers)

    def __post_init__(self) -> None:
        check_choice(
            "perceptual",
            self,
            source=("vgg19", "random"),
            activation=("before", "after"),
            distance=("l1", "mse"),
            scaling=("relative", "paper"),
        )
        check(bool(self.layers), "perceptual.layers must name at least one layer")
        for name, weight in self.layers.items():
            match = re.fullmatch(r"conv([1-5])_([1-4])", name)
            known = match is not None and int(match[2]) <= (2 if int(match[1]) < 3 else 4)
            check(known, f"perceptual.layers: VGG19 has no layer {name!r}; its layers are conv1_1 to conv5_4")
            check(
                math.isfinite(weight) and weight >= 0,
                f"perceptual.layers: the weight of {name} must be 0 or more, not {weight!r}",
            )


@dataclass(frozen=True)
class DiscriminatorSettings:
    """vgg: the paper's, one output per crop; patch: one per patch; unet: one per pixel.

    `channels` of the first layer; 0: 64 for vgg, as in the paper, and 32 for the others.
    """

    kind: Literal["vgg", "patch", "unet"] = "patch"
    channels: int = 0

    def __post_init__(self) -> None:
        check_choice("discriminator", self, kind=("vgg", "patch", "unet"))
        check_numbers("discriminator", self, {"channels": (0, 512)})

    @property
    def width(self) -> int:
        return self.channels or (64 if self.kind == "vgg" else 32)

    @property
    def size_multiple(self) -> int:
        """Crop sides must be multiples of this, in px."""
        return 16 if self.kind == "vgg" else 8


@dataclass(frozen=True)
class ComputeSettings:
    """Where and how fast. `compile`: torch.compile for the networks; on a CPU it measured no gain."""

    device: str = "auto"
    precision: Literal["auto", "fp32", "fp16", "bf16"] = "auto"
    compile: bool = False
    threads: int = 0  # CPU threads; 0: PyTorch's default

    def __post_init__(self) -> None:
        check(
            re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device) is not None,
            f"compute.device must be auto, cpu, cuda, cuda:N or mps, not {self.device!r}",
        )
        check_choice("compute", self, precision=("auto", "fp32", "fp16", "bf16"))
        check_numbers("compute", self, {"threads": (0, 1024)})


@dataclass(frozen=True)
class WatchSettings:
    """How often to log, validate and save, and when to roll back. Intervals in seconds of training, or in steps where
    those are not 0."""

    log_every_steps: int = 20
    validate_every_s: float = 60.0
    validate_every_steps: int = 0
    checkpoint_every_s: float = 60.0
    checkpoint_every_steps: int = 0
    max_rollbacks: int = 5
    samples: int = 4  # validation crops drawn into samples/ each time

    def __post_init__(self) -> None:
        whole = ("validate_every_steps", "checkpoint_every_steps")
        check_numbers("watch", self, dict.fromkeys(whole, (0, 1e9)))
        check_numbers("watch", self, {"log_every_steps": (1, 1e6), "max_rollbacks": (0, 100), "samples": (0, 64)})
        check_numbers("watch", self, {"validate_every_s": (0.1, 1e9), "checkpoint_every_s": (0.1, 1e9)})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one `srgan train`. Its length is `budget_s`, or else `steps`, for all phases together."""

    preset: str = "srgan"
    phase: Phases = "both"
    fidelity_fraction: float = 0.5  # fraction of the run, if phase is both
    steps: int = 20_000
    budget_s: float | None = None  # seconds; takes precedence over `steps`
    init: str | None = None  # a weights file, a model's name or a run folder to start from
    seed: int = 0
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    data: DataSettings = field(default_factory=DataSettings)
    degradation: DegradationSettings = field(default_factory=DegradationSettings)
    fidelity: FidelitySettings = field(default_factory=FidelitySettings)
    adversarial: AdversarialSettings = field(default_factory=AdversarialSettings)
    perceptual: PerceptualSettings = field(default_factory=PerceptualSettings)
    discriminator: DiscriminatorSettings = field(default_factory=DiscriminatorSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    watch: WatchSettings = field(default_factory=WatchSettings)

    def __post_init__(self) -> None:
        check(
            self.phase in ("both", "fidelity", "adversarial"),
            f"phase must be both, fidelity or adversarial, not {self.phase!r}",
        )
        check(1 <= self.steps <= 10**9, f"steps must be between 1 and {10**9}, not {self.steps}")
        check(
            self.budget_s is None or (math.isfinite(self.budget_s) and self.budget_s > 0),
            f"a budget must be more than 0, not {self.budget_s!r} s",
        )
        check(
            0 < self.fidelity_fraction < 1,
            f"fidelity_fraction must lie between 0 and 1, not {self.fidelity_fraction!r}",
        )
        check(0 <= self.seed < 2**63, f"seed must be a whole number from 0 to {2**63 - 1}, not {self.seed!r}")
        check(
            "adversarial" not in self.phases
            or self.discriminator.kind != "vgg"
            or not (self.adversarial.small_crop_px and self.adversarial.small_crop_fraction),
            "the vgg discriminator judges crops of one size; where crops grow (small_crop_px), use patch or unet",
        )
        for name in self.phases:
            settings = self.of(name)
            check(
                settings.small_crop_px < settings.crop_px,
                f"{name}.small_crop_px, {settings.small_crop_px}, must be less than crop_px, {settings.crop_px}",
            )
            for crop_px in filter(None, (settings.crop_px, settings.small_crop_px)):
                check(
                    crop_px % self.generator.scale == 0,
                    f"{name}: a crop of {crop_px} px is not a multiple of the scale, {self.generator.scale}",
                )
        check(
            not (self.generator.noise and self.compute.compile),
            "compute.compile and generator.noise cannot be combined: the noise differs in each step",
        )
        if "adversarial" in self.phases:
            self._check_judged_sizes()
        if self.teacher.model is not None:
            self._check_pieces()
        if self.adaptation.on:
            self._check_adaptation()

    def _check_adaptation(self) -> None:
        check(
            self.teacher.model is None,
            "a teacher cannot be used while wear is being learned; adapt first (--unpaired-lr-dir), then train with "
            "--teacher and --degradation RUN",
        )
        check(
            not self.data.low_dirs,
            "with --lr-dir each sharp picture has its own worn one, so there is no wear to learn: give the "
            "worn pictures either as pairs (--lr-dir) or without originals (--unpaired-lr-dir)",
        )
        check(
            self.degradation.kind == "bicubic",
            "with --unpaired-lr-dir the degradation is learned from the pictures; leave --degradation out",
        )
        step_px, least_px = 2 * self.generator.scale, 16 * self.generator.scale  # blocks of 8 px, margins of 4
        for name in self.phases:
            for crop_px in filter(None, (self.of(name).crop_px, self.of(name).small_crop_px)):
                check(
                    crop_px % step_px == 0 and crop_px >= least_px,
                    f"{name}: a crop of {crop_px} px must be a multiple of {step_px} px and at least {least_px} px, "
                    "since wear is judged in blocks of 8 px of the low picture",
                )

    def _check_judged_sizes(self) -> None:
        """Check that discriminator and VGG19 accept all crop sizes of the adversarial phase, which may be hours
        away."""
        multiple = self.discriminator.size_multiple
        min_px = self.perceptual.min_px if self.adversarial.perceptual_weight else 1
        for name in ("crop_px", "small_crop_px"):
            size_px = getattr(self.adversarial, name)
            check(
                size_px % multiple == 0,
                f"adversarial.{name}, {size_px}, must be a multiple of {multiple} px for the discriminator",
            )
            check(
                size_px == 0 or size_px >= min_px,
                f"adversarial.{name}, {size_px}, is too small for the deepest VGG19 layer in use, which needs "
                f"{min_px} px; take larger crops, or shallower perceptual.layers",
            )

    def _check_pieces(self) -> None:
        """Check that a crop fits into the part of a teacher's piece that is learned from."""
        needed_px = self.largest_crop_px // self.generator.scale + 2 * self.teacher.context_px
        check(
            self.piece_px >= needed_px,
            f"teacher.piece_px, {self.piece_px}, is too small for the crops and twice teacher.context_px: "
            f"they need {needed_px} px of the low picture",
        )

    @property
    def largest_crop_px(self) -> int:
        return max(self.of(phase).crop_px for phase in self.phases)

    @property
    def piece_px(self) -> int:
        """Side of the pieces that a teacher enlarges, in px of the low picture."""
        return self.teacher.piece_side_px(self.largest_crop_px // self.generator.scale)

    @property
    def phases(self) -> tuple[Phase, ...]:
        learning: tuple[Phase, ...] = ("fidelity", "adversarial") if self.phase == "both" else (self.phase,)
        return ("wear", *learning) if self.adaptation.on else learning

    def end_of(self, phase: Phase) -> float:
        """The fraction of the run at which `phase` ends."""
        wear = self.adaptation.wear_fraction if self.adaptation.on else 0.0
        ends = {"wear": wear, "fidelity": wear + (1.0 - wear) * self.fidelity_fraction, "adversarial": 1.0}
        return 1.0 if phase == self.phases[-1] else ends[phase]

    @staticmethod
    def section_of(phase: Phase) -> str:
        """The settings section of a phase."""
        return "adaptation" if phase == "wear" else phase

    def of(self, phase: Phase) -> PhaseSettings:
        if phase == "wear":
            return self.adaptation
        return self.fidelity if phase == "fidelity" else self.adversarial
