"""Quality of enlarged pictures: per picture and on average, for one method or several side by side.

Training's validation, `srgan evaluate` and `benchmarks/quality.py` all use this module, so that a number means the same
in all three. Needs neither torch nor pyvips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeAlias

import numpy as np

from srgan_cli.evaluation.metrics import Scores, compare, psnr
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels

Enlarge: TypeAlias = Callable[[Pixels], Pixels]  # (H, W, C) uint8 -> (H·scale, W·scale, C) uint8
NamedPair: TypeAlias = tuple[str, Pixels, Pixels]  # name, low, high

SPREAD = "spread"  # key of the spread among further numbers, in levels of 255


@dataclass(frozen=True)
class Metric:
    """An additional number beside PSNR and SSIM: `measure(result, original)`.

    Both pictures are passed whole, (H, W, 1 or 3) uint8 of the same size; None means that it cannot be measured (too
    small).
    """

    key: str
    measure: Callable[[Pixels, Pixels], float | None]


@dataclass(frozen=True)
class PictureScores:
    """The scores of one picture. `extra` holds those of further metrics, if available.

    `consistency_db`: the PSNR between result and original, both downscaled (see `consistency`).
    """

    name: str
    scores: Scores
    consistency_db: float
    extra: Mapping[str, float] = field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """All numbers by name: those of `Scores`, `consistency_db`, and the extra ones."""
        return {**asdict(self.scores), "consistency_db": self.consistency_db, **self.extra}


@dataclass(frozen=True)
class Evaluation:
    """All pictures, in order."""

    pictures: tuple[PictureScores, ...]

    @property
    def mean(self) -> dict[str, float]:
        """Each number's mean over the pictures that have it; empty without pictures. One infinite PSNR makes the mean
        infinite.

        PSNR is averaged in dB, as is usual, not via the error.
        """
        columns: dict[str, list[float]] = {}
        for picture in self.pictures:
            for key, value in picture.values().items():
                columns.setdefault(key, []).append(value)
        return {key: math.fsum(column) / len(column) for key, column in columns.items()}


def evaluate(enlarge: Enlarge, pairs: Iterable[NamedPair], *, scale: int, extra: Sequence[Metric] = ()) -> Evaluation:
    """Enlarge every low picture and compare it with its original.

    `pairs` are (name, low (H, W, C), high (H·scale, W·scale, C)) of uint8, C of 1 or 3; they are read one at a time.
    The conventions are those of `metrics.compare` with a border of `scale` px. Raises `ValueError` for sizes that do
    not match, and for pictures too small for SSIM (11 px without the border).
    """
    return side_by_side({"": enlarge}, pairs, scale=scale, extra=extra)[""]


def side_by_side(
    methods: Mapping[str, Enlarge],
    pairs: Iterable[NamedPair],
    *,
    scale: int,
    extra: Sequence[Metric] = (),
    again: Mapping[str, Enlarge] | None = None,
    on_result: Callable[[str, Pixels, PictureScores], None] | None = None,
) -> dict[str, Evaluation]:
    """`evaluate` for several methods at once, on the same pictures, each of which is read once.

    `again` are the same methods with different noise: the difference between the two results becomes the number
    `spread`. `on_result` receives each method's name, its enlarged picture and that picture's scores.
    """
    found: dict[str, list[PictureScores]] = {method: [] for method in methods}
    for name, low, high in pairs:
        for method, enlarge in methods.items():
            result = enlarge(low)
            scores = score(name, result, high, scale=scale, extra=extra)
            if again is not None and method in again:
                apart = spread(result, again[method](low))
                scores = replace(scores, extra={**scores.extra, SPREAD: apart})
            found[method].append(scores)
            if on_result is not None:
                on_result(method, result, scores)
    return {method: Evaluation(tuple(scores)) for method, scores in found.items()}


def spread(one: Pixels, other: Pixels) -> float:
    """The difference between two results of one picture, (H, W, C) uint8 each: mean absolute difference, in levels of
    255."""
    return float(np.abs(one.astype(np.float32) - other).mean())


def score(name: str, result: Pixels, high: Pixels, *, scale: int, extra: Sequence[Metric] = ()) -> PictureScores:
    """All numbers of one enlarged picture. Raises as `evaluate` does."""
    scores = compare(result, high, scale)
    more = {metric.key: value for metric in extra if (value := metric.measure(result, high)) is not None}
    return PictureScores(name, scores, consistency(result, high, scale), more)


def consistency(result: Pixels, high: Pixels, scale: int) -> float:
    """PSNR in dB, over RGB, between `result` and `high` when both are downscaled by `scale`.

    By MATLAB's bicubic, rounded to 8 bits, without a border of one px (`scale` px of the high picture, as elsewhere).
    It is high for a picture that agrees with its input, however much detail was invented: networks trained for fidelity
    are above 50 dB; below 35 the colours have shifted. If the low picture is bicubic, this is the distance to it.
    """
    width, height = (max(1, side // scale) for side in (result.shape[1], result.shape[0]))
    ours, truth = (_inside(bicubic(pixels, width, height)) for pixels in (as_rgb(result), as_rgb(high)))
    return psnr(ours, truth)


def _inside(pixels: Pixels) -> Pixels:
    return pixels[1:-1, 1:-1] if min(pixels.shape[:2]) > 2 else pixels


def as_rgb(pixels: Pixels) -> Pixels:
    """(H, W, 1 or 3) -> (H, W, 3)."""
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def bicubic_enlarger(scale: int) -> Enlarge:
    """The field's baseline: MATLAB's bicubic."""
    return lambda low: bicubic(low, low.shape[1] * scale, low.shape[0] * scale)


def lanczos_enlarger(scale: int) -> Enlarge:
    """A strong conventional baseline: Lanczos with three lobes, Pillow's."""

    def enlarge(low: Pixels) -> Pixels:
        from PIL import Image

        height, width, channels = low.shape
        picture = Image.fromarray(low[..., 0] if channels == 1 else low)
        large = picture.resize((width * scale, height * scale), Image.Resampling.LANCZOS)
        return np.asarray(large).reshape(height * scale, width * scale, channels)

    return enlarge
