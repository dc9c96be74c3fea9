"""OpenVINO: another way to run srgan's networks on the CPU, often a faster one, and on Intel's GPUs and NPUs.

The networks are built as OpenVINO graphs from their weights, without a converter. In half precision, the enlargement to
which the network's output is added is computed here in fp32, as with ncnn.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends.hosted import HOST, Hosted, largest_values_per_px
from srgan_cli.engine.backends.memory import host_tile_bytes
from srgan_cli.engine.backends.protocol import (
    MAX_WINDOW_PX,
    Backend,
    Device,
    Prepared,
    RunPrecision,
    because,
)
from srgan_cli.engine.backends.pytorch import PyTorch, is_out_of_memory
from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.extras import how_to_install
from srgan_cli.networks.graph import (
    INPUT,
    RESIDUAL,
    SUBPIXELS,
    Add,
    Convolution,
    Node,
    ParametricReLU,
    PixelShuffle,
    convolved,
    nodes_of,
)
from srgan_cli.networks.weights import Model

NAMES: Final = {"CPU": "openvino", "GPU": "openvino:gpu", "NPU": "openvino:npu"}
_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_WHY_ASKED = "it is another way to run on the CPU, or on Intel's devices"
# A layer's input and output, a skip connection, and a copy in the runtime's own layout.
_COPIES = 4.0


@dataclass(frozen=True)
class OpenVino(Hosted):
    """A `Backend`. `target` is OpenVINO's name of the device: `CPU`, `GPU`, `GPU.1` or `NPU`."""

    target: str = "CPU"
    precision: RunPrecision = "fp32"
    reasons: tuple[str, ...] = ()
    chosen_precision: bool = False

    @property
    def name(self) -> str:
        kind, _, number = self.target.partition(".")
        return f"{NAMES[kind]}{number}"

    @property
    def max_window_px(self) -> int:
        return MAX_WINDOW_PX if self.target == "CPU" else 512

    @property
    def leaves_host_free(self) -> bool:
        return self.target != "CPU"

    def exact(self, reason: str | None = None) -> OpenVino:
        return replace(self, precision="fp32", reasons=because(self.reasons, reason))

    def referee(self, _models: Sequence[Model]) -> Backend | None:
        return PyTorch(HOST)

    def prepare(self, model: Model) -> Prepared:
        return _CompiledNetwork(model, self.target, self.precision)

    def budget_bytes(self) -> float:
        return host_tile_bytes()

    def bytes_per_px(
        self, networks: Sequence[Prepared], _probe: Callable[[int], object], result: float, _held: float = 0.0
    ) -> float:
        values = largest_values_per_px(networks, _CompiledNetwork)
        return _COPIES * values * (4 if self.precision == "fp32" else 2) + result


class _CompiledNetwork:
    """One of srgan's networks, compiled when the first window arrives."""

    def __init__(self, model: Model, target: str, precision: RunPrecision) -> None:
        nodes = nodes_of(model.network)
        self.shuffle = model.network.shuffle
        self.values_per_px = values_per_px(nodes)
        enlargements = [node.operation for node in nodes if node.exact and isinstance(node.operation, Convolution)]
        apart = precision != "fp32" and any(node.output == RESIDUAL for node in nodes)
        self._enlargement = enlargements[0] if apart else None
        self._graph = graph(nodes, RESIDUAL if apart else SUBPIXELS)
        self._target = target
        self._settings = {"INFERENCE_PRECISION_HINT": _TYPES[precision], "PERFORMANCE_HINT": "LATENCY"}
        if target == "CPU":
            self._settings |= {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "ENABLE_CPU_PINNING": "NO"}
        self._compiled: dict[tuple[int, ...], Any] = {}

    def subpixels(self, low: Tensor) -> Tensor:
        each = [self._run(one[None].contiguous()) for one in low]  # plain NCHW, not channels_last
        subpixels = torch.cat(each)
        return subpixels if self._enlargement is None else convolved(low, self._enlargement).add_(subpixels)

    def _run(self, low: Tensor) -> Tensor:
        request = self._request(tuple(low.shape))
        request.infer([low.numpy()])
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The request for a size: on the CPU one for all sizes, elsewhere one per size, since other devices compile for
        a fixed size."""
        key = () if self._target == "CPU" else shape
        if key not in self._compiled:
            if len(self._compiled) > 8:
                self._compiled.clear()
            network = self._graph.clone()
            if key:
                network.reshape(list(shape))
            try:
                self._compiled[key] = (
                    _core().compile_model(network, self._target, self._settings).create_infer_request()
                )
            except RuntimeError as err:
                if is_out_of_memory(err):
                    raise
                raise DeviceError(f"OpenVINO cannot use {self._target} for this network: {_first_line(err)}") from err
        return self._compiled[key]


def graph(nodes: Sequence[Node], output: str) -> Any:
    """OpenVINO's model of these operations, from (N, 3, H, W) fp32 to the blob `output`, for any N, H and W."""
    import numpy as np
    import openvino
    from openvino import opset13 as ops

    source = ops.parameter([-1, 3, -1, -1], np.float32, name=INPUT)
    made = {INPUT: source.output(0)}
    for node in nodes:
        made[node.output] = _operation(ops, node, [made[name] for name in node.inputs]).output(0)
        if node.output == output:
            break
    return openvino.Model([ops.result(made[output])], [source], "srgan")


def _operation(ops: Any, node: Node, inputs: Sequence[Any]) -> Any:
    operation, (first, *others) = node.operation, inputs
    if isinstance(operation, Convolution):
        return _convolution(ops, operation, first)
    if isinstance(operation, ParametricReLU):
        return ops.prelu(first, ops.constant(operation.slope.numpy()))
    if isinstance(operation, PixelShuffle):
        return ops.depth_to_space(first, "depth_first", operation.factor)
    assert isinstance(operation, Add)
    return ops.add(first, others[0])


def _convolution(ops: Any, operation: Convolution, low: Any) -> Any:
    reach = operation.weight.shape[-1] // 2
    if operation.repeats_border and reach:
        low = ops.pad(low, ops.constant([0, 0, reach, reach]), ops.constant([0, 0, reach, reach]), "edge")
        reach = 0
    weights = ops.constant(operation.weight.contiguous().numpy())
    high = ops.convolution(low, weights, [1, 1], [reach, reach], [reach, reach], [1, 1])
    if operation.bias is None:
        return high
    return ops.add(high, ops.constant(operation.bias.view(1, -1, 1, 1).numpy()))


def values_per_px(nodes: Sequence[Node]) -> float:
    """The largest number of values in a layer's input and output together, per px of the picture."""
    size = {INPUT: 3.0}  # of each blob
    most = 0.0
    for node in nodes:
        before = size[node.inputs[0]]
        after = before
        if isinstance(node.operation, Convolution):
            outputs, inputs = node.operation.weight.shape[:2]
            after = before * outputs / inputs
        size[node.output] = after
        most = max(most, before + after)
    return most


# ------------------------------------------------------------------------------------------------------------ choosing


def is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


@functools.cache
def _core() -> Any:
    """Raises `DeviceError` if OpenVINO is installed but cannot be loaded, for example without a home directory."""
    try:
        import openvino
    except RuntimeError as err:
        raise DeviceError(f"OpenVINO cannot be loaded: {err}") from err
    return openvino.Core()


def devices() -> tuple[Device, ...]:
    """The devices that OpenVINO finds; none if it is not installed."""
    if not is_installed():
        return ()
    try:
        core = _core()
    except DeviceError:
        return ()
    return tuple(
        Device(OpenVino(target).name, core.get_property(target, "FULL_DEVICE_NAME"), None, _WHY_ASKED)
        for target in _targets()
    )


def absences() -> tuple[str, ...]:
    if not is_installed():
        return (f"openvino: it needs OpenVINO; {how_to_install('openvino')}",)
    try:
        _core()
    except DeviceError as err:
        return (f"openvino: {err}",)
    return ()


def _targets() -> list[str]:
    return [target for target in _core().available_devices if target.partition(".")[0] in NAMES]


def why_not(models: Sequence[Model]) -> str | None:
    """Why OpenVINO cannot run these networks; None if it can."""
    for model in models:
        try:
            nodes_of(model.network)
        except WeightsError:
            return f"{model.name} is a {model.architecture} network, which OpenVINO does not run here"
    return None


def choose(options: EngineOptions, *, half_ok: bool, bf16_ok: bool) -> OpenVino:
    """The requested device: `openvino`, `openvino:cpu`, `openvino:gpu`, `openvino:gpu1`, `openvino:npu`.

    Raises `DeviceError` if it does not exist.
    """
    asked = options.device
    if not is_installed():
        raise DeviceError(f"--device {asked} needs OpenVINO; {how_to_install('openvino')}")
    name = asked.removesuffix(":cpu")
    target = next((target for target in _targets() if OpenVino(target).name in (name, f"{name}0")), None)
    if target is None:
        have = ", ".join(device.name for device in devices())
        raise DeviceError(f"--device {asked} was asked for, but OpenVINO finds only {have} here")
    precision, why = _precision(options, target, half_ok=half_ok, bf16_ok=bf16_ok)
    title = _core().get_property(target, "FULL_DEVICE_NAME")
    reasons = (f"device {OpenVino(target).name}, {title}: asked for", why)
    return OpenVino(target, precision, reasons, options.precision != "auto")


def _precision(options: EngineOptions, target: str, *, half_ok: bool, bf16_ok: bool) -> tuple[RunPrecision, str]:
    able = _core().get_property(target, "OPTIMIZATION_CAPABILITIES")
    half: RunPrecision = "bf16" if target == "CPU" else "fp16"
    possible = half.removeprefix("b").upper() in " ".join(able) if half == "fp16" else "BF16" in able
    wanted = options.precision
    if wanted == "fp32":
        return "fp32", "precision fp32: asked for"
    if wanted not in ("auto", half):
        return "fp32", f"precision fp32: OpenVINO computes in fp32 or {half} there"
    if not possible or not (bf16_ok if half == "bf16" else half_ok):
        return "fp32", f"precision fp32: this {'model' if possible else 'device'} cannot run in {half}"
    if wanted == half:
        return half, f"precision {half}: asked for"
    return half, f"precision {half}: half the memory traffic; checked against fp32 before use and tile by tile"


def _first_line(err: BaseException) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[-1] if lines else type(err).__name__
