"""Loading networks from names or files, and saving them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.errors import WeightsError
from srgan_cli.files import file_sha256, publish_bytes, reason
from srgan_cli.networks import library
from srgan_cli.networks.blank import without_numbers
from srgan_cli.networks.generators import Config, Generator, build, fold, settings_of
from srgan_cli.networks.outside import Needs
from srgan_cli.networks.registry import (
    MODEL_SUFFIXES,
    Card,
    Entry,
    WeightsHeader,
    blend_name,
    entry_of,
    metadata_of,
    parse_header,
    read_model_file,
    resolve,
    split_detail,
    start_of,
)


@dataclass(frozen=True)
class Model:
    """A network that enlarges, and everything needed to run it.

    The tensor contract
    -------------------
    `subpixels(low)`: (N, input_channels, H, W) -> (N, output_channels·r², H·scale/r, W·scale/r) with r = `shuffle`;
    `F.pixel_shuffle(subpixels(low), shuffle)` is the high picture, (N, output_channels, H·scale, W·scale).

    - Values are RGB (or grey, if `input_channels` is 1) in [0, 1]. Results may slightly exceed that range: clip them.
    - `low` is fp32 on the network's device, and so is the result, whatever the dtype of the weights.
    - Any H, W ≥ 1 is accepted. Sizes that are not a multiple of `size_multiple`, or below `minimum_size_px`, are padded
      internally (below and on the right), which costs time and, at those borders, a little quality.
    - `halo_px` = n: an output pixel depends only on low pixels at most n px away from the one that contains it, and in
      the same way everywhere. So a tile with n px of context, clamped at the picture's borders, gives exactly the same
      pixels as the whole picture. None: unbounded, above 128 px, or unknown; use overlapping tiles and blend them.

    The network
    -----------
    `network` is an `nn.Module` in eval mode, fp32, on the CPU, without gradients, batch norm folded. Move it or copy it
    (`copy.deepcopy(model.network).to(device, torch.bfloat16)`) like any module; `supports_half` (fp16) and
    `supports_bf16` say to which dtypes. `network.subpixels` and `network.shuffle` are the ones above.

    Its origin
    ----------
    `entry` is the file's card if srgan made it, else None. `sha256` is that of the file. `adversarial` means that the
    network was trained for perceptual quality and may invent texture (and shift colours: see `--color-lock`).
    """

    network: Generator
    name: str
    architecture: str
    scale: int
    halo_px: int | None
    path: Path
    sha256: str
    entry: Entry | None = None
    size_multiple: int = 1
    minimum_size_px: int = 1
    input_channels: int = 3
    output_channels: int = 3
    supports_half: bool = True
    supports_bf16: bool = True
    adversarial: bool = False

    @property
    def shuffle(self) -> int:
        return self.network.shuffle

    def subpixels(self, low: Tensor) -> Tensor:
        return self.network.subpixels(low)


def load_model(source: str | Path, scale: float | None = None) -> Model:
    """The model of a bundled name, a family's name, a file (srgan's or another program's) or a run folder.

    `scale` is the desired enlargement, for families with several; see `registry.find`. `srgan@0.6` is an interpolation
    of two models: the weights at 0.6 of the way from `fidelity` to `srgan`. Without a number it is `DEFAULT_DETAIL`.
    Raises `WeightsError` if there is none, or it is damaged, or does not enlarge pictures.
    """
    name, detail = split_detail(source) if isinstance(source, str) else (source, None)
    path, bundled = resolve(name, scale)
    start = start_of(bundled) if bundled is not None else None
    if bundled is not None and start is not None:
        return _between(start, bundled, DEFAULT_DETAIL if detail is None else detail)
    if detail is not None:
        raise WeightsError(f"{name} has no choice of detail: only srgan can be blended with the model it came from")
    own = library.owner_of(path)
    if own is not None and (wrong := library.fault(own)):
        raise WeightsError(f"{own.name}: {wrong}; `srgan models remove {own.name}`, and add it again")
    if path.suffix.lower() == ".param":
        return _ncnn_model(path)
    data = _read(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if bundled is not None:
        _check_sha256(sha256, bundled)
    if path.suffix.lower() == ".onnx":
        return _onnx_model(data, path, sha256)
    header = _header(data, path)
    entry = entry_of(header, path, sha256) if header is not None else None
    if header is not None and entry is not None:
        return _our_model(_generator(data, header, entry), entry)
    return _foreign_model(data, path, sha256)


def _check_sha256(found: str, entry: Entry) -> None:
    if found != entry.sha256:
        raise WeightsError(
            f"{entry.path} is not the file that came with srgan (see `srgan models verify`); install it again"
        )


def _between(start: Entry, end: Entry, detail: float) -> Model:
    """The network at `detail` (0 to 1) of the way from one bundled model to its fine-tuned version.

    Network interpolation, Wang et al. 2018 (ESRGAN, arXiv:1809.00219), section 3.4: unlike mixing two results it costs
    nothing at run time, and the artefacts of the far end disappear before its detail does.
    """
    for entry in (start, end):
        _check_sha256(file_sha256(entry.path), entry)
    generator = load_generator(end.path)
    begin = load_generator(start.path).state_dict()
    with torch.no_grad():
        for key, tensor in generator.state_dict().items():
            tensor.copy_(torch.lerp(begin.get(key, torch.zeros_like(tensor)), tensor, detail))  # strengths start at 0
    mixed = hashlib.sha256(f"{start.sha256} {end.sha256} {detail:.6f}".encode()).hexdigest()
    return dataclasses.replace(
        _our_model(generator, end), name=blend_name(end.name, detail), sha256=mixed, adversarial=detail > 0
    )


def load_generator(path: Path) -> Generator:
    """The generator in one of srgan's files, in fp32, as it was trained: with its batch norms, for further training.

    Also another program's SRVGGNetCompact, as `srvgg`. Raises `WeightsError` if the file is missing or damaged, or
    srgan cannot train its network.
    """
    data = _read(path)
    header = _header(data, path)
    entry = entry_of(header, path, "") if header is not None else None
    if header is not None and entry is not None:
        return _generator(data, header, entry)
    from srgan_cli.networks.foreign import ForeignGenerator, load_foreign

    try:
        network = load_foreign(data, path)
    except WeightsError as err:
        raise WeightsError(f"{path} was not made by srgan, so it cannot be trained further ({err})") from err
    if isinstance(network, ForeignGenerator):
        raise WeightsError(f"{path} was not made by srgan, which cannot train a network of its kind: "
                           f"{network.architecture}")  # fmt: skip
    refuse_infinities(network, path)
    return network


def save_weights(path: Path, generator: Generator, card: Card, *, half: bool = False) -> None:
    """Write a generator and its card as one safetensors file, atomically.

    `half` stores the convolutions' kernels as fp16, which halves the file; biases, slopes and statistics stay as they
    are. `generator` must come from `build`, not folded. Raises `WeightsError` if the file cannot be written.
    """
    config = settings_of(cast("Config", generator.config))
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    metadata = metadata_of(card, generator.architecture, config, generator.scale, parameters)
    assert _shapes(generator) == _shapes(_blank(generator.architecture, config)), "a folded network cannot be saved"
    tensors = {
        key: (tensor.half() if half and tensor.dim() == 4 else tensor).detach().cpu().contiguous()
        for key, tensor in generator.state_dict().items()
    }
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise WeightsError(f"{path} was not written: the network holds numbers that are not finite")
    write_model_file(path, safetensors.torch.save(tensors, metadata))


def write_model_file(path: Path, data: bytes) -> None:
    """Write the file atomically. Raises `WeightsError` if it cannot be written."""
    try:
        publish_bytes(path, data)
    except OSError as err:
        raise WeightsError(f"{path} cannot be written: {reason(err)}") from err


def _read(path: Path) -> bytes:
    data = read_model_file(path)
    if path.suffix.lower() not in MODEL_SUFFIXES:
        raise WeightsError(f"{path} is not a model; models are files ending in {', '.join(MODEL_SUFFIXES)}")
    return data


def _header(data: bytes, path: Path) -> WeightsHeader | None:
    return parse_header(io.BytesIO(data), len(data), str(path)) if path.suffix.lower() == ".safetensors" else None


def _generator(data: bytes, header: WeightsHeader, entry: Entry) -> Generator:
    path = entry.path
    try:
        generator = _blank(entry.architecture, entry.config)
    except WeightsError as err:
        raise WeightsError(f"{path} does not fit this srgan: {err}") from err
    expected = _shapes(generator)
    found = {key: shape for key, (_, shape) in header.tensors.items()}
    if expected != found or generator.scale != entry.scale:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise WeightsError(
            f"{path} is damaged: its tensors are not those of its settings ({', '.join(map(repr, wrong[:3]))})"
        )
    tensors = tensors_of(data, path)
    wanted = generator.state_dict()
    # Assigned, not copied: `to_empty` from `meta` would import sympy.
    generator.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in tensors.items()}, assign=True)
    refuse_infinities(generator, path)
    return generator


def _blank(architecture: str, config: Mapping[str, object]) -> Generator:
    # Without allocating memory, since the settings in a file may imply more than the file holds, and without using
    # random numbers.
    with without_numbers():
        return build(architecture, config)


def _shapes(generator: Generator) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in generator.state_dict().items()}


def tensors_of(data: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `WeightsError` if it is damaged."""
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as err:
        raise WeightsError(f"{path} is damaged: {err}") from err


def refuse_infinities(network: nn.Module, path: Path) -> None:
    """Raises `WeightsError` for a network whose weights are not finite, or whose statistics are not numbers."""
    damaged = any(not bool(parameter.isfinite().all()) for parameter in network.parameters())
    if damaged or any(bool(buffer.isnan().any()) for buffer in network.buffers()):
        raise WeightsError(f"{path} is damaged: some of its numbers are not finite")


def _our_model(generator: Generator, entry: Entry) -> Model:
    folded = fold(generator)
    refuse_infinities(folded, entry.path)  # a variance below zero, for example
    model = model_of(folded, entry.path, entry.sha256)
    return dataclasses.replace(model, name=entry.name, entry=entry, adversarial=entry.adversarial)


def model_of(network: Generator, path: Path, sha256: str) -> Model:
    """A loaded model, with the facts from its network and its file."""
    return Model(
        network=network,
        name=path.stem,
        architecture=network.architecture,
        scale=network.scale,
        halo_px=network.halo_px,
        path=path,
        sha256=sha256,
    )


def _foreign_model(data: bytes, path: Path, sha256: str) -> Model:
    from srgan_cli.networks.foreign import ForeignGenerator, load_foreign

    network = load_foreign(data, path)
    refuse_infinities(network, path)
    model = model_of(fold(network.float()), path, sha256)
    if not isinstance(network, ForeignGenerator):
        return model
    return dataclasses.replace(
        model,
        network=network,
        size_multiple=network.size_multiple,
        minimum_size_px=network.minimum_size_px,
        input_channels=network.input_channels,
        output_channels=network.output_channels,
        supports_half=network.supports_half,
        supports_bf16=network.supports_bf16,
    )


def _ncnn_model(path: Path) -> Model:
    from srgan_cli.networks.ncnn_files import load_ncnn

    network, data = load_ncnn(path)
    return _outside_model(network, network.needs, path, hashlib.sha256(data).hexdigest())


def _onnx_model(data: bytes, path: Path, sha256: str) -> Model:
    from srgan_cli.networks.onnx_files import load_onnx

    network = load_onnx(path, data)
    return _outside_model(network, network.needs, path, sha256)


def _outside_model(network: Generator, needs: Needs, path: Path, sha256: str) -> Model:
    return dataclasses.replace(
        model_of(network, path, sha256),
        size_multiple=needs.size_multiple,
        minimum_size_px=needs.minimum_size_px,
        input_channels=needs.channels,
        output_channels=needs.channels,
        supports_bf16=False,
    )
