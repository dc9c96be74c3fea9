"""`--model auto`: which bundled model suits a picture, and why. Does not need torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srgan_cli.errors import PictureError
from srgan_cli.imaging.signs import Signs, file_signs, find_signs

# The two candidates.
CLEAN, WORN = "srgan", "photo"

# Measured on BSD100 and Set14, see docs/MODELS.md: the thresholds above which `photo` does better than `srgan`.
WORN_QUALITY = {"JPEG": 95, "WebP": 90}
# Noise is finer than the texture that could be mistaken for it: at half size noise is half as strong, and texture is
# stronger.
# Above these thresholds are, of BSD100's clean pictures of 120 × 80, 240 × 160 and 480 × 320 px, 1, 4 and 2 %; with
# noise of 3 levels in each colour (2 in luma) 78, 97 and 98 %; with 4.5 levels 94, 100 and 100 %. `SURE_NOISE` is above
# the value of any clean picture.
WORN_NOISE, MAX_GRAIN_OF_NOISE = 1.6, 1.3
SURE_NOISE = 6.0
# Coarse grain with little fine noise: old scans that were enlarged, and 1 to 2 % of clean pictures (6 % of those of 120
# × 80 px, which have no quiet areas left at half size).
WORN_GRAIN, MIN_GRAIN_OF_SCANS, MIN_PX_FOR_GRAIN = 4.0, 3.0, 20_000
# All 228 low pictures of BSD100 and Set14 at ×2 and ×4 are at or below 1.06, as are 50 of them as JPEGs of quality 97.
WORN_BLOCKING = 1.08
# Of all pictures above and their grey versions, the largest value is 0.043, and 0.034 of 40 drawings with smooth edges
# (`benchmarks.drawings`). Of those dithered to 256 colours, more than half are above; to 64 colours, all.
WORN_DITHER = 0.05


@dataclass(frozen=True)
class ModelChoice:
    """A model family, and the reason as a phrase ("JPEG of quality 62")."""

    model: str
    why: str


def choose_model(source: Path | bytes, *, max_pixels: int) -> ModelChoice:
    """Examine a picture (its header, and if that is not conclusive a strip of its pixels) and choose a model.

    For pictures that cannot be decoded the result is `CLEAN`; the error is reported when the picture is read.
    """
    try:
        codec, quality = file_signs(source)
        if _is_low(codec, quality):
            return ModelChoice(WORN, f"{codec} of quality {quality}")
        return judge(find_signs(source, max_pixels=max_pixels))
    except PictureError:
        return ModelChoice(CLEAN, "it could not be examined")


def judge(signs: Signs) -> ModelChoice:
    """The choice for a picture with these signs."""
    if _is_low(signs.codec, signs.quality):
        return ModelChoice(WORN, f"{signs.codec} of quality {signs.quality}")
    if signs.one_bit:
        return ModelChoice(WORN, "only two levels, so its edges are jagged")
    if signs.dither >= WORN_DITHER:
        return ModelChoice(WORN, "few colours: dithered, or drawn without smooth edges")
    if signs.was_jpeg_of is not None:
        return ModelChoice(WORN, f"it was once a JPEG of quality {signs.was_jpeg_of}")
    if signs.noise >= SURE_NOISE or signs.noise >= max(WORN_NOISE, signs.grain / MAX_GRAIN_OF_NOISE):
        return ModelChoice(WORN, f"noisy: a standard deviation of about {signs.noise:.0f} levels")
    coarse = signs.grain >= max(WORN_GRAIN, MIN_GRAIN_OF_SCANS * signs.noise)
    if coarse and signs.pixels >= MIN_PX_FOR_GRAIN:
        return ModelChoice(
            WORN, f"coarse grain: a standard deviation of about {signs.grain:.0f} levels at half the size"
        )
    if signs.blocking >= WORN_BLOCKING and signs.may_be_jpeg:
        return ModelChoice(WORN, "blocks of 8 px, so it was once compressed more strongly")
    if signs.quality is not None:
        return ModelChoice(CLEAN, f"{signs.codec} of quality {signs.quality}, and no visible noise")
    return ModelChoice(CLEAN, "neither visibly compressed nor noisy")


def _is_low(codec: str | None, quality: int | None) -> bool:
    return codec is not None and quality is not None and quality < WORN_QUALITY.get(codec, 0)
