"""A larger network, or one for another scale, that starts from a smaller one's weights.

New blocks start as identities (Chen et al. 2016, "Net2Net", section 2.3): a residual block with a last convolution of
zeros, a plain one with an identity kernel and a PReLU of slope 1. So a deeper network initially computes the same as
the shallower one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import SRVGG, Compact, Config, Generator, build, settings_of

_SCALABLE = (Compact.architecture, SRVGG.architecture)  # whose last layer's channels form a small picture


@torch.no_grad()
def grown(source: Generator, architecture: str, config: Mapping[str, object]) -> Generator:
    """A generator of `architecture` and `config` (see `build`) that starts with the weights of `source`.

    It may have more blocks, distributed evenly among those of `source`, and (compact and srvgg only) another scale:
    then its last layer is initialised by resizing the other's as a picture of sub-pixels. At the same scale it computes
    the same as `source` until it is trained; without noise, the same as `source` with its noise off. New layers use
    torch's global random generator.

    Raises `WeightsError` if the architecture or the features differ, if blocks would have to be removed, or if the
    scale of srresnet would change.
    """
    target = build(architecture, config)
    if source.architecture != architecture:
        raise WeightsError(f"a {architecture} network cannot start from a {source.architecture} one")
    before, after = _blocks(source, target)
    learned = {_layer(key, architecture, before): tensor for key, tensor in source.state_dict().items()}
    places: dict[int | None, int | None] = {_place(block, before, after): block for block in range(before)}
    places[None] = None
    tensors = {}
    for key, fresh in target.state_dict().items():
        block, name = _layer(key, architecture, after)
        if name == "strength" and not source.has_noise:
            tensors[key] = fresh  # 0
            continue
        tensor = learned[places[block], name] if block in places else _idle(name, fresh, architecture)
        scaled = source.scale != target.scale and name.startswith("tail.")
        tensors[key] = _rescaled(tensor, source.scale, target.scale) if scaled else tensor
    target.load_state_dict(tensors)
    return target


def with_noise(source: Generator) -> Generator:
    """The same network with noise inputs, whose strengths are initially 0.

    Raises `WeightsError` if its architecture does not support noise.
    """
    if source.has_noise:
        return source
    settings = _settings(source)
    if not isinstance(source, Compact):
        raise WeightsError(f"generator.noise is for compact networks, and this one is {source.architecture}")
    return grown(source, source.architecture, {**settings, "noise": True})


def without_noise(source: Generator) -> Generator:
    """The same network without noise inputs: it computes what `source` does with its noise off."""
    if not source.has_noise:
        return source
    return grown(source, source.architecture, {**_settings(source), "noise": False})


def _blocks(source: Generator, target: Generator) -> tuple[int, int]:
    """The number of blocks before and after, if all other settings allow growing."""
    old, new = _settings(source), _settings(target)
    for name in ("features", "batch_norm"):
        if old.get(name) != new.get(name):
            raise WeightsError(f"{name} cannot change from {old.get(name)} to {new.get(name)}: no layer would fit")
    before, after = cast(int, old["blocks"]), cast(int, new["blocks"])
    if after < before:
        raise WeightsError(
            f"the number of blocks cannot change from {before} to {after}: only adding blocks keeps what was learned"
        )
    if source.scale != target.scale and target.architecture not in _SCALABLE:
        raise WeightsError(
            f"the scale cannot change from {source.scale} to {target.scale}: only that of {' and '.join(_SCALABLE)} can"
        )
    return before, after


def _settings(generator: Generator) -> dict[str, object]:
    return settings_of(cast(Config, generator.config))


def _layer(key: str, architecture: str, blocks: int) -> tuple[int | None, str]:
    """The block that a tensor belongs to (None if it is outside of the blocks) and its name there; in srvgg, layers
    count as blocks."""
    if not key.startswith("body."):
        return None, key
    _, number, name = key.split(".", 2)
    layer = int(number)
    if architecture != SRVGG.architecture:
        return layer, name
    if layer < 2:
        return None, f"head.{layer}.{name}"
    if layer == 2 * blocks + 2:
        return None, f"tail.{name}"
    return (layer - 2) // 2, f"{'act' if layer % 2 else 'conv'}.{name}"


def _place(block: int, before: int, after: int) -> int:
    """The position of a block of `before` among `after`: at the end of its part, if these are divided equally."""
    return (block + 1) * after // before - 1


def _idle(name: str, fresh: Tensor, architecture: str) -> Tensor:
    """A tensor of a new block that has no effect yet: zeros at the end of a residual branch, an identity in a chain."""
    if architecture != SRVGG.architecture:
        return torch.zeros_like(fresh) if name.startswith(("conv2.", "norm2.bias", "norm2.weight")) else fresh
    if name == "conv.weight":
        return nn.init.dirac_(torch.empty_like(fresh))
    return torch.ones_like(fresh) if name == "act.weight" else torch.zeros_like(fresh)


def _rescaled(tail: Tensor, before: int, after: int) -> Tensor:
    """The last layer's weights or bias for another scale: averages of finer sub-pixels, or interpolated between coarser
    ones.

    A layer's output channels form a small picture, since each sub-pixel stands for a position inside its pixel.
    (3·before², ...) -> (3·after², ...).
    """
    picture = tail.reshape(3, before, before, -1).permute(0, 3, 1, 2)  # (3·b², F, 3, 3) -> (3, F·9, b, b)
    resized = F.interpolate(picture, (after, after), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).reshape(3 * after**2, *tail.shape[1:]).contiguous()
