"""A generator as a list of plain operations, for writing other programs' formats.

The list is that of the folded network, up to and including its last pixel shuffle. The enlargement that is added to the
network's result (bilinear or nearest) is expressed before that shuffle, as one fixed convolution at low resolution: it
is exact up to the border, and no format needs its own enlargement operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.networks.compact import Compact
from srgan_cli.networks.generators import Generator, fold
from srgan_cli.networks.layers import bilinear_kernel
from srgan_cli.networks.srresnet import SRResNet
from srgan_cli.networks.srvgg import SRVGG

INPUT, RESIDUAL, SUBPIXELS, OUTPUT = "data", "residual", "subpixels", "output"


@dataclass(frozen=True)
class Convolution:
    """`weight` is (outputs, inputs, side, side), fp32; the sides are odd. The size is unchanged: the border is filled
    with zeros, or with `repeats_border` by its own pixels."""

    weight: Tensor
    bias: Tensor | None
    repeats_border: bool = False


def convolved(low: Tensor, operation: Convolution) -> Tensor:
    """(N, inputs, H, W) -> (N, outputs, H, W), by PyTorch."""
    reach = operation.weight.shape[-1] // 2
    mode = "replicate" if operation.repeats_border else "constant"
    padded = F.pad(low, (reach,) * 4, mode=mode) if reach else low
    return F.conv2d(padded, operation.weight, operation.bias)


@dataclass(frozen=True)
class ParametricReLU:
    """`slope` is (features,) or (1,), fp32."""

    slope: Tensor


@dataclass(frozen=True)
class Add:
    pass


@dataclass(frozen=True)
class PixelShuffle:
    """Like PyTorch's: channel c·factor² + row·factor + column becomes that row and column of channel c."""

    factor: int


Operation: TypeAlias = Convolution | ParametricReLU | Add | PixelShuffle


@dataclass(frozen=True)
class Node:
    """`output` = operation of `inputs`. `exact` marks operations that determine the last bits of a pixel, and are fp32
    in every file."""

    operation: Operation
    inputs: tuple[str, ...]
    output: str
    exact: bool = False


def nodes_of(generator: Generator) -> tuple[Node, ...]:
    """The operations of `generator` in order. The picture is `INPUT`, (N, 3, H, W); the result `OUTPUT`, not clipped.

    `SUBPIXELS` is the result before its last pixel shuffle, of factor `fold(generator).shuffle`. `RESIDUAL`, if there
    is one, is the network's part of it: the other part is the plain enlargement. Raises `WeightsError` if the
    architecture is not one of srgan's.
    """
    folded = fold(generator).float()
    if isinstance(folded, SRVGG):
        return tuple(_srvgg(folded))
    if isinstance(folded, Compact):
        return tuple(_compact(folded))
    if isinstance(folded, SRResNet):
        return tuple(_srresnet(folded))
    raise WeightsError(f"a {generator.architecture} network cannot be written in another format")


def _srvgg(network: SRVGG) -> Iterator[Node]:
    last = INPUT
    for place, layer in enumerate(network.body[:-1]):
        output = f"body.{place}"
        yield Node(_operation(layer), (last,), output)
        last = output
    yield Node(_operation(network.tail), (last,), RESIDUAL)
    same = torch.eye(3).repeat_interleave(network.scale**2, dim=0)[..., None, None]  # (3·scale², 3, 1, 1)
    yield from _added(Convolution(same, None), network)


def _compact(network: Compact) -> Iterator[Node]:
    yield Node(_operation(network.head), (INPUT,), "head")
    yield from _trunk(network)
    yield Node(_operation(network.tail), ("sum",), RESIDUAL)
    bilinear = bilinear_kernel(network.scale, 3).float()  # (3·scale², 3, 3, 3)
    yield from _added(Convolution(bilinear, None, repeats_border=True), network)


def _trunk(network: Compact | SRResNet) -> Iterator[Node]:
    """From "head" to "sum": the blocks, and the long skip connection."""
    last = "head"
    for place, block in enumerate(network.body):
        yield from _block(block, last, f"body.{place}")
        last = f"body.{place}"
    yield Node(_operation(network.fuse), (last,), "fuse")
    yield Node(Add(), ("fuse", "head"), "sum")


def _srresnet(network: SRResNet) -> Iterator[Node]:
    yield Node(_operation(network.head), (INPUT,), "head.conv")
    yield Node(_operation(network.head_act), ("head.conv",), "head")
    yield from _trunk(network)
    last = "sum"
    for place, stage in enumerate(network.up):
        name, factor = f"up.{place}", cast(int, stage.factor)
        yield Node(_operation(cast(nn.Module, stage.conv)), (last,), f"{name}.conv")
        yield Node(_operation(cast(nn.Module, stage.act)), (f"{name}.conv",), f"{name}.act")
        last = f"{name}.act"
        if factor > 1:
            yield Node(PixelShuffle(factor), (last,), name)
            last = name
    yield Node(_operation(network.tail), (last,), SUBPIXELS, exact=True)
    yield Node(PixelShuffle(network.shuffle), (SUBPIXELS,), OUTPUT, exact=True)


def _block(block: nn.Module, last: str, name: str) -> Iterator[Node]:
    yield Node(_operation(cast(nn.Module, block.conv1)), (last,), f"{name}.conv1")
    yield Node(_operation(cast(nn.Module, block.act)), (f"{name}.conv1",), f"{name}.act")
    yield Node(_operation(cast(nn.Module, block.conv2)), (f"{name}.act",), f"{name}.conv2")
    yield Node(Add(), (f"{name}.conv2", last), name)


def _added(enlargement: Convolution, network: Generator) -> Iterator[Node]:
    yield Node(enlargement, (INPUT,), "enlarged", exact=True)
    yield Node(Add(), (RESIDUAL, "enlarged"), SUBPIXELS, exact=True)
    yield Node(PixelShuffle(network.shuffle), (SUBPIXELS,), OUTPUT, exact=True)


def _operation(module: nn.Module) -> Operation:
    if isinstance(module, nn.PReLU):
        return ParametricReLU(module.weight.detach())
    assert isinstance(module, nn.Conv2d)
    return Convolution(module.weight.detach(), None if module.bias is None else module.bias.detach())
