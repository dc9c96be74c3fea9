"""Quality of the network on held-out pictures: the same ones each time, scored as `srgan evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from srgan_cli.dataset.cache import unchanged
from srgan_cli.dataset.low_pictures import low_picture, to_pixels, to_tensor
from srgan_cli.dataset.pictures import read_pixels, without_colours
from srgan_cli.dataset.scan import Scan
from srgan_cli.evaluation.evaluate import Evaluation, evaluate
from srgan_cli.evaluation.perceptual import vgg_distance
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.features import VGGFeatures
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.noise import Noise
from srgan_cli.training.steps import Autocast
from srgan_cli.training_config import TrainConfig

# Larger pictures are cropped to their middle, so that validation is quick. The usual test sets are smaller.
_MAX_PX = 768
_PERCEPTUAL_PX = 192


@dataclass(frozen=True)
class ValidationPair:
    """A low picture and its original: (H, W, 3) and (H·scale, W·scale, 3), uint8."""

    name: str
    low: Pixels
    high: Pixels


def held_out(config: TrainConfig, scan: Scan, scale: int) -> list[ValidationPair]:
    """The held-out pictures, with their low ones."""
    pairs = []
    for index, picture in enumerate(scan.val):
        high = unchanged(picture.path, (picture.height, picture.width))
        if picture.low is not None:
            low, high = aligned(read_pixels(picture.low), high, _MAX_PX, scale)
        else:
            high = middle(high, _MAX_PX, scale)
            low = low_picture(high, config.degradation, scale, config.seed, index)
        if config.data.grey:
            low, high = without_colours(low), without_colours(high)
        pairs.append(ValidationPair(picture.path.name, low, high))
    return pairs


def middle(pixels: Pixels, max_px: int, multiple: int) -> Pixels:
    """The middle of a picture, at most `max_px` per side, with sides that are multiples of `multiple`."""
    height, width = (min(side, max_px) // multiple * multiple for side in pixels.shape[:2])
    top, left = ((side - kept) // 2 for side, kept in zip(pixels.shape[:2], (height, width), strict=True))
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def aligned(low: Pixels, high: Pixels, max_px: int, scale: int) -> tuple[Pixels, Pixels]:
    """The middle of a pair, at most `max_px` per side of the high picture, starting at the same position in both.

    High pictures may have up to `scale` - 1 extra px, below and on the right; these are cut off as in the cache.
    """
    kept = middle(low, max_px // scale, 1)
    top, left = ((side - part) // 2 * scale for side, part in zip(low.shape[:2], kept.shape[:2], strict=True))
    height, width = kept.shape[0] * scale, kept.shape[1] * scale
    return kept, np.ascontiguousarray(high[top : top + height, left : left + width])


def baseline(pairs: Sequence[ValidationPair], scale: int) -> Evaluation:
    """Scores of bicubic enlargement, which every network should exceed."""
    return evaluate(
        lambda low: bicubic(low, low.shape[1] * scale, low.shape[0] * scale),
        ((pair.name, pair.low, pair.high) for pair in pairs),
        scale=scale,
    )


def validate(
    generator: Generator,
    pairs: Sequence[ValidationPair],
    device: torch.device,
    autocast: Autocast,
    noise: Noise | None = None,
) -> tuple[Evaluation, list[Pixels]]:
    """Scores and results of `generator`, whose mode is restored. Without `noise` it draws nothing."""
    results: list[Pixels] = []

    def enlarge(low: Pixels) -> Pixels:
        with torch.inference_mode(), autocast():
            picture = to_tensor(low).to(device).to(memory_format=torch.channels_last)
            results.append(to_pixels(generator(picture, noise)))
        return results[-1]

    training = generator.training
    generator.eval()
    try:
        scores = evaluate(enlarge, ((pair.name, pair.low, pair.high) for pair in pairs), scale=generator.scale)
    finally:
        generator.train(training)
    return scores, results


def sample_crop(pair: ValidationPair, result: Pixels, scale: int, max_px: int) -> tuple[Pixels, Pixels, Pixels]:
    """The middle of a picture: low, result and high, at most `max_px` per side of the high ones."""
    low = middle(pair.low, max_px // scale, 1)
    top, left = ((side - kept) // 2 * scale for side, kept in zip(pair.low.shape[:2], low.shape[:2], strict=True))
    height, width = low.shape[0] * scale, low.shape[1] * scale
    return low, result[top : top + height, left : left + width], pair.high[top : top + height, left : left + width]


def perceptual_distance(
    features: VGGFeatures, pairs: Sequence[ValidationPair], results: Sequence[Pixels], scale: int, autocast: Autocast
) -> float:
    """Distance of results from originals in VGG's features: the mean over the pictures' middles, since VGG is slow."""
    device = next(features.parameters()).device
    total = 0.0
    for pair, result in zip(pairs, results, strict=True):
        _, ours, high = sample_crop(pair, result, scale, _PERCEPTUAL_PX)
        with autocast():
            total += vgg_distance(features, to_tensor(ours).to(device), to_tensor(high).to(device))
    return total / max(1, len(results))
