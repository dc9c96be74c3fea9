"""A larger network, or one for another scale, that begins with what a smaller one has learned.

New blocks begin as identities (Chen et al. 2016, "Net2Net", section 2.3; for residual blocks a last convolution of
zeros does it), so that a deeper network starts exactly where the shallower one ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import Compact, Config, Generator, build


@torch.no_grad()
def grown(source: Generator, architecture: str, config: Mapping[str, object]) -> Generator:
    """A generator of `architecture` and `config` (see `build`) that begins with the weights of `source`.

    It may have more blocks, spread evenly among those of `source`, and, where it is compact, another scale: its last
    layer then begins as the other's, made smaller or larger as a picture of phases. At the same scale it computes
    what `source` does, until it is trained. The new layers are drawn from torch's global generator.

    Raises `WeightsError` where the architecture or the features differ, where blocks would have to go, or where the
    scale of another architecture than compact would change.
    """
    target = build(architecture, config)
    old, new = _settings(source), _settings(target)
    if source.architecture != architecture:
        raise WeightsError(f"a {architecture} network cannot begin with a {source.architecture} one")
    for name in ("features", "batch_norm"):
        if old.get(name) != new.get(name):
            raise WeightsError(f"{name} cannot change from {old.get(name)} to {new.get(name)}: no layer would fit")
    before, after = cast(int, old["blocks"]), cast(int, new["blocks"])
    if after < before:
        raise WeightsError(f"blocks cannot go from {before} to {after}: only more of them keep what was learned")
    if source.scale != target.scale and architecture != Compact.architecture:
        raise WeightsError(f"the scale cannot change from {source.scale} to {target.scale}: only compact's can")
    places = {_place(block, before, after): block for block in range(before)}
    tensors = {key: value for key, value in source.state_dict().items() if not key.startswith("body.")}
    for block, module in enumerate(cast(nn.ModuleList, target.body)):
        if block in places:
            theirs = cast(nn.ModuleList, source.body)[places[block]].state_dict()
        else:
            theirs = {key: _silent(key, value) for key, value in module.state_dict().items()}
        tensors |= {f"body.{block}.{key}": value for key, value in theirs.items()}
    if source.scale != target.scale:
        for key in ("tail.weight", "tail.bias"):
            tensors[key] = _rescaled(tensors[key], source.scale, target.scale)
    target.load_state_dict(tensors)
    return target


def _settings(generator: Generator) -> dict[str, object]:
    return dataclasses.asdict(cast(Config, generator.config))


def _place(block: int, before: int, after: int) -> int:
    """Where a block of `before` stands among `after`: at the end of its even share."""
    return (block + 1) * after // before - 1


def _silent(key: str, value: Tensor) -> Tensor:
    """What ends a residual branch is 0, so that the branch adds nothing yet."""
    return torch.zeros_like(value) if key.startswith(("conv2.", "norm2.bias", "norm2.weight")) else value


def _rescaled(tail: Tensor, before: int, after: int) -> Tensor:
    """The last layer's weights or bias for another scale: the mean over a finer phase's area, or between coarser ones.

    A phase adds detail to the place of its pixel that it stands for, so a layer's output channels are a small picture.
    (3·before², ...) -> (3·after², ...).
    """
    picture = tail.reshape(3, before, before, -1).permute(0, 3, 1, 2)  # (3·b², F, 3, 3) -> (3, F·9, b, b)
    resized = F.interpolate(picture, (after, after), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).reshape(3 * after**2, *tail.shape[1:]).contiguous()
