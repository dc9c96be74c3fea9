"""Perceptual distance of a picture from its original, by VGG19's features."""

from __future__ import annotations

import torch
from torch import Tensor

from srgan_cli.dataset.low_pictures import to_tensor
from srgan_cli.imaging.image import Pixels
from srgan_cli.networks.features import VGGFeatures


@torch.no_grad()
def vgg_distance(features: VGGFeatures, result: Tensor, high: Tensor) -> float:
    """The mean absolute difference of two pictures' features divided by the mean absolute feature of the original, at
    the deepest layer of `features` (shallow layers measure pixel differences, as PSNR does).

    Both are (N, 3, H, W), RGB in [0, 1]. 0 for equal pictures. The reported value is for conv3_4 before its ReLU, for
    which bicubic has a mean of 0.645 on Set14 at scale 4.
    """
    ours, theirs = features(result), features(high)
    deepest = features.layers[-1]
    return relative_difference(ours[deepest].float(), theirs[deepest].float())


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    """The mean absolute difference over the mean absolute value of `theirs`."""
    size = float(theirs.abs().mean())
    return float((ours - theirs).abs().mean()) / max(size, 1e-8)


def vgg_distance_of_pixels(features: VGGFeatures, result: Pixels, original: Pixels) -> float | None:
    """`vgg_distance` of two pictures (H, W, 1 or 3) of uint8; None if they are too small.

    With `functools.partial`, this is the `measure` of an `evaluate.Metric`.
    """
    if min(original.shape[:2]) < features.minimum_size_px:
        return None
    device = next(features.parameters()).device
    return vgg_distance(features, to_tensor(result).to(device), to_tensor(original).to(device))
