"""Other programs' models in ONNX files, run by ONNX Runtime.

Such a file lists the runtime's own operations and contains no code. Only that file is read: one that refers to weights
in other files is refused.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import Generator
from srgan_cli.networks.onnx_references import refers_to_files
from srgan_cli.networks.outside import Array, Needs, enlarge, probe
from srgan_cli.threads import asked_for
from srgan_cli.wording import counted

MISSING = "the onnxruntime package is not installed (`pip install onnxruntime`, or this project with its extra [onnx])"
_NO_MEMORY = ("failed to allocate memory", "bad_alloc", "out of memory", "cuda_error_out_of_memory", "bfcarena")
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_MAX_HALO_PX = 128


class OnnxError(RuntimeError):
    """An error reported by ONNX Runtime."""


def is_installed() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


def providers() -> tuple[str, ...]:
    """The execution providers of this ONNX Runtime installation; empty if it is missing."""
    if not is_installed():
        return ()
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


class OnnxNetwork:
    """One network in ONNX Runtime, on the CPU or a CUDA device. May be run from several threads."""

    def __init__(self, data: bytes, *, cuda: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors that it would print are also raised
        options.intra_op_num_threads = asked_for()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # its other format is not examined here
        where: Sequence[Any] = ["CPUExecutionProvider"]
        if cuda is not None:
            where = [("CUDAExecutionProvider", {"device_id": cuda}), *where]
        self.session = _told(lambda: onnxruntime.InferenceSession(data, options, providers=where))

    def __deepcopy__(self, _memo: object) -> OnnxNetwork:
        return self  # constant

    def run(self, low: Array) -> Array:
        """Raises `OnnxError` or `MemoryError`."""
        (one,) = self.session.get_inputs()
        values = low[None].astype(_DTYPES[one.type])
        high: Array = _told(lambda: np.asarray(self.session.run(None, {one.name: values})[0], np.float32))
        return high[0] if high.ndim else high


def _told(work: Any) -> Any:
    try:
        return work()
    except Exception as err:
        text = str(err)
        if any(words in text.lower() for words in _NO_MEMORY):
            raise MemoryError(text) from err
        raise OnnxError(" ".join(text.split())[:300] or type(err).__name__) from err


class OnnxGenerator(Generator):
    """A network in an ONNX file. It has no PyTorch parameters, and runs on the CPU unless a backend runs it."""

    architecture = "onnx"
    shuffle = 1

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__()
        self.data = data
        try:
            self._on_cpu = self.network(cuda=None)
            channels = _channels(self._on_cpu.session, name)
            self.needs: Needs = probe(self._on_cpu.run, name, channels=channels)
        except (OnnxError, MemoryError) as err:
            raise WeightsError(f"{name} cannot be run by ONNX Runtime: {err}") from err
        self.scale = self.needs.scale
        self.halo_px = _halo_px(self._on_cpu.session.get_modelmeta()) if self.needs.size_multiple == 1 else None

    def network(self, *, cuda: int | None) -> OnnxNetwork:
        return OnnxNetwork(self.data, cuda=cuda)

    def subpixels(self, low: Tensor) -> Tensor:
        return enlarge(self._on_cpu.run, self.needs, low)


def _channels(session: Any, name: str) -> int:
    """1 or 3. Raises `WeightsError` if the input is not a picture."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise WeightsError(
            f"{name} has {counted(len(inputs), 'input')} and {counted(len(outputs), 'output')}; srgan needs a network "
            "from one picture to one"
        )
    shape = inputs[0].shape
    if inputs[0].type not in _DTYPES or len(shape) != 4:
        raise WeightsError(f"{name} takes {inputs[0].type} of {shape}; srgan needs (N, 3, H, W) of float")
    if not outputs[0].type.startswith("tensor("):
        raise WeightsError(f"{name} gives {outputs[0].type}; srgan needs (N, 3, H, W) of float")
    channels = shape[1] if isinstance(shape[1], int) else 3
    if channels not in (1, 3):
        raise WeightsError(f"{name} takes {channels} channels in its second place; srgan needs (N, 3, H, W) or 1")
    fixed = [side for side in shape[2:] if isinstance(side, int)]
    if fixed:
        size = "×".join(map(str, reversed(shape[2:])))
        raise WeightsError(f"{name} takes pictures of {size} px only; export it with dynamic height and width")
    if shape[0] not in (1, None) and isinstance(shape[0], int):
        raise WeightsError(f"{name} takes {shape[0]} pictures at a time only; export it with a dynamic batch")
    return channels


def _halo_px(facts: Any) -> int | None:
    """As recorded by `srgan export`; for other programs' networks it is unknown."""
    if facts.producer_name != "srgan":
        return None
    with contextlib.suppress(KeyError, ValueError):
        halo_px = int(facts.custom_metadata_map["halo_px"])
        return halo_px if 0 <= halo_px <= _MAX_HALO_PX else None
    return None


def load_onnx(path: Path, data: bytes) -> OnnxGenerator:
    """The network in a file's bytes; `path` is for messages. Raises `WeightsError`."""
    if not is_installed():
        raise WeightsError(f"{path} is an ONNX file, and {MISSING}")
    try:
        refers = refers_to_files(data)
    except ValueError as err:
        raise WeightsError(f"{path} is not an ONNX file, or it is damaged: {err}") from err
    if refers:
        raise WeightsError(
            f"{path} keeps its weights in another file, which srgan does not read; save it with its weights inside"
        )
    return OnnxGenerator(data, str(path))
