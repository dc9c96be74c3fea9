"""Measures the validation pictures of a training run for its monitor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from srgan_cli.dataset.low_pictures import to_tensor
from srgan_cli.imaging.image import Pixels
from srgan_cli.training import losses

Plane = npt.NDArray[np.float64]

_PERIODS = 8  # per side of a block in which a grid is searched for


@dataclass(frozen=True)
class ValidationNumbers:
    """The results of one validation. NaN means unknown; unknown values are not monitored.

    `detail`: square root of the energy above the low picture's Nyquist frequency, divided by that of the originals.
    `diversity`: how much the results differ from each other, divided by how much the originals do.
    `colour_shift`: distance of a picture's mean colour from that of its input, in levels of 255.
    `grid`: strength of patterns that repeat with each px of the low picture, in levels of 255 (see `_grid`).
    `pattern_db`: excess of power over the originals at the worst frequency, in dB (see `_pattern`).
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
    """Measure validation pictures for `Monitor.validation`: (H, W, 3) uint8; `lows` are `scale` times smaller.

    `scores` holds the means of `evaluation.evaluate` for the results, `baseline` those for bicubic enlargement.
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
    """Values by name, for a log; unknown ones are omitted."""
    return {name: value for name, value in asdict(numbers).items() if not math.isnan(value)}


def _grey(picture: Pixels) -> Plane:
    return np.asarray(picture.mean(axis=2, dtype=np.float64))


def _ratio(ours: float, truth: float) -> float:
    return ours / truth if truth > 1e-6 else math.nan


def _fine_energy(plane: Plane, scale: int) -> float:
    """Energy above the Nyquist frequency of a picture `scale` times smaller, horizontally or vertically."""
    height, width = plane.shape
    window = np.outer(np.hanning(height), np.hanning(width))  # otherwise the borders would count as edges
    spectrum = np.fft.rfft2((plane - plane.mean()) * window)
    coarse_y = np.abs(np.fft.fftfreq(height)) <= 0.5 / scale
    coarse_x = np.fft.rfftfreq(width) <= 0.5 / scale
    fine = ~np.logical_and.outer(coarse_y, coarse_x)
    return float(np.sum(np.abs(spectrum[fine]) ** 2)) / plane.size


def _difference(planes: Sequence[Plane]) -> float:
    """Standard deviation across pictures, averaged over their common area; 0 for fewer than two."""
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
    """Strength of the dots or checkerboards that a pixel shuffle leaves, with a period of `scale`, in flat areas.
    Pictures are cut into blocks of 8 × 8 periods, and the quarter with the flattest originals is used. Averaging all
    periods of a block keeps what repeats with that period (or a half or a quarter of it); everything else averages out.
    The result is a standard deviation in levels of 255, after the variance of the originals has been subtracted.
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
    """For each block: the variance of its repeating part, and that of all its fine structure."""
    # Subtracting the mean over exactly one period (for an even period, with both end taps halved) removes slopes and
    # keeps everything that repeats.
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
    # Noise does not average out completely: 1 / (number of periods) of its variance is left, and is subtracted here.
    count = _PERIODS * _PERIODS
    return (count * folded - total) / (count - 1), total


def _pattern(results: Sequence[Pixels], highs: Sequence[Pixels]) -> float:
    """The excess of power that `losses.spectrum` penalises, at the worst frequency, in dB; at least 0.

    Each frequency is averaged with its neighbours: a real pattern spreads over a few frequencies, while chance peaks
    are isolated. Pictures smaller than a window are skipped.
    """
    pairs = [(r, h) for r, h in zip(results, highs, strict=True) if min(r.shape[:2]) >= losses.SPECTRUM_PX]
    if not pairs:
        return math.nan
    ours, truth = (
        torch.cat([losses.log_power(to_tensor(picture)) for picture in side]).mean(dim=0)
        for side in zip(*pairs, strict=True)
    )
    smooth = F.avg_pool2d((ours - truth)[None], kernel_size=3, stride=1)
    return 10 / math.log(10) * max(0.0, float(smooth.max()))
