"""Training settings for data: the pictures, how low pictures are made from them, and a teacher.

Sections of `training_config`, checked in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from srgan_cli.checking import check, check_choice, check_numbers

DegradationKind: TypeAlias = Literal["bicubic", "photo"]


@dataclass(frozen=True)
class DataSettings:
    """The pictures to learn from. `levels`: each picture is also stored downscaled by these factors; crops come from
    all of them."""

    high_dirs: tuple[str, ...] = ()
    low_dirs: tuple[str, ...] = ()  # paired data: same names as in high_dirs; no degradation is applied
    val_dir: str | None = None
    val_low_dir: str | None = None
    val_fraction: float = 0.02  # fraction of the pictures held out, chosen by hash, if there is no val_dir …
    val_max: int = 16  # … but at most this many (and at least one of each 12 pictures, up to 4)
    levels: tuple[float, ...] = (1.0, 0.75, 0.5)
    augment: bool = True  # flips and quarter turns
    grey: bool = False  # convert the pictures to grey, to train a model for grey pictures
    min_jpeg_quality: int = 70  # JPEGs of lower quality are left out; 0 accepts all
    min_std: float = 2.0  # standard deviation of grey levels (of 255) below which a picture counts as flat
    cache_dir: str | None = None  # None: in the user's cache folder

    def __post_init__(self) -> None:
        check_numbers(
            "data",
            self,
            {
                "val_fraction": (0, 0.5),
                "val_max": (1, 1000),
                "min_jpeg_quality": (0, 100),
                "min_std": (0, 128),
            },
        )
        check(bool(self.levels) and all(0.1 <= level <= 1 for level in self.levels), "data.levels go from 0.1 to 1")
        check(not self.val_low_dir or bool(self.val_dir), "data.val_low_dir needs data.val_dir")


@dataclass(frozen=True)
class DegradationSettings:
    """How the low picture is made from the high one.

    `photo`: blur, resizing, noise and compression, `rounds` times, drawn again for every crop. Ranges are (min, max).
    Blur in px of the picture it is applied to; noise as standard deviation in levels of 255; `poisson` is the inverse
    of photons per level. `strength` scales blur, noise, compression loss and (up to 1) the range of resizing together;
    at 0 only bicubic downscaling is left. Noise, poisson and resize are drawn uniformly on a logarithmic scale.
    """

    kind: Literal["bicubic", "photo", "learned"] = "bicubic"
    wear: str | None = None  # for learned: the run folder or file that holds the wearer
    strength: float = 1.0
    rounds: int = 2
    blur_fraction: float = 0.8  # fraction of crops that are blurred in a round
    blur_px: tuple[float, float] = (0.2, 2.0)  # standard deviation along the longer axis; for a disc, half the radius
    last_blur: float = 1.0  # factor on `blur_px` in the second of two rounds
    ringing_fraction: float = 0.0  # fraction of a round's blurred crops: a sinc filter (ringing) instead of the blur
    final_ringing_fraction: float = 0.0  # fraction of crops: another sinc filter, before or after the last compression
    ringing_cutoff: tuple[float, float] = (0.33, 1.0)  # relative to the Nyquist frequency; 1 passes everything
    resize: tuple[float, float] = (0.3, 1.3)  # in the first round; the last round ends at 1 / scale
    noise: tuple[float, float] = (1.0, 20.0)
    poisson: tuple[float, float] = (0.05, 2.0)
    grey_noise_fraction: float = 0.4
    noise_fraction: float = 0.8
    jpeg_quality: tuple[float, float] = (30.0, 95.0)
    compression_fraction: float = 0.8
    webp_fraction: float = 0.2  # fraction of what is compressed
    # fraction of crops that are only downscaled, so that the network leaves clean pictures clean
    clean_fraction: float = 0.1
    sharpen_target: float = 0.0  # unsharp mask on the high crop; Real-ESRGAN uses 0.5 in GAN training

    def __post_init__(self) -> None:
        check_choice("degradation", self, kind=("learned", *get_args(DegradationKind)))
        check(
            (self.kind == "learned") == (self.wear is not None),
            "degradation.kind must be learned if degradation.wear names a run that has learned wear, and only then",
        )
        fractions = (
            "blur_fraction",
            "ringing_fraction",
            "final_ringing_fraction",
            "grey_noise_fraction",
            "noise_fraction",
            "compression_fraction",
            "webp_fraction",
            "clean_fraction",
        )
        check_numbers("degradation", self, dict.fromkeys(fractions, (0, 1)))
        ranges = {"strength": (0, 4), "rounds": (1, 2), "last_blur": (0, 2), "sharpen_target": (0, 2)}
        check_numbers("degradation", self, ranges)
        limits = {
            "blur_px": (0.0, 16.0),
            "ringing_cutoff": (0.1, 1.0),
            "resize": (0.1, 4.0),
            "noise": (0.0, 100.0),
            "poisson": (0.0, 10.0),
            "jpeg_quality": (1.0, 100.0),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            check(
                len(value) == 2 and least <= value[0] <= value[1] <= most,
                f"degradation.{name} must be two rising numbers between {least:g} and {most:g}, not {value!r}",
            )


def degradation_called(name: str) -> Mapping[str, Any]:
    """The settings that `--degradation NAME` stands for: a built-in kind, or the wear that a run has learned."""
    return {"kind": name} if name in get_args(DegradationKind) else {"kind": "learned", "wear": name}


@dataclass(frozen=True)
class TeacherSettings:
    """A stronger network whose results are learned from (distillation). Without a `model`, none of this applies.

    The teacher sees the same low pictures as the student, so no original is needed: `unlabelled_dirs` hold pictures
    like those to be enlarged. In the fidelity phase the target is a mix of the teacher's results and the originals, by
    `weight`. In the adversarial phase the teacher's results are the target of every term that compares pixels or
    features.
    """

    model: str | None = None  # a model's name, a file (srgan's or another program's) or a run folder
    # weight of the teacher's results in the fidelity phase against the originals; 1: the teacher only
    weight: float = 1.0
    real: Literal["original", "teacher", "both"] = "teacher"  # what the discriminator is shown as real
    # kept: stored on disk before the first step; inline: computed for each batch; auto: inline on a GPU, else kept
    results: Literal["auto", "kept", "inline"] = "auto"
    crops: int = 0  # number of pieces to store; 0: as many as can be made in `budget_fraction` of the budget
    budget_fraction: float = 0.33
    piece_px: int = 0  # side of a piece, in px of the low picture; 0: 96, or more where crops need it
    # px of the low picture around a piece (or an inline crop) that the teacher sees but are not learned from
    context_px: int = 12
    unlabelled_dirs: tuple[str, ...] = ()  # low pictures without an original, labelled by the teacher
    unlabelled_fraction: float = 0.25  # fraction of the training data, if there are any

    def __post_init__(self) -> None:
        check_choice("teacher", self, real=("original", "teacher", "both"), results=("auto", "kept", "inline"))
        check_numbers("teacher", self, dict.fromkeys(("weight", "unlabelled_fraction"), (0, 1)))
        check_numbers("teacher", self, {"budget_fraction": (0.01, 0.9), "crops": (0, 1e7), "context_px": (0, 256)})
        check(
            self.piece_px == 0 or 8 <= self.piece_px <= 1024,
            f"teacher.piece_px must be between 8 and 1024, or 0, not {self.piece_px!r}",
        )
        check(
            self.model is not None or not self.unlabelled_dirs,
            "pictures without originals can only be learned from with a teacher: name one with --teacher",
        )

    def piece_side_px(self, largest_crop_px: int) -> int:
        """Side of a piece in low px, for crops of at most `largest_crop_px` low px."""
        usual = max(96, -(-(largest_crop_px + 2 * self.context_px) // 16) * 16)  # some networks need multiples of 16
        return self.piece_px or usual
