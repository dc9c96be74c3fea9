"""Other programs' weights: any single-image super-resolution network that spandrel supports.

No code from a file is ever run. A `.pth` is a pickle, and a pickle can contain code; torch's `weights_only` reader
refuses everything but tensors and plain containers. spandrel's own file readers are not used (one of them loads
TorchScript).
"""

from __future__ import annotations

import contextlib
import pickle
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from srgan_cli.errors import WeightsError
from srgan_cli.extras import how_to_install
from srgan_cli.networks.generators import Generator, not_finite
from srgan_cli.networks.pickles import read_tensors
from srgan_cli.networks.srvgg import SRVGG, srvgg_of

# What torch and spandrel raise on damaged or mislabelled content.
_DAMAGE = (
    AssertionError, AttributeError, EOFError, ImportError, IndexError, KeyError, LookupError, NotImplementedError,
    OSError, OverflowError, RuntimeError, TypeError, ValueError, ZeroDivisionError, pickle.UnpicklingError,
    safetensors.SafetensorError, struct.error,
)  # fmt: skip

# Modules whose output at a position depends only on its neighbourhood, and in the same way everywhere.
_LOCAL = (
    nn.BatchNorm2d, nn.Conv2d, nn.Dropout, nn.Dropout2d, nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.Identity,
    nn.LeakyReLU, nn.Mish, nn.ModuleList, nn.PReLU, nn.PixelShuffle, nn.ReLU, nn.Sequential, nn.SiLU, nn.Sigmoid,
    nn.Softplus, nn.Tanh, nn.Upsample, nn.UpsamplingNearest2d, nn.ZeroPad2d,
)  # fmt: skip
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net")
_MAX_HALO_PX = 128  # above this, a tile's context costs more than blending overlapping tiles
_MAX_PROBED_PARAMETERS = 10_000_000  # a full RRDB has 16.7 million and a radius of 350 px: not worth measuring
# A network may have more tensors and numbers than its file, if some are computed: by this factor, or by this many.
_MAX_GROWTH, _SPARE_TENSORS, _SPARE_NUMBERS = 8, 1_000, 20_000_000


class ForeignGenerator(Generator):
    """A network built by spandrel. It has no separate last shuffle: `shuffle` is 1, and `subpixels` is the whole
    network.

    Pads below and on the right to sizes that the network accepts, crops the result, and clips it to [0, 1].
    """

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.inner: nn.Module = descriptor.model.eval().requires_grad_(False)
        self._descriptor = descriptor  # knows how to call it; holds the same module
        self.architecture = str(descriptor.architecture.name)
        self.scale = int(descriptor.scale)
        self.shuffle = 1
        self.input_channels = int(descriptor.input_channels)
        self.output_channels = int(descriptor.output_channels)
        self.size_multiple = int(descriptor.size_requirements.multiple_of)
        self.minimum_size_px = max(1, int(descriptor.size_requirements.minimum))
        self.supports_half = bool(descriptor.supports_half)
        self.supports_bf16 = bool(descriptor.supports_bfloat16)
        self.halo_px = _measure_halo(self)

    def unchecked(self, low: Tensor) -> Tensor:
        """The result as in the network's own program: NaN is kept."""
        high: Tensor = self._descriptor(low)
        return high

    def subpixels(self, low: Tensor) -> Tensor:
        dtype = next(self.inner.parameters()).dtype
        trace: list[Tensor] = []
        hook = self.inner.register_forward_hook(lambda _module, _inputs, output: trace.append(not_finite(output)))
        try:
            high = self.unchecked(low.to(dtype))  # (N, C, H, W) -> (N, C, H·scale, W·scale)
        finally:
            hook.remove()
        # The descriptor clips: an overflow in half precision must not be mistaken for white.
        return high.to(low.dtype) + sum(trace, start=low.new_zeros(())).to(low.dtype)


def load_foreign(data: bytes, path: Path) -> ForeignGenerator | SRVGG:
    """The network in a file's bytes; `path` is for its extension and for messages.

    An SRVGGNetCompact by any program is loaded as `srvgg`, and does not need spandrel.

    Raises `WeightsError` if spandrel is not installed, or the file is damaged, or its network is unknown or does
    something other than enlarge a single picture.
    """
    # torch's warnings about a file's format or an architecture's code do not help the user.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = _read_tensors(data, path)
        if (ours := srvgg_of(_unwrapped(state))) is not None and ours.scale > 1:
            return ours
        descriptor = _recognise(state, path)
    _refuse_other_purposes(descriptor, path)
    return ForeignGenerator(descriptor)


def _recognise(state: dict[str, Any], path: Path) -> Any:
    try:
        import spandrel
    except ImportError as err:
        raise WeightsError(
            f"{path} was not made by srgan; to use models of other programs: {how_to_install('spandrel')}"
        ) from err
    try:
        # initial weights, soon overwritten, must not change the caller's random state
        with torch.random.fork_rng(devices=[]), _limited(state, path):
            return spandrel.MAIN_REGISTRY.load(state)
    except spandrel.UnsupportedModelError as err:
        raise WeightsError(f"{path} holds weights of a network that neither srgan nor spandrel knows") from err
    except _DAMAGE as err:
        raise WeightsError(f"{path} does not fit the network that it seems to be for ({type(err).__name__})") from err


@contextlib.contextmanager
def _limited(state: Mapping[str, Any], path: Path) -> Iterator[None]:
    """spandrel takes sizes from names and shapes in a file: 3 kB that mention `body.999999999` would become a network
    larger than any memory. So building one ends as soon as it is much larger than its file. For this thread only."""
    tensors = [value for value in _unwrapped(state).values() if isinstance(value, Tensor)]
    left = [_MAX_GROWTH * len(tensors) + _SPARE_TENSORS, _MAX_GROWTH * sum(t.numel() for t in tensors) + _SPARE_NUMBERS]
    here = threading.get_ident()

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        if parameter is None or threading.get_ident() != here:
            return
        left[0] -= 1
        left[1] -= parameter.numel()
        if min(left) < 0:
            raise WeightsError(f"{path} is damaged: the network that it seems to be for is much larger than the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def _unwrapped(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights themselves, if they are nested under one of the names that training programs use."""
    return next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), state)


def _read_tensors(data: bytes, path: Path) -> dict[str, Any]:
    try:
        if path.suffix.lower() == ".safetensors":
            return dict(safetensors.torch.load(data))
    except _DAMAGE as err:
        raise WeightsError(f"{path} cannot be read as weights: it is damaged") from err
    state = read_tensors(data, str(path))
    if not isinstance(state, dict):
        raise WeightsError(f"{path} does not contain weights, but a {type(state).__name__}")
    return state


def _refuse_other_purposes(descriptor: Any, path: Path) -> None:
    name = descriptor.architecture.name
    if descriptor.purpose != "SR":
        purposes = {"FaceSR": "restores cut-out faces", "Inpainting": "fills holes"}
        does = purposes.get(descriptor.purpose, "restores without enlarging")
        raise WeightsError(f"{path} is a {name} network that {does}; srgan needs one that enlarges any picture")
    if descriptor.scale < 2:
        raise WeightsError(f"{path} is a {name} network of scale {descriptor.scale}, which does not enlarge")
    channels = descriptor.input_channels, descriptor.output_channels
    if channels not in ((1, 1), (3, 3)):
        raise WeightsError(f"{path} is a {name} network for {channels[0]} colour channels; srgan needs 1 or 3")


def _measure_halo(network: ForeignGenerator) -> int | None:
    """The receptive field's radius in low-resolution px; None if it is unbounded, not constant, or above 128 px.

    A NaN propagates to everything that depends on it, whatever the weights. NaNs at two positions in a strip of noise
    show the radius: the affected range must not reach the ends, and must be the same on both sides and at both
    positions, which is not the case for networks that divide the picture into windows. This is done only for networks
    of local layers with square kernels, for which one direction is sufficient and nothing masks a NaN.
    """
    if network.size_multiple > 1 or sum(p.numel() for p in network.parameters()) > _MAX_PROBED_PARAMETERS:
        return None
    if not all(_is_local(module) for module in network.modules() if not any(module.children())):
        return None
    height, width = max(8, network.minimum_size_px), 2 * _MAX_HALO_PX + 6
    places = (width // 2, width // 2 - 3)
    noise = torch.rand(2, network.input_channels, height, width, generator=torch.Generator().manual_seed(0))
    for picture, place in zip(noise, places, strict=True):
        picture[:, height // 2, place] = float("nan")
    with torch.inference_mode():
        high = network.unchecked(noise)
    if high.shape[2:] != (height * network.scale, width * network.scale):
        return None
    stained = high.isnan().any(dim=1).any(dim=1).reshape(2, width, network.scale).any(dim=2)  # (2, width)
    reaches = set()
    for row, place in zip(stained, places, strict=True):
        columns = torch.nonzero(row).flatten().tolist()
        if not columns:
            return None
        reaches |= {place - columns[0], columns[-1] - place}
    return reaches.pop() if len(reaches) == 1 and max(reaches) <= _MAX_HALO_PX else None


def _is_local(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        square = all(len(set(values)) == 1 for values in (module.kernel_size, module.dilation))
        return square and module.stride == (1, 1)
    return isinstance(module, _LOCAL)
