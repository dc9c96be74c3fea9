"""What the monitor of a training run watches in the validation pictures, as numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from srgan_cli.imaging.image import Pixels
from srgan_cli.training import losses

Plane = npt.NDArray[np.float64]

_PERIODS = 8  # in each direction of a block in which a grid is searched for


@dataclass(frozen=True)
class ValidationNumbers:
    """What a validation gave; NaN is not known, and not watched.

    `detail`: root of the energy in frequencies that the low picture cannot hold, over that of the originals.
    `diversity`: how much the results differ from each other, over how much the originals do.
    `colour_shift`: how far a picture's mean colour is from its input's, in levels of 255.
    `grid`: strength of what repeats with each px of the low picture, in levels of 255 (see `_grid`).
    `pattern_db`: excess of power over the originals at the worst frequency (see `_pattern`).
    """

    psnr_y_db: float = math.nan
    bicubic_psnr_y_db: float = math.nan
    consistency_db: float = math.nan
    bicubic_consistency_db: float = math.nan
    detail: float = math.nan
    diversity: float = math.nan
    colour_shift: float = math.nan
    grid: float = math.nan
    pattern_db: float = math.nan


def picture_numbers(
    results: Sequence[Pixels],
    lows: Sequence[Pixels],
    highs: Sequence[Pixels],
    scale: int,
    scores: Mapping[str, float] | None = None,
    baseline: Mapping[str, float] | None = None,
) -> ValidationNumbers:
    """What `validation` needs to know of pictures (H, W, 3) uint8; `lows` are `scale` times smaller.

    `scores` is the mean of `evaluation.evaluate` for the results, `baseline` the same for bicubic enlargement.
    """
    ours, truth = [_grey(result) for result in results], [_grey(high) for high in highs]
    scores, baseline = scores or {}, baseline or {}
    return ValidationNumbers(
        psnr_y_db=scores.get("psnr_y_db", math.nan),
        bicubic_psnr_y_db=baseline.get("psnr_y_db", math.nan),
        consistency_db=scores.get("consistency_db", math.nan),
        bicubic_consistency_db=baseline.get("consistency_db", math.nan),
        detail=_ratio(math.sqrt(sum(_fine_energy(p, scale) for p in ours)),
                      math.sqrt(sum(_fine_energy(p, scale) for p in truth))),
        diversity=_ratio(_difference(ours), _difference(truth)),
        colour_shift=_colour_shift(results, lows),
        grid=_grid(ours, truth, scale),
        pattern_db=_pattern(results, highs),
    )  # fmt: skip


def as_values(numbers: ValidationNumbers) -> dict[str, float]:
    """By name, for a log; what is not known is left out."""
    return {name: value for name, value in asdict(numbers).items() if not math.isnan(value)}


def _grey(picture: Pixels) -> Plane:
    return np.asarray(picture.mean(axis=2, dtype=np.float64))


def _ratio(ours: float, truth: float) -> float:
    return ours / truth if truth > 1e-6 else math.nan


def _fine_energy(plane: Plane, scale: int) -> float:
    """Energy of the frequencies above the Nyquist frequency of a picture `scale` times smaller, in either direction."""
    height, width = plane.shape
    window = np.outer(np.hanning(height), np.hanning(width))  # or the borders would count as edges
    spectrum = np.fft.rfft2((plane - plane.mean()) * window)
    coarse_y = np.abs(np.fft.fftfreq(height)) <= 0.5 / scale
    coarse_x = np.fft.rfftfreq(width) <= 0.5 / scale
    fine = ~np.logical_and.outer(coarse_y, coarse_x)
    return float(np.sum(np.abs(spectrum[fine]) ** 2)) / plane.size


def _difference(planes: Sequence[Plane]) -> float:
    """Standard deviation among pictures, averaged over the pixels that all of them have; 0 for less than two."""
    if len(planes) < 2:
        return 0.0
    height, width = (min(plane.shape[axis] for plane in planes) for axis in (0, 1))
    return float(np.mean(np.std([plane[:height, :width] for plane in planes], axis=0)))


def _colour_shift(results: Sequence[Pixels], lows: Sequence[Pixels]) -> float:
    shifts = [
        np.max(np.abs(result.mean(axis=(0, 1)) - low.mean(axis=(0, 1))))
        for result, low in zip(results, lows, strict=True)
    ]
    return float(np.mean(shifts)) if shifts else math.nan


def _grid(results: Sequence[Plane], highs: Sequence[Plane], scale: int) -> float:
    """The dots or checkers that a pixel shuffle leaves, which have its period and stand out where nothing else is.

    Pictures are cut into blocks of 8 periods; the flattest quarter, by the originals, is looked at. There, what repeats
    with the period stays when all periods of a block are superimposed and averaged (periods of a half and a
    quarter are among it), and everything else averages out. Standard deviation in levels, less the originals' own.
    """
    ours = [_repeating(result, scale)[0] for result in results]
    truth = [_repeating(high, scale) for high in highs]
    blocks = np.array([value for picture in ours for value in picture])
    if not blocks.size:
        return math.nan
    own, total = (np.concatenate([picture[i] for picture in truth]) for i in (0, 1))
    flat = np.argsort(total, kind="stable")[: max(1, total.size // 4)]
    return math.sqrt(max(0.0, float(np.mean(blocks[flat]) - np.mean(own[flat]))))


def _repeating(plane: Plane, period: int) -> tuple[Plane, Plane]:
    """For each block: the variance of what repeats in it, and that of all its fine structure."""
    # A mean over exactly one period (where that is even, with both ends by half) takes slopes away and leaves all that
    # repeats.
    taps = np.ones(period + 1 - period % 2)
    if period % 2 == 0:
        taps[[0, -1]] = 0.5
    taps /= taps.sum()
    fine = plane - cv2.sepFilter2D(plane, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REFLECT_101)
    side = _PERIODS * period
    rows, columns = (length // side for length in plane.shape)
    fine = fine[: rows * side, : columns * side]
    blocks = fine.reshape(rows, _PERIODS, period, columns, _PERIODS, period)
    mean_period = blocks.mean(axis=(1, 4))  # -> (rows, period, columns, period)
    folded, total = mean_period.var(axis=(1, 3)).ravel(), blocks.var(axis=(1, 2, 4, 5)).ravel()
    # Noise does not quite average out: of its variance, one part in as many as there are periods is left.
    count = _PERIODS * _PERIODS
    return (count * folded - total) / (count - 1), total


def _pattern(results: Sequence[Pixels], highs: Sequence[Pixels]) -> float:
    """The excess of power that `losses.spectrum` penalises, at the worst frequency, in dB; at least 0.

    Frequencies are averaged with their neighbours, since a pattern that follows the picture's edges is a little wider
    than one frequency, and chance is not. Pictures that are smaller than a window are left out.
    """
    pairs = [(r, h) for r, h in zip(results, highs, strict=True) if min(r.shape[:2]) >= losses.SPECTRUM_PX]
    if not pairs:
        return math.nan
    ours, truth = (torch.cat([losses.log_power(_tensor(pair[side])) for pair in pairs]).mean(dim=0) for side in (0, 1))
    smooth = F.avg_pool2d((ours - truth)[None], kernel_size=3, stride=1)
    return 10 / math.log(10) * max(0.0, float(smooth.max()))


def _tensor(picture: Pixels) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
