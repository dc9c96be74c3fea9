"""Settings of unpaired adaptation: learning the wear of pictures that have no originals.

A section of `training_config`, checked in the same way. Since learning the wear is a phase too, names are those of the
other phases' sections where they mean the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srgan_cli.checking import check, check_choice, check_numbers

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MIN_WORN = 8  # with fewer pictures, wear cannot be told from subject


@dataclass(frozen=True)
class AdaptationSettings:
    """A small network, the *wearer*, learns to turn sharp low pictures into ones that look like those of `worn_dirs`.

    For `wear_fraction` of the run only the wearer learns (phase `wear`). Then the generator learns from the wearer's
    results, and the wearer continues to learn every `every_steps` steps. Without `worn_dirs` none of this applies.
    """

    worn_dirs: tuple[str, ...] = ()  # worn low pictures, unpaired
    wear_fraction: float = 0.2  # of the run, wearer only
    every_steps: int = 4  # afterwards, the wearer makes a step after every N steps of the generator; 0: none
    # fraction of crops that are only downscaled, so that clean pictures stay clean (identity)
    clean_fraction: float = 0.1
    # --- the wearer and its discriminator
    features: int = 16
    blocks: int = 2
    blur_px: int = 9  # side of its blur kernel, odd, in px of the low picture
    discriminator_channels: int = 32
    objective: Literal["nonsaturating", "relativistic", "hinge", "least-squares"] = "least-squares"
    adversarial_weight: float = 0.1
    statistics_weight: float = 1.0  # distributions of the coefficients of 8×8 blocks, see wear_losses.BlockStatistics
    low_frequency_weight: float = 20.0  # agreement with the bicubic low picture, in means over 8×8 px
    # L1 of its residual network, so that blur, grain and codecs explain as much as they can
    restraint_weight: float = 5.0
    replay: int = 50  # earlier results, shown to the discriminator in turn with new ones (Zhu et al. 2017); 0: none
    # --- the reverse cycle: F(G(low)) equals low, up to its noise
    cycle_weight: float = 0.5
    cycle_crops: int = 2  # of a batch; 0: none
    hidden_noise: float = 0.5  # std in levels of 255 of the noise added to what one network passes to the other
    # --- how the wearer is trained
    batch: int = 8
    crop_px: int = 256  # of the high picture
    small_crop_px: int = 0
    small_crop_fraction: float = 0.0
    learning_rate: float = 1e-3
    discriminator_learning_rate: float = 4e-4
    schedule: Literal["constant", "cosine", "halfway"] = "constant"
    warmup_steps: int = 20
    optimizer: Literal["adamw"] = "adamw"
    beta1: float = 0.5
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    ema: float = 0.99

    def __post_init__(self) -> None:
        check_learning("adaptation", self, optimizers=("adamw",))
        check_adversary("adaptation", self)
        check_numbers("adaptation", self, {"clean_fraction": (0, 1), "wear_fraction": (0.01, 0.95)})
        check_numbers("adaptation", self, {"features": (1, 256), "blocks": (0, 32), "discriminator_channels": (1, 256)})
        check_numbers("adaptation", self, {"every_steps": (0, 1000), "replay": (0, 1000), "cycle_crops": (0, 4096)})
        check_numbers("adaptation", self, {"hidden_noise": (0, 32), "blur_px": (1, 33)})
        check(self.blur_px % 2 == 1, f"adaptation.blur_px must be odd, so that it has a middle, not {self.blur_px}")

    @property
    def on(self) -> bool:
        """Whether this run uses adaptation."""
        return bool(self.worn_dirs)


def check_learning(section: str, values: object, *, optimizers: Sequence[str] = ("adamw", "muon")) -> None:
    """Check the settings that all phases have: batch, learning rate, optimiser and moving average."""
    check_choice(section, values, schedule=("constant", "cosine", "halfway"), optimizer=tuple(optimizers))
    check_numbers(
        section,
        values,
        {
            "batch": (1, 4096),
            "crop_px": (8, 2048),
            "small_crop_px": (0, 2048),
            "small_crop_fraction": (0, 1),
            "learning_rate": (0, 1),
            "warmup_steps": (0, 1e6),
            "beta1": (0, 0.9999),
            "beta2": (0, 0.99999),
            "weight_decay": (0, 1),
            "clip_norm": (0, 1e6),
            "ema": (0, 0.99999),
        },
    )


def check_adversary(section: str, values: DataclassInstance) -> None:
    """Check the settings of phases with a discriminator: objective, learning rate, and weights of the terms."""
    check_choice(section, values, objective=("nonsaturating", "relativistic", "hinge", "least-squares"))
    check_numbers(section, values, {"discriminator_learning_rate": (0, 1)})
    weights = [one.name for one in dataclasses.fields(values) if one.name.endswith("_weight")]
    check_numbers(section, values, dict.fromkeys(weights, (0, 1000)))
