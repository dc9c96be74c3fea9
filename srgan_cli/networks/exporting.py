"""Exporting a model for other programs, and checking the result by running it there."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from srgan_cli import files
from srgan_cli.config import ExportFormat, ExportOptions
from srgan_cli.errors import SettingsError, WeightsError, shown
from srgan_cli.networks import openmodeldb
from srgan_cli.networks.generators import SRVGG, Generator, settings_of
from srgan_cli.networks.graph import INPUT, OUTPUT
from srgan_cli.networks.ncnn_format import ncnn_model
from srgan_cli.networks.onnx_format import onnx_model
from srgan_cli.networks.pickles import read_tensors
from srgan_cli.networks.registry import metadata_of
from srgan_cli.networks.weights import Model

# Allowed difference from srgan's result, with colours in [0, 1]: float rounding in another order, or fp16.
_TOLERANCE, _TOLERANCE_HALF = 1e-4, 2e-2


class Exported(NamedTuple):
    """The files written. `difference` is the largest difference between `program`'s result and srgan's on a test
    picture, both clipped, with colours in [0, 1]; None if that program is not installed, so that nothing was
    checked."""

    files: tuple[Path, ...]
    program: str
    difference: float | None


def export(model: Model, options: ExportOptions) -> Exported:
    """Write `model` as `options` specify, after comparing the other program's result (if installed) with srgan's.

    Raises `WeightsError` if the format cannot express the network, the files cannot be written, or the results differ;
    `SettingsError` if a file exists and must not be replaced.
    """
    taken = [path for path in options.files if path.exists() and not options.overwrite]
    if taken:
        raise SettingsError(f"{shown(taken[0])} exists already; give --overwrite, or another -o")
    assert options.format is not None
    contents = _WRITERS[options.format](model, half=options.half)
    program, result = _CHECKS[options.format](contents)
    difference = None if result is None else _difference(model.network, result)
    if difference is not None and not difference <= (_TOLERANCE_HALF if options.half else _TOLERANCE):
        raise WeightsError(
            f"{model.name} was not exported: the result of {program} differs from srgan's by {difference:.2g} "
            "(colours 0 to 1)" + ("; try it without --precision fp16" if options.half else "")
        )
    _publish(dict(zip(options.files, contents, strict=True)), options.overwrite)
    if options.openmodeldb is None:
        return Exported(options.files, program, difference)
    _publish({options.openmodeldb: _openmodeldb(model, options).encode()}, overwrite=True)
    return Exported((*options.files, options.openmodeldb), program, difference)


def _openmodeldb(model: Model, options: ExportOptions) -> str:
    config = getattr(model.network, "config", None)
    sizes = settings_of(config) if config is not None else {}
    subject = openmodeldb.Subject(model.name, model.entry, model.architecture, sizes, model.scale, model.input_channels)
    return openmodeldb.to_json(openmodeldb.record(subject, options.files, author=options.author or openmodeldb.AUTHOR))


def _publish(contents: Mapping[Path, bytes], overwrite: bool) -> None:
    """All files or none: each is complete before the first one gets its name."""
    with contextlib.ExitStack() as stack:
        for path in contents:
            with _naming(path):
                files.check_publishable(path)
        for path, content in contents.items():
            file = stack.enter_context(_publishing(path, overwrite))
            file.write(content)
            file.flush()


@contextlib.contextmanager
def _publishing(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    with _naming(path), files.publishing(path, overwrite=overwrite) as file:
        yield file


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise WeightsError(f"{shown(path)} cannot be written: {files.reason(err)}") from err


def facts_of(model: Model) -> dict[str, str]:
    """A model's facts for a file's metadata: plain text, for programs and people."""
    facts = {
        "name": model.name,
        "architecture": model.architecture,
        "scale": str(model.scale),
        "halo_px": "" if model.halo_px is None else str(model.halo_px),
        "pixels": "RGB, from 0 to 1",
        "adversarial": json.dumps(model.adversarial),
        "source_sha256": model.sha256,
    }
    if model.entry is not None:
        facts |= {"description": model.entry.description, "licence": model.entry.licence}
    return facts


# ------------------------------------------------------------------------------------------------------------- writing


def _onnx(model: Model, *, half: bool) -> tuple[bytes, ...]:
    return (onnx_model(model.network, facts_of(model), half=half),)


def _ncnn(model: Model, *, half: bool) -> tuple[bytes, ...]:
    param, weights = ncnn_model(model.network, half=half)
    return param.encode("ascii"), weights


def _pth(model: Model, *, half: bool) -> tuple[bytes, ...]:
    buffer = io.BytesIO()
    torch.save({"params": _tensors(model, half)}, buffer)  # the key used in Real-ESRGAN's and BasicSR's files
    return (buffer.getvalue(),)


def _safetensors(model: Model, *, half: bool) -> tuple[bytes, ...]:
    return (safetensors.torch.save(_tensors(model, half), _metadata(model)),)


def _tensors(model: Model, half: bool) -> dict[str, Tensor]:
    network = model.network
    if not isinstance(network, SRVGG):
        raise WeightsError(
            f"{model.name} is a {model.architecture} network, whose weights other programs cannot read; "
            "use --format onnx or ncnn"
        )
    tensors = {key: tensor.detach().contiguous() for key, tensor in network.state_dict().items()}
    return {key: tensor.half() if half and tensor.dim() == 4 else tensor for key, tensor in tensors.items()}


def _metadata(model: Model) -> dict[str, str]:
    """The metadata of srgan's own files, so that srgan can read the file too."""
    entry = model.entry
    if entry is None:
        return {"format": "pt"}
    return metadata_of(entry, entry.architecture, entry.config, entry.scale, entry.parameters)


_WRITERS: Mapping[ExportFormat, Callable[..., tuple[bytes, ...]]] = {
    "onnx": _onnx,
    "ncnn": _ncnn,
    "pth": _pth,
    "safetensors": _safetensors,
}


# ------------------------------------------------------------------------------------------------------------ checking


def _picture() -> Tensor:
    """Smooth colours in [0, 1], (1, 3, 39, 46): no side is a multiple of anything that could hide a mistake."""
    coarse = torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (39, 46), mode="bicubic").clamp(0, 1)


def _difference(network: Generator, result: Tensor) -> float:
    with torch.inference_mode():
        expected = network(_picture()).clamp(0, 1)
    if result.shape != expected.shape:
        return float("inf")
    return float((result.clamp(0, 1) - expected).abs().max())


def _run_onnx(contents: tuple[bytes, ...]) -> tuple[str, Tensor | None]:
    try:
        import onnxruntime
    except ImportError:
        return "ONNX Runtime", None
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors only: its warnings about fp16 on a CPU are irrelevant here
    session = onnxruntime.InferenceSession(contents[0], settings, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: _picture().numpy()})
    return f"ONNX Runtime {onnxruntime.__version__}", torch.from_numpy(result)


def _run_ncnn(contents: tuple[bytes, ...]) -> tuple[str, Tensor | None]:
    try:
        import ncnn
    except ImportError:
        return "ncnn", None
    net = ncnn.Net()
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    with tempfile.TemporaryDirectory(prefix="srgan-") as folder:
        for path, content in zip(
            (param := Path(folder, "x.param"), bin_ := Path(folder, "x.bin")), contents, strict=True
        ):
            path.write_bytes(content)
        if net.load_param(str(param)) or net.load_model(str(bin_)):
            raise WeightsError("ncnn does not read what srgan writes; please report it")
    pixels = np.ascontiguousarray(_picture()[0].numpy())  # ncnn reads it at this path
    picture, extractor = ncnn.Mat(pixels), net.create_extractor()
    extractor.input(INPUT, picture)
    _, result = extractor.extract(OUTPUT)
    return f"ncnn {ncnn.__version__}", torch.from_numpy(np.array(result))[None]


def _run_spandrel(contents: tuple[bytes, ...]) -> tuple[str, Tensor | None]:
    try:
        import spandrel
    except ImportError:
        return "spandrel", None
    try:
        state = safetensors.torch.load(contents[0])
    except safetensors.SafetensorError:
        state = read_tensors(contents[0], "the exported file")
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        network = spandrel.ModelLoader().load_from_state_dict(state)
        return f"spandrel {spandrel.__version__}", network(_picture())


_CHECKS: Mapping[ExportFormat, Callable[[tuple[bytes, ...]], tuple[str, Tensor | None]]] = {
    "onnx": _run_onnx,
    "ncnn": _run_ncnn,
    "pth": _run_spandrel,
    "safetensors": _run_spandrel,
}
