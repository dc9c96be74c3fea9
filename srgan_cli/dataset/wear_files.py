"""The wearer's file, `wear.safetensors` in a run folder; and how the files of worn pictures were compressed."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from PIL import Image, JpegImagePlugin

from srgan_cli.dataset.pictures import in_order
from srgan_cli.dataset.wear import FileSign, WearConfig, Wearer
from srgan_cli.dataset.wear_header import FORMAT, GREY, VERSION, facts_in, wear_path
from srgan_cli.errors import PictureError, SrganError, WeightsError
from srgan_cli.imaging.signs import find_signs
from srgan_cli.networks.blank import without_numbers
from srgan_cli.networks.registry import WeightsHeader, parse_header, read_model_file
from srgan_cli.networks.weights import refuse_infinities, tensors_of, write_model_file

_MAX_BYTES = 64 << 20
_MAX_SIGNS = 64  # number of worn pictures whose files are examined
_MAX_PIXELS = 180_000_000


@dataclass(frozen=True)
class LearnedWear:
    """A stored wearer. `signs`: how the worn pictures' files were compressed, None for those that show no sign.

    `sha256` is that of the file; `grey`: learned from grey pictures, and so only suitable for them.
    """

    network: Wearer
    signs: tuple[FileSign | None, ...]
    sha256: str
    grey: bool = False

    @property
    def scale(self) -> int:
        return self.network.scale


def save_wear(path: Path, network: Wearer, signs: Sequence[FileSign | None], *, grey: bool = False) -> None:
    """Write the file atomically. Raises `WeightsError` if it cannot be written."""
    metadata = {
        "format": "pt",
        FORMAT: VERSION,
        "config": json.dumps(dataclasses.asdict(network.config)),
        "signs": json.dumps([None if sign is None else dataclasses.asdict(sign) for sign in signs]),
        GREY: json.dumps(grey),
    }
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    write_model_file(path, safetensors.torch.save(tensors, metadata))


def load_wear(path: Path) -> LearnedWear:
    """Raises `WeightsError` if a file is missing, damaged or not a wearer's."""
    data = read_model_file(path, _MAX_BYTES)
    header = parse_header(io.BytesIO(data), len(data), str(path))
    facts = facts_in(header, path)
    network, signs = _blank(header, path)
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    if expected != {key: shape for key, (_, shape) in header.tensors.items()}:
        raise WeightsError(f"{path} is damaged: its tensors are not those of its settings")
    tensors = tensors_of(data, path)
    network.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    refuse_infinities(network, path)
    return LearnedWear(network.eval().requires_grad_(False), signs, hashlib.sha256(data).hexdigest(), facts.grey)


def _blank(header: WeightsHeader, path: Path) -> tuple[Wearer, tuple[FileSign | None, ...]]:
    """The network for the file's settings, without allocated memory, since they may imply more than the file holds."""
    try:
        config = WearConfig(**json.loads(header.metadata["config"]))
        found = json.loads(header.metadata["signs"])
        signs = tuple(None if sign is None else FileSign(**sign) for sign in found)
        with without_numbers():
            return Wearer(config), signs
    except (KeyError, TypeError, ValueError, RecursionError, SrganError) as err:
        raise WeightsError(f"{path} is damaged: its settings are not valid ({err})") from err


def opened(name: str) -> LearnedWear:
    """The wear that a degradation's setting names, loaded once as long as its file does not change."""
    path = wear_path(name)
    found = path.stat()
    return _opened(path, found.st_mtime_ns, found.st_size)


@functools.lru_cache(4)
def _opened(path: Path, _changed_ns: int, _size_bytes: int) -> LearnedWear:
    return load_wear(path)


# ------------------------------------------------------------------------------------------------------ worn pictures


def signs_of(paths: Sequence[Path]) -> tuple[FileSign | None, ...]:
    """Compression of some of the worn pictures: of their own files, or traces of earlier compression in their pixels.
    Unreadable pictures are skipped."""
    some = list(paths)[:: max(1, len(paths) // _MAX_SIGNS)][:_MAX_SIGNS]
    return tuple(sign for known, sign in in_order(_sign_of, some) if known)


def _sign_of(path: Path) -> tuple[bool, FileSign | None]:
    try:
        found = find_signs(path, max_pixels=_MAX_PIXELS)
    except PictureError:
        return False, None
    quality = found.quality if found.quality is not None else found.was_jpeg_of
    if quality is None:
        return True, None
    halved = _halved_chroma(path) if found.codec == "JPEG" else True
    return True, FileSign("WEBP" if found.codec == "WebP" else "JPEG", quality, halved)


def _halved_chroma(path: Path) -> bool:
    """Whether a JPEG stores colour at half the resolution, as nearly all cameras do."""
    try:
        with Image.open(path, formats=["JPEG", "MPO"]) as picture:
            return JpegImagePlugin.get_sampling(picture) not in (0, -1)
    except OSError:
        return True
