"""Appearance of worn pictures as numbers (noise, blur and blocking), for real ones and a wearer's results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.signs import blocking_of, noise_of
from srgan_cli.imaging.standards import luma

Plane = npt.NDArray[np.float32]

_EDGE_PX = 9  # length of the stretches in which edges are searched
_EDGES = 0.02  # fraction of all stretches: those with the largest range
_STEEPEST_OF_SIGMA = math.sqrt(2 * math.pi)  # range / steepest step of an ideal edge, blurred by a Gaussian of 1 px


@dataclass(frozen=True)
class Appearance:
    """Means over pictures. `noise` in levels of 255 and `blocking` (1: none) as in `imaging.signs`, in the quietest
    parts. `blur_px`: for the strongest edges, the standard deviation of the Gaussian that would blur a step as much;
    horizontally (edges along rows) and vertically. An ideal step of pixels has 0.4."""

    noise: float = math.nan
    blur_across_px: float = math.nan
    blur_down_px: float = math.nan
    blocking: float = math.nan


@dataclass(frozen=True)
class WearNumbers:
    """The results of a wearer's validation; NaN means unknown.

    `colour_shift`: difference of its results' mean colour from the bicubic pictures', in levels of 255. `variation`:
    the standard deviation of a pixel over seeds, in levels. `accuracy` of its discriminator on held-out pictures, 0 …
    1. What noise of 2 levels costs beyond what is to be expected: `hidden_db`, G's enlargements, if it is added to F's
    results; `returned_db`, F's low pictures, if it is added to G's enlargements of real worn ones.
    """

    real: Appearance
    made: Appearance
    colour_shift: float = math.nan
    variation: float = math.nan
    accuracy: float = math.nan
    hidden_db: float = math.nan
    returned_db: float = math.nan

    @property
    def sentence(self) -> str:
        """A summary for the user, at the end of the phase `wear`."""
        made, real = (
            f"noise {one.noise:.1f}, blur {one.blur_across_px:.1f} × {one.blur_down_px:.1f} px, blocking "
            f"{one.blocking:.1f}"
            for one in (self.made, self.real)
        )
        return f"the wear that was learned: {made}; real worn pictures: {real} (wear.png shows both)"

    def plain(self) -> dict[str, float]:
        """By name, for a log; unknown values are left out."""
        appearances = {f"{name}_{key}": value for name, one in (("real", self.real), ("made", self.made))
                 for key, value in asdict(one).items()}  # fmt: skip
        others = {key: value for key, value in vars(self).items() if isinstance(value, float)}
        return {key: value for key, value in (appearances | others).items() if math.isfinite(value)}


def appearance_of(pictures: Sequence[Pixels]) -> Appearance:
    """For low pictures (H, W, 3) uint8, at least 16 px per side."""
    if not pictures:
        return Appearance()
    lumas: list[Plane] = [luma(picture, np.float32) for picture in pictures]
    return Appearance(
        noise=float(np.mean([noise_of(one) for one in lumas])),
        blur_across_px=float(np.mean([_edge_blur_px(one) for one in lumas])),
        blur_down_px=float(np.mean([_edge_blur_px(one.T) for one in lumas])),
        blocking=float(np.mean([blocking_of(one) for one in lumas])),
    )


def _edge_blur_px(luma: Plane) -> float:
    """The blur of the strongest edges along rows: range / steepest step, in stretches of 9 px."""
    stretches = np.lib.stride_tricks.sliding_window_view(luma, _EDGE_PX, axis=1)[:, ::4]
    reach = (stretches.max(axis=2) - stretches.min(axis=2)).ravel()
    steepest = np.abs(np.diff(stretches, axis=2)).max(axis=2).ravel()
    strong = np.argsort(reach, kind="stable")[-max(1, int(len(reach) * _EDGES)) :]
    return float(np.median(reach[strong] / np.maximum(steepest[strong], 1e-3))) / _STEEPEST_OF_SIGMA
