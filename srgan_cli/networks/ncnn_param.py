"""Parses ncnn's text description of a network: its layers, receptive field and memory use.

The format is described in ncnn's documentation ("param and model file structure", "operators"). Everything is checked,
since the text may be untrusted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from srgan_cli.errors import WeightsError
from srgan_cli.wording import counted

_MAGIC = "7767517"
MAX_TEXT_BYTES = 4 << 20
_MAX_SCALE = 64
_MAX_INTEGER = 2**31 - 1  # ncnn's own

# Layers that process each value, or the values of one pixel, independently.
_POINTWISE = frozenset((
    "BatchNorm", "Bias", "BinaryOp", "Cast", "Clip", "Concat", "Dropout", "ELU", "Eltwise", "GELU", "HardSigmoid",
    "HardSwish", "Mish", "Noop", "PReLU", "Power", "ReLU", "SELU", "Scale", "Sigmoid", "Softplus", "Split", "Swish",
    "TanH", "UnaryOp",
))  # fmt: skip
_INTERPOLATION_REACH = {1: 0, 2: 1, 3: 2}  # nearest, bilinear, bicubic: px of their input

Setting: TypeAlias = "int | float | tuple[float, ...]"


@dataclass(frozen=True)
class Layer:
    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: Mapping[int, Setting]

    def whole(self, key: int, default: int) -> int:
        value = self.settings.get(key, default)
        return value if isinstance(value, int) else default


@dataclass(frozen=True)
class Param:
    """A parsed network. `halo_px` is the radius of its receptive field in px of the input, None if it is unbounded or
    unknown. `values_per_px` is the number of values in its largest layer's input and output together, per px of the
    input."""

    layers: tuple[Layer, ...]
    input: str
    output: str
    halo_px: int | None
    values_per_px: float


@dataclass(frozen=True)
class _Blob:
    channels: int
    scale: Fraction  # of the input's
    reach: Fraction | None  # px of the input


def parse_param(text: str, name: str) -> Param:
    """`name` is for messages. Raises `WeightsError` if it is not such a text, or not a network from one picture to
    one."""
    layers = _layers(text, name)
    inputs = [blob for layer in layers if layer.kind == "Input" for blob in layer.outputs]
    read = {blob for layer in layers for blob in layer.inputs}
    outputs = [blob for layer in layers if layer.kind != "Input" for blob in layer.outputs if blob not in read]
    if len(inputs) != 1 or len(outputs) != 1:
        raise WeightsError(
            f"{name} has {counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}; srgan needs a network "
            "from one picture to one"
        )
    blobs: dict[str, _Blob] = {}
    largest = 0.0
    for layer in layers:
        made = _made_by(layer, [blobs[blob] for blob in layer.inputs])
        if made.scale > _MAX_SCALE or made.channels > _MAX_INTEGER:
            raise WeightsError(f"{name} is not a network that srgan can run: its layer {layer.name} is too large")
        blobs |= dict.fromkeys(layer.outputs, made)
        largest = max(largest, sum(one.channels * float(one.scale) ** 2 for one in (made, *_sources(layer, blobs))))
    reach = blobs[outputs[0]].reach
    return Param(layers, inputs[0], outputs[0], None if reach is None else math.ceil(reach), largest)


def _sources(layer: Layer, blobs: Mapping[str, _Blob]) -> list[_Blob]:
    return [blobs[blob] for blob in layer.inputs]


def _layers(text: str, name: str) -> tuple[Layer, ...]:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    try:
        if lines[0] != [_MAGIC]:
            raise ValueError("its first line is not that of an ncnn file")
        layer_count, _blob_count = map(int, lines[1])
        layers = tuple(map(_layer, lines[2:]))
        if layer_count != len(layers) or not layers:
            raise ValueError(f"it announces {counted(layer_count, 'layer')} and has {len(layers)}")
        _check_order(layers)
    except (ValueError, IndexError, OverflowError) as err:
        raise WeightsError(f"{name} is not an ncnn .param file, or it is damaged: {err}") from err
    return layers


def _layer(words: Sequence[str]) -> Layer:
    kind, name, input_count, output_count = words[0], words[1], int(words[2]), int(words[3])
    if not (0 <= input_count <= 1000 and 1 <= output_count <= 1000):
        raise ValueError(f"layer {name} has {counted(input_count, 'input')} and {counted(output_count, 'output')}")
    blobs, rest = words[4 : 4 + input_count + output_count], words[4 + input_count + output_count :]
    if len(blobs) != input_count + output_count or any("=" in blob for blob in blobs):
        raise ValueError(f"layer {name} lacks blobs")
    settings = dict(_setting(word) for word in rest)
    return Layer(kind, name, tuple(blobs[:input_count]), tuple(blobs[input_count:]), settings)


def _setting(word: str) -> tuple[int, Setting]:
    key_text, _, value = word.partition("=")
    key = int(key_text)
    if key <= -23300:  # a list: its length, then its values
        return -23300 - key, tuple(float(part) for part in value.split(",")[1:])
    try:
        whole = int(value)
    except ValueError:
        return key, float(value)
    if abs(whole) > _MAX_INTEGER:
        raise ValueError(f"{value[:20]} does not fit into 32 bits")
    return key, whole


def _check_order(layers: Sequence[Layer]) -> None:
    known: set[str] = set()
    for layer in layers:
        if missing := [blob for blob in layer.inputs if blob not in known]:
            raise ValueError(f"layer {layer.name} reads {missing[0]}, which no layer before it makes")
        if twice := [blob for blob in layer.outputs if blob in known]:
            raise ValueError(f"two layers make {twice[0]}")
        known |= set(layer.outputs)


# ---------------------------------------------------------------------------------------------- how far a layer sees


def _made_by(layer: Layer, sources: Sequence[_Blob]) -> _Blob:
    """The receptive field and size of a layer's output. Unknown layers count as unbounded."""
    if not sources:
        return _Blob(3, Fraction(1), Fraction(0))
    first = sources[0]
    reach = _largest([one.reach for one in sources])
    if any(one.scale != first.scale for one in sources):
        return _Blob(first.channels, max(one.scale for one in sources), None)
    if layer.kind in ("Convolution", "ConvolutionDepthWise"):
        return _convolved(layer, first, reach)
    if layer.kind == "PixelShuffle":
        factor = min(max(1, layer.whole(0, 1)), _MAX_SCALE)
        return _Blob(max(1, first.channels // factor**2), first.scale * factor, reach)
    if layer.kind == "Interp":
        return _interpolated(layer, first, reach)
    if layer.kind == "Padding":
        return _padded(layer, first, reach)
    if layer.kind == "Concat":
        channels = sum(one.channels for one in sources)
        return _Blob(channels, first.scale, reach if layer.whole(0, 0) == 0 else None)
    return _Blob(first.channels, first.scale, reach if layer.kind in _POINTWISE else None)


def _largest(reaches: Sequence[Fraction | None]) -> Fraction | None:
    known = [reach for reach in reaches if reach is not None]
    return max(known) if len(known) == len(reaches) else None


def _farther(reach: Fraction | None, px: Fraction) -> Fraction | None:
    return None if reach is None else reach + px


def _convolved(layer: Layer, source: _Blob, reach: Fraction | None) -> _Blob:
    width = layer.whole(1, 0)
    dilation = layer.whole(2, 1)
    same = layer.whole(11, width) == width and layer.whole(12, dilation) == dilation
    keeps_size = layer.whole(3, 1) == 1 and layer.whole(13, 1) == 1 and width % 2 == 1 and min(width, dilation) > 0
    channels = max(1, layer.whole(0, 1))
    if not (same and keeps_size):
        return _Blob(channels, source.scale, None)
    return _Blob(channels, source.scale, _farther(reach, Fraction(dilation * (width // 2)) / source.scale))


def _interpolated(layer: Layer, source: _Blob, reach: Fraction | None) -> _Blob:
    factors = [layer.settings.get(key, 0) for key in (1, 2)]
    factor, other = factors
    whole = isinstance(factor, int | float) and factor == other and factor in range(1, _MAX_SCALE + 1)
    kind = layer.whole(0, 0)
    if not whole or kind not in _INTERPOLATION_REACH or layer.whole(6, 0):  # 6: corners are aligned
        return _Blob(source.channels, source.scale, None)
    assert isinstance(factor, int | float)
    farther = _farther(reach, Fraction(_INTERPOLATION_REACH[kind]) / source.scale)
    return _Blob(source.channels, source.scale * int(factor), farther)


def _padded(layer: Layer, source: _Blob, reach: Fraction | None) -> _Blob:
    """A margin that a convolution consumes again; it must be equally wide on all sides, or the picture would shift."""
    sides = {layer.whole(side, 0) for side in range(4)}
    return _Blob(source.channels, source.scale, reach if len(sides) == 1 else None)
