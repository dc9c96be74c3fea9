"""Metrics beyond PSNR and SSIM, by name: those available here, and why others are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.evaluation.evaluate import Metric
from srgan_cli.evaluation.niqe import niqe
from srgan_cli.extras import how_to_install
from srgan_cli.imaging.image import Pixels

if TYPE_CHECKING:
    from torch import Tensor

Name: TypeAlias = Literal["niqe", "vgg19", "lpips", "dists"]
NAMES: tuple[Name, ...] = get_args(Name)
_VGG_LAYER = "conv3_4"
# These networks keep all activations, so larger pictures are cropped to their middle.
MAX_PX = 1024
# A smaller picture would be reduced to nothing by the five halvings of these networks.
_MIN_PX = 64


@dataclass(frozen=True)
class MetricChoice:
    """The metrics to be measured, and a sentence for each metric that was left out."""

    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()


def choose_metrics(wanted: Sequence[Name] | None, *, vgg_weights: Path | None, device: str = "cpu") -> MetricChoice:
    """The metrics of these names, or, if `wanted` is None, all available ones; their networks on `device`.

    VGG19 (548 MiB) is downloaded only if requested by name; LPIPS and DISTS download their weights if torchmetrics is
    installed. Raises `SettingsError` or `WeightsError` if a requested one (also by giving a file of weights) is not
    available.
    """
    metrics: list[Metric] = []
    reasons: dict[str, list[str]] = {}  # the reason, and which metric is left out
    for name in NAMES if wanted is None else dict.fromkeys(wanted):
        try:
            if name == "vgg19" and vgg_weights is None and wanted is None:
                raise WeightsError("give --vgg-weights FILE, or --metrics vgg19 to fetch torchvision's")
            made = _make(name, vgg_weights, device)
            metrics.append(made if name == "niqe" else _of_the_middle(made))
        except (SettingsError, WeightsError) as err:
            if wanted is not None or (name == "vgg19" and vgg_weights is not None):
                raise type(err)(f"{name}: {err}") from err
            reasons.setdefault(str(err), []).append(name)
    return MetricChoice(
        tuple(metrics), tuple(f"without {' and '.join(names)}: {why}" for why, names in reasons.items())
    )


def _make(name: Name, vgg_weights: Path | None, device: str) -> Metric:
    if name == "niqe":
        return Metric("niqe", lambda result, _original: niqe(result))
    if name == "vgg19":
        return _vgg19(vgg_weights, device)
    return _from_torchmetrics(name, device)


def _of_the_middle(metric: Metric) -> Metric:
    def middle(pixels: Pixels) -> Pixels:
        top, left = (max(0, side - MAX_PX) // 2 for side in pixels.shape[:2])
        return pixels[top : top + MAX_PX, left : left + MAX_PX]

    return Metric(metric.key, lambda result, original: metric.measure(middle(result), middle(original)))


def _vgg19(weights: Path | None, device: str) -> Metric:
    """Distance of VGG19's features before the ReLU, relative to their size in the original."""
    from srgan_cli.evaluation.perceptual import vgg_distance_of_pixels
    from srgan_cli.networks.features import load_features

    try:
        features = load_features("vgg19", (_VGG_LAYER,), "before", weights)
    except WeightsError as err:
        if weights is not None:
            raise
        raise WeightsError("torchvision's weights cannot be fetched; give --vgg-weights FILE") from err
    return Metric(f"vgg19_{_VGG_LAYER}", partial(vgg_distance_of_pixels, features.to(device)))


def _from_torchmetrics(name: Name, device: str) -> Metric:
    """LPIPS with AlexNet, as usually reported (Zhang et al., CVPR 2018), and DISTS (Ding et al., TPAMI 2020)."""
    if find_spec("torchmetrics") is None:
        raise SettingsError(f"this needs one more package: {how_to_install('perceptual')}")
    network: Callable[[Tensor, Tensor], Tensor]
    try:
        if name == "lpips":
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

            network = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True).to(device)
        else:
            # The network, not the metric around it, which builds and loads VGG16 again for every picture.
            from torchmetrics.functional.image.dists import DISTSNetwork

            network = DISTSNetwork().to(device).eval()
    except ImportError as err:
        raise SettingsError(f"this needs torchmetrics 1.8 or later: {how_to_install('perceptual')}") from err
    except (OSError, RuntimeError) as err:  # server unreachable, disk full, or download truncated
        reason = str(err).strip() or type(err).__name__
        raise WeightsError(f"the weights cannot be downloaded ({reason}); try again with a connection") from err
    return _of_tensors(name, network, device)


def _of_tensors(key: str, distance: Callable[[Tensor, Tensor], Tensor], device: str) -> Metric:
    """A metric from a distance between two tensors (1, 3, H, W) of RGB in [0, 1]."""
    import torch

    from srgan_cli.dataset.low_pictures import to_tensor

    def measure(result: Pixels, original: Pixels) -> float | None:
        if min(original.shape[:2]) < _MIN_PX:
            return None
        with torch.inference_mode():
            return float(distance(to_tensor(result).to(device), to_tensor(original).to(device)))

    return Metric(key, measure)
