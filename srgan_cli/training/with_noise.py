"""Validation with noise, for networks that learn to draw detail from it: scores, and whether the noise has an effect.

The main validation uses no noise, so that its scores are comparable with those of other networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from srgan_cli.dataset.low_pictures import to_tensor
from srgan_cli.evaluation.evaluate import SPREAD
from srgan_cli.networks.noise import Noise
from srgan_cli.training import validation
from srgan_cli.training.run import Run
from srgan_cli.training.steps import Autocast
from srgan_cli.training.validation import ValidationPair, middle

_SPREAD_PX = 64  # side of the middle of a low picture
_SCORES = ("psnr_y_db", "ssim_y", "consistency_db")


def measure(run: Run, pairs: Sequence[ValidationPair], autocast: Autocast) -> dict[str, float]:
    """The scores of `run`'s moving average with full noise of seed 0, and the difference in levels of 255 between the
    results of two seeds (`SPREAD`). Empty without pictures."""
    if not pairs:
        return {}
    found, results = validation.validate(run.ema, pairs, run.device, autocast, Noise())
    values = {name: found.mean[name] for name in _SCORES}
    if run.perceptual is not None:
        values["perceptual"] = validation.perceptual_distance(
            run.perceptual.features, pairs, results, run.ema.scale, run.autocast
        )
    return {**values, SPREAD: _spread(run, pairs)}


@torch.inference_mode()
def _spread(run: Run, pairs: Sequence[ValidationPair]) -> float:
    """The mean over the middles of all pictures, not rounded: the difference may be less than a level."""

    def drawn(low: Tensor, seed: int) -> Tensor:
        with run.autocast():
            result: Tensor = run.ema(low, Noise(seed))
        return result.float().clamp(0, 1)

    lows = [to_tensor(middle(pair.low, _SPREAD_PX, 1)).to(run.device) for pair in pairs]
    apart = [(drawn(low, 0) - drawn(low, 1)).abs().mean() for low in lows]
    return 255.0 * float(torch.stack(apart).mean())
