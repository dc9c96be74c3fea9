"""ONNX Runtime, for networks in ONNX files: on the CPU, and on CUDA if the installed version supports it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends.hosted import Hosted
from srgan_cli.engine.backends.memory import host_tile_bytes
from srgan_cli.engine.backends.protocol import Backend, Prepared, RunPrecision
from srgan_cli.errors import DeviceError
from srgan_cli.networks.onnx_files import OnnxGenerator, providers
from srgan_cli.networks.outside import enlarge
from srgan_cli.networks.weights import Model

# Large networks of this kind hold 64 features at four times the resolution, three times over; the runtime does not
# report it.
_BYTES_PER_PX = 3 * 64 * 16 * 4


@dataclass(frozen=True)
class Onnx(Hosted):
    """A `Backend`. The file determines the precision of the computation; input and output are fp32."""

    cuda: int | None = None
    reasons: tuple[str, ...] = ()
    precision: RunPrecision = "fp32"
    chosen_precision: bool = False

    @property
    def name(self) -> str:
        return "cpu" if self.cuda is None else f"cuda:{self.cuda}"

    @property
    def max_window_px(self) -> int:
        return 512

    def exact(self, _reason: str | None = None) -> Onnx:
        return self

    def referee(self, _models: Sequence[Model]) -> Backend | None:
        return None if self.cuda is None else Onnx()

    def prepare(self, model: Model) -> Prepared:
        assert isinstance(model.network, OnnxGenerator)
        return _OnnxNetwork(model.network, self.cuda)

    def budget_bytes(self) -> float:
        return host_tile_bytes()

    def bytes_per_px(
        self, _networks: Sequence[Prepared], _probe: Callable[[int], object], result: float, _held: float = 0.0
    ) -> float:
        return _BYTES_PER_PX + result


class _OnnxNetwork:
    shuffle = 1

    def __init__(self, generator: OnnxGenerator, cuda: int | None) -> None:
        self._needs = generator.needs
        self._network = generator.network(cuda=cuda)

    def subpixels(self, low: Tensor) -> Tensor:
        return enlarge(self._network.run, self._needs, low)


def choose(options: EngineOptions, names: str) -> Onnx:
    """Raises `DeviceError` if the requested device is not available in ONNX Runtime."""
    has_cuda = "CUDAExecutionProvider" in providers()
    precision = "precision: the file's own"
    if options.device == "auto":
        why = "ONNX Runtime has CUDA here" if has_cuda else "ONNX Runtime has no GPU here"
        return Onnx(0 if has_cuda else None, (f"device {'cuda:0' if has_cuda else 'cpu'}: {why}", precision))
    if options.device == "cpu":
        return Onnx(None, ("device cpu: asked for", precision))
    if not options.device.startswith("cuda"):
        raise DeviceError(f"{names} is an ONNX file, which runs on cpu or cuda, not on {options.device}")
    if not has_cuda:
        raise DeviceError(
            f"--device {options.device} was asked for, but the ONNX Runtime installed here has no CUDA (the package "
            "onnxruntime-gpu has); try --device cpu"
        )
    index = int(options.device.partition(":")[2] or 0)
    return Onnx(index, (f"device cuda:{index}: asked for", precision))
