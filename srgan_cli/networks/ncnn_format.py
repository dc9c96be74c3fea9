"""A generator in ncnn's format: a text with its layers and blobs, and a file with their weights.

The format is described in ncnn's documentation ("param and model file structure", "operators"). Blobs have the names
used in `graph`: Upscayl and realesrgan-ncnn-vulkan use `data` and `output`; `subpixels` is `output` before its pixel
shuffle, for a program that shuffles integers itself.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from srgan_cli.networks.generators import Generator
from srgan_cli.networks.graph import INPUT, OUTPUT, Add, Convolution, Node, ParametricReLU, PixelShuffle, nodes_of

_LARGE = "large"  # the result before it is clipped
_MAGIC = 7767517
_FP16 = 0x01306B47  # precedes weights stored as fp16; 0 precedes fp32


class NcnnModel(NamedTuple):
    """The two files: `param` is ASCII text."""

    param: str
    weights: bytes


class _Layer(NamedTuple):
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[int, int | str]

    def line(self) -> str:
        settings = (f"{key}={value}" for key, value in self.settings.items())
        counts = f"{len(self.inputs)} {len(self.outputs)}"
        return " ".join([f"{self.kind:<16}", f"{self.name:<24}", counts, *self.inputs, *self.outputs, *settings])


def ncnn_model(generator: Generator, *, half: bool = False) -> NcnnModel:
    """`generator`, folded, as ncnn's files; `output` is clipped to [0, 1], `subpixels` is not.

    With `half` the kernels of convolutions are stored as fp16, except those that determine the last bits of a pixel.

    Raises `WeightsError` if the architecture is not one of srgan's.
    """
    nodes = nodes_of(generator)
    layers = list(_layers(nodes))
    blobs = sum(len(layer.outputs) for layer in layers)
    lines = [str(_MAGIC), f"{len(layers)} {blobs}", *(layer.line() for layer in layers)]
    weights = b"".join(_weights(node, half=half and not node.exact) for node in nodes)
    return NcnnModel("\n".join(lines) + "\n", weights)


def _layers(nodes: Iterable[Node]) -> Iterator[_Layer]:
    """ncnn allows a blob to be read once; one that is read several times goes through a Split, which names each
    copy."""
    nodes = tuple(dataclasses.replace(n, output=_LARGE) if n.output == OUTPUT else n for n in nodes)
    readers = {name: _count(name, nodes) for name in (INPUT, *(node.output for node in nodes))}
    taken = dict.fromkeys(readers, 0)

    def split(name: str) -> Iterator[_Layer]:
        if readers[name] > 1:
            copies = tuple(f"{name}_{copy}" for copy in range(readers[name]))
            yield _Layer("Split", f"split_{name}", (name,), copies, {})

    def read(name: str) -> str:
        taken[name] += 1
        return name if readers[name] < 2 else f"{name}_{taken[name] - 1}"

    yield _Layer("Input", INPUT, (), (INPUT,), {})
    yield from split(INPUT)
    for node in nodes:
        yield from _layers_of(node, tuple(read(name) for name in node.inputs))
        yield from split(node.output)
    yield from _clipped()


def _clipped() -> Iterator[_Layer]:
    """`output` clipped to 0 … 1, because realesrgan-ncnn-vulkan turns values below black into white.

    As 1 - relu(1 - relu(x)), since the ncnn version in such programs has no Clip: a ReLU and a subtraction from 1
    (BinaryOp 7 with a scalar), twice.
    """
    last = _LARGE
    for half, made in (("black", "flipped"), ("white", OUTPUT)):
        yield _Layer("ReLU", half, (last,), (half,), {})
        yield _Layer("BinaryOp", made, (half,), (made,), {0: 7, 1: 1, 2: "1.0"})
        last = made


def _count(name: str, nodes: Iterable[Node]) -> int:
    return sum(node.inputs.count(name) for node in nodes)


def _layers_of(node: Node, inputs: tuple[str, ...]) -> Iterator[_Layer]:
    match node.operation:
        case Convolution() as convolution:
            outputs, _, _, side = convolution.weight.shape
            reach, pad = side // 2, side // 2
            if convolution.repeats_border:
                padded = f"{node.output}_padded"
                sides = {0: reach, 1: reach, 2: reach, 3: reach, 4: 1}  # top, bottom, left, right; 1: repeated
                yield _Layer("Padding", padded, inputs, (padded,), sides)
                inputs, pad = (padded,), 0
            settings: dict[int, int | str] = {0: outputs, 1: side, 4: pad, 5: int(convolution.bias is not None)}
            settings[6] = convolution.weight.numel()
            yield _Layer("Convolution", node.output, inputs, (node.output,), settings)
        case ParametricReLU(slope):
            yield _Layer("PReLU", node.output, inputs, (node.output,), {0: slope.numel()})
        case Add():
            yield _Layer("BinaryOp", node.output, inputs, (node.output,), {0: 0})
        case PixelShuffle(factor):
            yield _Layer("PixelShuffle", node.output, inputs, (node.output,), {0: factor})


def _weights(node: Node, *, half: bool) -> bytes:
    match node.operation:
        case Convolution(weight, bias):
            return _kernel(weight, half=half) + (_floats(bias) if bias is not None else b"")
        case ParametricReLU(slope):
            return _floats(slope)
        case _:
            return b""


def _kernel(weight: Tensor, *, half: bool) -> bytes:
    """A tag, then (outputs, inputs, side, side) in that order, padded to a multiple of 4 bytes."""
    if not half:
        return struct.pack("<I", 0) + _floats(weight)
    data = weight.numpy().astype("<f2").tobytes()
    return struct.pack("<I", _FP16) + data + bytes(-len(data) % 4)


def _floats(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.numpy(), dtype="<f4").tobytes()
