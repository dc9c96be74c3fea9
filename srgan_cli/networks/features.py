"""VGG19's features, by which the perceptual loss compares two pictures.

Simonyan and Zisserman 2015 (arXiv:1409.1556), configuration E: blocks of 3×3 convolutions with ReLUs, and max pooling
over 2×2 px between blocks. `conv3_4` is the fourth convolution of the third block.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.networks.pickles import read_tensors

FeatureSource: TypeAlias = Literal["vgg19", "random"]
Activation: TypeAlias = Literal["before", "after"]

_CONVOLUTIONS = (2, 2, 4, 4, 4)


def _places() -> dict[str, int]:
    """Each convolution's index in torchvision's `vgg19().features`, which also counts ReLUs and pooling layers."""
    places, place = {}, 0
    for block, count in enumerate(_CONVOLUTIONS, start=1):
        for number in range(1, count + 1):
            places[f"conv{block}_{number}"] = place
            place += 2  # the convolution and its ReLU
        place += 1  # the pooling layer
    return places


_PLACES: Mapping[str, int] = _places()


def _block(name: str) -> int:
    return int(name[4]) - 1


class VGGFeatures(nn.Module):
    """The outputs of some of VGG19's convolutions, `before` or `after` the following ReLU.

    Initially a fixed random VGG (`seed`; see `load_features`), without gradients for its weights. It contains only the
    layers up to the deepest requested one. The keys of its state are torchvision's: `features.0.weight` and so on.

    Raises `SettingsError` for a layer that VGG19 does not have, or if there is none.
    """

    def __init__(self, layers: Sequence[str], activation: Activation = "before", seed: int = 0) -> None:
        super().__init__()
        unknown = [name for name in layers if name not in _PLACES]
        if unknown or not layers:
            wrong = f"has no layer {', '.join(unknown)}" if unknown else "needs at least one layer"
            raise SettingsError(f"VGG19 {wrong}; its layers are conv1_1 to conv5_4")
        self.layers = tuple(sorted(set(layers), key=_PLACES.__getitem__))
        self.activation = activation
        self.names = tuple(name for name, place in _PLACES.items() if place <= _PLACES[self.layers[-1]])
        self.minimum_size_px = 2 ** _block(self.layers[-1])
        layers_of_all, mean, std = _torchvisions()
        chosen = {str(_PLACES[name]): copy.deepcopy(layers_of_all[_PLACES[name]]) for name in self.names}
        self.features = nn.ModuleDict(chosen).to_empty(device="cpu")
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        _randomise(cast("Iterable[nn.Conv2d]", self.features.values()), seed)
        self.requires_grad_(False)

    def forward(self, rgb: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W) in [0, 1] -> by layer's name, (N, C, H / 2^b, W / 2^b) in block b + 1, C 64 to 512.

        Features have the dtype of the weights, or autocast's. Raises `SettingsError` for pictures that are too small
        for the pooling layers.
        """
        if min(rgb.shape[2:]) < self.minimum_size_px:
            raise SettingsError(
                f"VGG19's {self.layers[-1]} cannot process pictures of {rgb.shape[3]}×{rgb.shape[2]} px; "
                f"they need {self.minimum_size_px} px each way, or the loss a shallower layer"
            )
        # Not folded into the first convolution: it pads with zeros, which are the mean colour only after this step.
        x = (rgb - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        x = x.to(cast(Tensor, self.features["0"].weight).dtype, memory_format=torch.channels_last)
        found: dict[str, Tensor] = {}
        for name in self.names:
            if name.endswith("_1") and _block(name):
                x = F.max_pool2d(x, 2)
            x = self.features[str(_PLACES[name])](x)
            if name in self.layers and self.activation == "before":
                found[name] = x
                x = F.relu(x) if name != self.names[-1] else x
            else:
                x = F.relu_(x)  # in place: nothing else needs the convolution's output, not even its backward pass
                if name in self.layers:
                    found[name] = x
        return found


@functools.cache
def _torchvisions() -> tuple[nn.Sequential, Sequence[float], Sequence[float]]:
    """VGG19's layers without allocated weights, to be copied, and mean and deviation of its training pictures."""
    from torchvision.models import VGG19_Weights, vgg19

    # On the meta device, torch's random numbers are not used: loading features must not change what the run's seed
    # gives.
    with torch.device("meta"):
        layers = cast(nn.Sequential, vgg19(init_weights=False).features)
    transforms = VGG19_Weights.IMAGENET1K_V1.transforms()
    return layers, transforms.mean, transforms.std


def _shapes() -> Mapping[str, torch.Size]:
    """The shapes of the convolutions' kernels."""
    layers, _, _ = _torchvisions()
    return {name: cast(nn.Conv2d, layers[place]).weight.shape for name, place in _PLACES.items()}


@torch.no_grad()
def _randomise(convolutions: Iterable[nn.Conv2d], seed: int) -> None:
    """He et al. 2015, layer by layer from one seed: the first layers do not depend on how deep the network is."""
    generator = torch.Generator().manual_seed(seed)
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(cast(Tensor, convolution.bias))


def load_features(
    source: FeatureSource,
    layers: Sequence[str],
    activation: Activation = "before",
    weights_file: Path | None = None,
    seed: int = 0,
) -> VGGFeatures:
    """VGG19 features ready for use: frozen, in eval mode, fp32 in channels_last, on the CPU.

    `vgg19`: trained on ImageNet. Its weights come from `weights_file`, .safetensors or .pth, with torchvision's keys
    (`features.0.weight`, or without `features.`); a file of the first layers is sufficient if no deeper one is
    requested. Without a file they are torchvision's, downloaded once and kept in torchvision's cache.

    `random`: untrained, from `seed`; no file is needed. For such losses, much of VGG's effect comes from its structure
    (Liu et al., CVPR 2021, arXiv:2103.10571, section 3).

    Raises `WeightsError` if the weights are not available, damaged, of another network, or not deep enough.
    """
    eye = VGGFeatures(layers, activation, seed)
    if source == "vgg19":
        found = _download() if weights_file is None else _read(weights_file)
        origin = "torchvision's VGG19" if weights_file is None else str(weights_file)
        eye.load_state_dict(_chosen(found, eye, origin))
    return eye.to(memory_format=torch.channels_last).eval()


def _download() -> dict[str, Tensor]:
    from torchvision.models import VGG19_Weights

    weights = VGG19_Weights.IMAGENET1K_V1
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torch prints a message; stdout is for results
            return cast("dict[str, Tensor]", weights.get_state_dict(progress=False, check_hash=True))
    # No network, no disk space, a mislabelled file, or an incomplete one in the cache after a killed download.
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError) as err:
        raise WeightsError(
            f"the perceptual loss needs VGG19's weights, and {weights.url} cannot be downloaded ({err}; a corrupt "
            f"download would be in {torch.hub.get_dir()}). Give --vgg-weights FILE, with that file downloaded "
            "elsewhere or a similar one; or --perceptual random, a fixed random VGG that needs no file"
        ) from err


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix.lower() == ".safetensors":
            return safetensors.torch.load_file(path)
    except OSError as err:
        raise WeightsError(f"{path} cannot be read: {err.strerror or err}") from err
    except (safetensors.SafetensorError, RuntimeError, ValueError, KeyError) as err:
        raise WeightsError(f"{path} is damaged, or not a file of weights (.safetensors, or torch's .pth)") from err
    loaded = read_tensors(path, str(path))
    if not isinstance(loaded, Mapping):
        raise WeightsError(f"{path} does not hold named weights, as VGG19's file does")
    return {key: value for key, value in loaded.items() if isinstance(key, str) and isinstance(value, Tensor)}


def _chosen(found: Mapping[str, Tensor], eye: VGGFeatures, origin: str) -> dict[str, Tensor]:
    """Those of a file's tensors that `eye` needs, under its keys. Raises `WeightsError` if they are unsuitable."""
    plain = {key.removeprefix("features."): tensor for key, tensor in found.items()}
    places = {int(place) for key in plain if (place := key.removesuffix(".weight")).isdecimal()}
    there = [name for name in _PLACES if _holds(plain, name)]
    # VGG16, and VGG19 with batch norm, have layers under the same keys as VGG19.
    if not there or there[0] != "conv1_1" or not places <= set(_PLACES.values()):
        raise WeightsError(f"{origin} is not VGG19 with torchvision's keys (features.0.weight to features.34.bias)")
    missing = [name for name in eye.names if name not in there]
    if missing:
        raise WeightsError(
            f"{origin} holds VGG19's {', '.join(there)}, but not {', '.join(missing)}, needed for {eye.layers[-1]}. "
            "Set perceptual.layers to layers that it holds, or give a deeper file (--vgg-weights)"
        )
    keys = eye.state_dict().keys()
    chosen = {key: plain[key.removeprefix("features.")] for key in keys}
    if not all(bool(tensor.isfinite().all()) for tensor in chosen.values()):
        raise WeightsError(f"{origin} is damaged: some of its numbers are not finite")
    return chosen


def _holds(plain: Mapping[str, Tensor], name: str) -> bool:
    place = _PLACES[name]
    weight, bias = plain.get(f"{place}.weight"), plain.get(f"{place}.bias")
    if weight is None or bias is None:
        return False
    shape = _shapes()[name]
    return weight.shape == shape and bias.shape == shape[:1]
