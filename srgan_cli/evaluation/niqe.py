"""NIQE: how natural a picture looks, without an original to compare with. Lower is better.

A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'completely blind' image quality analyzer", IEEE Signal Processing
Letters 20(3), 2013. Sharp photographs have regular statistics: locally normalised brightness, and the products of
neighbouring values, follow generalised Gaussians whose shapes vary little. The score is the distance of a picture's
statistics from these.

The statistics of good photographs are in `niqe.json`, which was fitted by this module on srgan's training pictures:

    python -m srgan_cli.evaluation.niqe FOLDER > niqe.new && mv niqe.new srgan_cli/evaluation/niqe.json

So its values are comparable only with each other, not with published ones.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from srgan_cli.evaluation.metrics import Plane, gaussian, grey_plane
from srgan_cli.evaluation.pairs import read_rgb
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels

_BLOCK_PX = 96  # the paper's, section II-B
_SCALES = 2
_WINDOW_PX, _SIGMA_PX = 7, 7 / 6
_SHARPNESS_FRACTION = 0.75  # T of section II-B: blocks below this fraction of the sharpest are not used for fitting
_MIN_BLOCKS = 2  # a single block has no covariance
_FEATURES = 18 * _SCALES


@dataclass(frozen=True)
class NaturalModel:
    """A multivariate Gaussian of block features: mean (36,), covariance (36, 36)."""

    mean: npt.NDArray[np.float64]
    covariance: npt.NDArray[np.float64]


def niqe(picture: Pixels, model: NaturalModel | None = None) -> float | None:
    """The score of a picture (H, W, 1 or 3) of uint8: eq. 10 of the paper.

    About 2 to 4 for good photographs, 6 to 7 for their bicubic enlargements at ×4.

    None if fewer than two blocks of 96 × 96 px have any structure (a small or a flat picture).
    """
    blocks, _ = _block_features(grey_plane(picture))
    if len(blocks) < _MIN_BLOCKS:
        return None
    natural = model or bundled_model()
    apart = natural.mean - blocks.mean(axis=0)
    together = (natural.covariance + np.cov(blocks, rowvar=False)) / 2
    return float(math.sqrt(apart @ np.linalg.pinv(together) @ apart))


def fit(pictures: Iterable[Pixels]) -> NaturalModel:
    """A model of good pictures, fitted to each one's sharpest blocks. Raises `ValueError` for too few blocks."""
    chosen = []
    for picture in pictures:
        blocks, sharpness = _block_features(grey_plane(picture))
        if len(blocks):
            chosen.append(blocks[sharpness > _SHARPNESS_FRACTION * sharpness.max()])
    features = np.concatenate(chosen) if chosen else np.empty((0, _FEATURES))
    if len(features) <= _FEATURES:
        raise ValueError(f"{len(features)} sharp blocks of {_BLOCK_PX} px are too few to fit {_FEATURES} features")
    return NaturalModel(features.mean(axis=0), np.cov(features, rowvar=False))


# ------------------------------------------------------------------------------------------------------------ features


def _block_features(plane: Plane) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(H, W) in 0 … 255 -> features (blocks, 36) and sharpness (blocks,), of the blocks that have structure."""
    down, across = (side // _BLOCK_PX for side in plane.shape)
    if down * across == 0:
        return np.empty((0, _FEATURES)), np.empty(0)
    plane = plane[: down * _BLOCK_PX, : across * _BLOCK_PX]
    columns, sharpness = [], np.empty(0)
    for level in range(_SCALES):
        normal, deviation = _normalised(plane)
        side_px = _BLOCK_PX >> level
        columns.append(_statistics(_blocks(normal, side_px)))
        if level == 0:
            sharpness = _blocks(deviation, side_px).mean(axis=(1, 2))
        plane = bicubic(plane, plane.shape[1] // 2, plane.shape[0] // 2)
    features = np.concatenate(columns, axis=1)
    usable = np.isfinite(features).all(axis=1)
    return features[usable], sharpness[usable]


def _normalised(plane: Plane) -> tuple[Plane, Plane]:
    """Brightness minus its local mean, divided by its local deviation (eq. 1), and that deviation."""
    mean = _smooth(plane)
    deviation = np.sqrt(np.abs(_smooth(plane * plane) - mean * mean))
    return (plane - mean) / (deviation + 1), deviation


def _smooth(plane: Plane) -> Plane:
    taps = gaussian(_WINDOW_PX, _SIGMA_PX)
    return np.asarray(cv2.sepFilter2D(plane, cv2.CV_64F, taps, taps, borderType=cv2.BORDER_REPLICATE))


def _blocks(plane: Plane, side_px: int) -> npt.NDArray[np.float64]:
    """(H, W), multiples of the side -> (blocks, side, side)."""
    down, across = plane.shape[0] // side_px, plane.shape[1] // side_px
    return plane.reshape(down, side_px, across, side_px).swapaxes(1, 2).reshape(-1, side_px, side_px)


def _statistics(blocks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(blocks, side, side) of normalised brightness -> (blocks, 18): its shape and width, and for the products of
    neighbours in four directions shape, mean, left and right width (section II-A). Not finite for flat blocks."""
    shape, left, right, _ = _asymmetric_gaussian(blocks)
    features = [shape, (left + right) / 2]
    products = (
        blocks[:, :, :-1] * blocks[:, :, 1:],
        blocks[:, :-1, :] * blocks[:, 1:, :],
        blocks[:, :-1, :-1] * blocks[:, 1:, 1:],
        blocks[:, :-1, 1:] * blocks[:, 1:, :-1],
    )
    for product in products:
        shape, left, right, mean = _asymmetric_gaussian(product)
        features += [shape, mean, left, right]
    return np.stack(features, axis=1)


def _asymmetric_gaussian(samples: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Shape, left width, right width and mean of an asymmetric generalised Gaussian (eq. 7 and 8), each (blocks,).

    By moment matching, as in N.-E. Lasmar, Y. Stitou, Y. Berthoumieu, "Multiscale skewed heavy tailed model for texture
    analysis", ICIP 2009.
    """
    samples = samples.reshape(len(samples), -1)
    square = samples * samples
    negative = samples < 0
    with np.errstate(divide="ignore", invalid="ignore"):
        left_rms = np.sqrt((square * negative).sum(axis=1) / negative.sum(axis=1))
        right_rms = np.sqrt((square * (samples > 0)).sum(axis=1) / (samples > 0).sum(axis=1))
        skew = left_rms / right_rms
        ratio = np.abs(samples).mean(axis=1) ** 2 / square.mean(axis=1)
        ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shapes, ratios, widths, means = _shape_table()
    known = np.isfinite(ratio)
    at = np.clip(np.searchsorted(ratios, np.where(known, ratio, 0.0)), 0, len(shapes) - 1)
    left, right = left_rms * widths[at], right_rms * widths[at]
    return np.where(known, shapes[at], np.nan), left, right, (right - left) * means[at]


@cache
def _shape_table() -> tuple[npt.NDArray[np.float64], ...]:
    """For shapes from 0.2 to 10: (E|x|)²/E[x²], which increases with the shape; width / deviation; mean / width."""
    shapes = np.arange(0.2, 10.0005, 0.001)
    one, two, three = (np.array([math.gamma(order / shape) for shape in shapes]) for order in (1, 2, 3))
    return shapes, two * two / (one * three), np.sqrt(one / three), two / one


# ----------------------------------------------------------------------------------------------------------- the model


@cache
def bundled_model() -> NaturalModel:
    """The statistics of good photographs, as fitted and stored beside this module."""
    values = json.loads(Path(__file__).with_name("niqe.json").read_text(encoding="utf-8"))
    covariance = np.zeros((_FEATURES, _FEATURES))
    for row, numbers in enumerate(values["covariance"]):
        covariance[row, : row + 1] = covariance[: row + 1, row] = numbers
    return NaturalModel(np.array(values["mean"]), covariance)


def as_json(model: NaturalModel, about: str) -> str:
    """The model's file: the mean, and the covariance's lower triangle row by row, to eight digits."""
    mean = [_short(value) for value in model.mean]
    rows = [[_short(value) for value in row[: number + 1]] for number, row in enumerate(model.covariance)]
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{{"about": {json.dumps(about)},\n"mean": {json.dumps(mean)},\n"covariance": [\n{lines}\n]}}\n'


def _short(value: float) -> float:
    return float(f"{value:.8g}")


def _main(folder: Path) -> None:
    """Fit on all pictures of a folder, and write the model to stdout."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    model = fit(map(read_rgb, paths))
    about = f"fitted by python -m srgan_cli.evaluation.niqe on {len(paths)} photographs"
    sys.stdout.write(as_json(model, about))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
