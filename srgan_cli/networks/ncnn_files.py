"""Networks in ncnn's two files (`x4.param` beside `x4.bin`), as in Upscayl and realesrgan-ncnn-vulkan.

ncnn reads and runs them in a separate process (`ncnn_process`), since files may be untrusted. They contain no code.
"""

from __future__ import annotations

import os
from pathlib import Path

from torch import Tensor

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.ncnn_param import MAX_TEXT_BYTES, Param, parse_param
from srgan_cli.networks.ncnn_process import NcnnError, NcnnProcess, is_installed
from srgan_cli.networks.outside import Array, Needs, enlarge, probe
from srgan_cli.networks.registry import read_model_file
from srgan_cli.threads import asked_for

_MAX_WEIGHTS_BYTES = 1 << 30
_MAX_HALO_PX = 128  # above this, a tile's context costs more than blending overlapping tiles
MISSING = "the ncnn package is not installed (`pip install ncnn`, or this project with its extra [vulkan])"


class NcnnNetwork:
    """One network in a separate process, on a Vulkan device or (None) the CPU. The process is restarted if it has
    ended."""

    def __init__(
        self, param: str, weights: bytes, *, device: int | None, half: bool = False, input_blob: str = "data",
        output_blob: str = "output",
    ) -> None:  # fmt: skip
        self._param, self._weights = param.encode(), weights
        self._device, self._half = device, half
        self._blobs = {"input_blob": input_blob, "output_blob": output_blob}
        self._process: NcnnProcess | None = None

    def __deepcopy__(self, _memo: object) -> NcnnNetwork:
        return self  # constant

    def load(self) -> None:
        """Raises `NcnnError` or `MemoryError`, as `run` does."""
        process = NcnnProcess()
        threads = asked_for() or os.cpu_count() or 1
        process.load(self._param, self._weights, device=self._device, half=self._half, threads=threads)
        self._process = process

    def run(self, low: Array) -> Array:
        if self._process is None or not self._process.is_alive:
            self.load()
        assert self._process is not None
        return self._process.run(low, **self._blobs)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()


class NcnnGenerator(Generator):
    """A network in ncnn's files. It has no PyTorch parameters, and runs on the CPU unless a backend runs it."""

    architecture = "ncnn"
    shuffle = 1

    def __init__(self, text: str, weights: bytes, param: Param, name: str) -> None:
        super().__init__()
        self.text, self.weights, self.param = text, weights, param
        self._on_cpu = self.network(device=None, half=False)
        try:
            self.needs: Needs = probe(self._on_cpu.run, name)
        except NcnnError as err:
            raise WeightsError(f"{name} cannot be run by ncnn: {err}") from err
        self.scale = self.needs.scale
        known = param.halo_px is not None and param.halo_px <= _MAX_HALO_PX and self.needs.size_multiple == 1
        self.halo_px = param.halo_px if known else None

    def network(self, *, device: int | None, half: bool) -> NcnnNetwork:
        blobs = {"input_blob": self.param.input, "output_blob": self.param.output}
        return NcnnNetwork(self.text, self.weights, device=device, half=half, **blobs)

    def subpixels(self, low: Tensor) -> Tensor:
        return enlarge(self._on_cpu.run, self.needs, low)


def load_ncnn(path: Path) -> tuple[NcnnGenerator, bytes]:
    """The network whose text is `path`, and the bytes of both files. Raises `WeightsError`."""
    beside = path.with_suffix(".bin")
    if not is_installed():
        raise WeightsError(f"{path} is a network for ncnn, and {MISSING}")
    text = read_model_file(path, MAX_TEXT_BYTES)
    if not beside.is_file():
        raise WeightsError(f"{path} comes with a file of weights, {beside.name}, which is not beside it")
    weights = read_model_file(beside, _MAX_WEIGHTS_BYTES)
    try:
        decoded = text.decode("ascii")
    except UnicodeDecodeError as err:
        raise WeightsError(
            f"{path} is not an ncnn .param file in text form (the binary form is not supported)"
        ) from err
    return NcnnGenerator(decoded, weights, parse_param(decoded, str(path)), str(path)), text + weights
