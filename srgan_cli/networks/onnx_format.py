"""A generator as an ONNX model, written node by node with the `onnx` package, without tracing or conversion.

`input` and `output` are fp32, (N, 3, H, W) and (N, 3, H·scale, W·scale), RGB in [0, 1], for any N, H and W.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from srgan_cli.errors import WeightsError
from srgan_cli.extras import how_to_install
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.graph import INPUT, OUTPUT, Add, Convolution, Node, ParametricReLU, PixelShuffle, nodes_of

_OPSET, _IR_VERSION = 17, 8  # from 2022: old enough for all runtimes still in use
_LARGE, _SMALL = "raw_output", "input"


def onnx_model(generator: Generator, facts: Mapping[str, str], *, half: bool = False) -> bytes:
    """`generator`, folded, as the bytes of an `.onnx` file, with `facts` in its metadata.

    With `half`, everything that does not determine the last bits of a pixel is stored and computed in fp16; input and
    output stay fp32. Raises `WeightsError` if the onnx package is missing, or if the architecture is not one of
    srgan's.
    """
    try:
        import onnx
    except ImportError as err:
        raise WeightsError(f"ONNX files need the onnx package: {how_to_install('onnx')}") from err
    graph = _Graph(onnx, half)
    for node in nodes_of(generator):
        graph.add(node)
    made = onnx.helper.make_graph(
        [*graph.nodes, *graph.clipped()],
        "srgan",
        [_picture(onnx, "input", "height", "width")],
        [_picture(onnx, "output", f"{generator.scale}*height", f"{generator.scale}*width")],
        graph.constants,
    )
    opsets = [onnx.helper.make_opsetid("", _OPSET)]
    model = onnx.helper.make_model(made, producer_name="srgan", opset_imports=opsets, ir_version=_IR_VERSION)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _picture(onnx: Any, name: str, height: str, width: str) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, height, width])


class _Graph:
    """Collects nodes and constants, and inserts casts between nodes of different precision."""

    def __init__(self, onnx: Any, half: bool) -> None:
        self._onnx, self._half = onnx, half
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._precision = {_SMALL: "fp32"}  # the dtype of each value

    def add(self, node: Node) -> None:
        precision = "fp16" if self._half and not node.exact else "fp32"
        inputs = [self._cast(_value(name), precision) for name in node.inputs]
        output = _value(node.output)
        self._precision[output] = precision
        match node.operation:
            case Convolution() as convolution:
                self._convolve(convolution, inputs[0], output, precision)
            case ParametricReLU(slope):
                slopes = self._constant(f"{output}.slope", slope.reshape(-1, 1, 1), precision)
                self._node("PRelu", [inputs[0], slopes], output)
            case Add():
                self._node("Add", inputs, output)
            case PixelShuffle(factor):
                self._node("DepthToSpace", inputs, output, blocksize=factor, mode="CRD")

    def clipped(self) -> Iterator[Any]:
        bounds = [self._array(name, np.array(value, np.float32)) for name, value in (("black", 0.0), ("white", 1.0))]
        yield self._onnx.helper.make_node("Clip", [_LARGE, *bounds], ["output"], name="clip")

    def _convolve(self, convolution: Convolution, source: str, output: str, precision: str) -> None:
        reach = convolution.weight.shape[-1] // 2
        pads = [reach] * 4
        if convolution.repeats_border:
            sides = np.array([0, 0, reach, reach, 0, 0, reach, reach], np.int64)
            self._node("Pad", [source, self._array(f"{output}.pads", sides)], f"{output}.padded", mode="edge")
            source, pads = f"{output}.padded", [0] * 4
        tensors = {"weight": convolution.weight, "bias": convolution.bias}
        constants = [
            self._constant(f"{output}.{name}", value, precision) for name, value in tensors.items() if value is not None
        ]
        self._node("Conv", [source, *constants], output, pads=pads)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> None:
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))

    def _constant(self, name: str, value: Tensor, precision: str) -> str:
        return self._array(name, value.numpy().astype(np.float16 if precision == "fp16" else np.float32))

    def _array(self, name: str, value: np.ndarray[Any, Any]) -> str:
        self.constants.append(self._onnx.numpy_helper.from_array(value, name))
        return name

    def _cast(self, value: str, precision: str) -> str:
        if self._precision[value] == precision:
            return value
        cast = f"{value}.{precision}"
        if cast not in self._precision:
            types = {"fp16": self._onnx.TensorProto.FLOAT16, "fp32": self._onnx.TensorProto.FLOAT}
            self._node("Cast", [value], cast, to=types[precision])
            self._precision[cast] = precision
        return cast


def _value(name: str) -> str:
    return {INPUT: _SMALL, OUTPUT: _LARGE}.get(name, name)
