"""The available models, and the metadata of weights files. Does not import torch.

srgan's weights files are safetensors files with a card in their metadata. The bundled ones are in one folder with
`manifest.toml`, which contains their cards and SHA-256. After changing a file there:

    python -m srgan_cli.networks.registry > manifest.new && mv manifest.new weights/manifest.toml
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn, TypeVar

from srgan_cli.config import AUTO_MODEL
from srgan_cli.errors import WeightsError
from srgan_cli.files import expanded, file_sha256
from srgan_cli.networks import library

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMAT = 1
RUN_MODEL = "model.safetensors"  # file name of a training run's result
# Families whose weights were fine-tuned from another family's, so that the two can be interpolated.
_STARTS = {"srgan": "fidelity"}
MODEL_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".param", ".onnx")
# srgan's headers are a few kB and the largest of other programs about 100 kB; a greater length means damage or malice.
_MAX_HEADER_BYTES = 16 << 20


@dataclass(frozen=True)
class Card:
    """A file's description of how it was made. `recipe` holds plain values, `scores` one mapping per test set.

    Raises `WeightsError` for a name that cannot be part of a file name, and text that is not a single line.
    """

    name: str
    family: str
    description: str = ""
    licence: str = ""
    adversarial: bool = False
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Files may be untrusted: the name is used in names of results, and all texts are printed to a terminal.
        for name in (self.name, self.family):
            if not 1 <= len(name) <= 100 or name.startswith(".") or set(name) & set("/\\:"):
                raise WeightsError(f"{name[:100]!r} cannot be a model's name")
        for text in (self.name, self.family, self.description, self.licence):
            if not text.isprintable():
                raise WeightsError(f"{text[:100]!r} holds characters that cannot be printed")


@dataclass(frozen=True, kw_only=True)
class Entry(Card):
    """One of srgan's weights files: its card, and facts about the file. `config` are the settings of its
    architecture."""

    scale: int
    architecture: str
    config: Mapping[str, object]
    parameters: int
    path: Path
    sha256: str

    @property
    def file(self) -> str:
        return self.path.name

    @property
    def has_noise(self) -> bool:
        """Whether it draws its detail from noise, so that a result has variants."""
        return bool(self.config.get("noise"))

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "path": str(self.path), "file": self.file}


class WeightsHeader(NamedTuple):
    """The header of a safetensors file: metadata, and each tensor's dtype and shape."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


class Check(NamedTuple):
    """One line of `verify`. `reason` is empty if everything is in order."""

    entry: Entry
    ok: bool
    reason: str


# ---------------------------------------------------------------------------------------------------------- the folder


def weights_folder() -> Path:
    """The folder of the bundled weights: inside the package if installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / "manifest.toml").is_file():
            return folder
    raise WeightsError("the models that come with srgan are missing; install it again")


def entries() -> tuple[Entry, ...]:
    """Every bundled model, in the manifest's order."""
    folder = weights_folder()
    path = folder / "manifest.toml"
    try:
        return _entries_in(path.read_text(encoding="utf-8"), folder)
    except (OSError, TypeError, KeyError, ValueError, WeightsError) as err:
        raise WeightsError(f"{path} is damaged ({err}); install srgan again") from err


@functools.lru_cache(4)  # it is needed a dozen times per start, and parsing takes milliseconds
def _entries_in(text: str, folder: Path) -> tuple[Entry, ...]:
    return tuple(_entry_of_table(model, folder) for model in tomllib.loads(text).get("model", []))


def _entry_of_table(table: Mapping[str, object], folder: Path) -> Entry:
    values = dict(table)
    file = str(values.pop("file"))
    if Path(file).name != file:
        raise ValueError(f"{file!r} is not a plain file name")
    return Entry(**values, path=folder / file)  # type: ignore[arg-type]  # a table with other keys is a TypeError


def family(name: str) -> tuple[Entry, ...]:
    """The bundled models that `name` stands for: one by its own name, or all scales of a family."""
    known = entries()
    chosen = tuple(e for e in known if e.name == name) or tuple(e for e in known if e.family == name)
    return chosen or _unknown(name, known)


def find(name: str, scale: float | None = None) -> Entry:
    """The bundled model of that name, or the member of a family that suits an enlargement by `scale` best.

    That is the smallest sufficient scale, since downscaling a larger result costs less than enlarging a smaller one and
    loses less; without a `scale`, 4.
    """
    return _enough(family(name), scale)


_Member = TypeVar("_Member", Entry, library.OwnModel)


def _enough(members: Sequence[_Member], scale: float | None) -> _Member:
    by_scale = sorted(members, key=lambda member: member.scale)
    wanted = 4.0 if scale is None else scale
    return next((member for member in by_scale if member.scale >= wanted), by_scale[-1])


def split_detail(source: str) -> tuple[str, float | None]:
    """`srgan@0.6` -> `("srgan", 0.6)`: a bundled model's name and the requested amount of detail, from 0 to 1.

    Any other name is returned unchanged, with None. Raises `WeightsError` for a number out of range.
    """
    name, at, number = source.rpartition("@")
    if not at or name not in {n for e in entries() for n in (e.name, e.family)}:
        return source, None
    try:
        detail = float(number)
    except ValueError:
        return source, None
    if not 0.0 <= detail <= 1.0:
        raise WeightsError(f"the detail of {name} goes from 0 to 1, not {detail:g}")
    return name, detail


def blend_name(name: str, detail: float) -> str:
    """The inverse of `split_detail`: `srgan-x4@0.6`; for 1 the name has no number."""
    return name if detail == 1.0 else f"{name}@{round(detail, 4):g}"


def start_of(entry: Entry) -> Entry | None:
    """The model that `entry` was fine-tuned from and can be interpolated with: the one at detail 0. None if there is
    none."""
    family = _STARTS.get(entry.family)
    config = {**entry.config}
    config.pop("noise", None)  # which it may have learned later
    starts = [e for e in entries() if e.family == family and (e.scale, e.config) == (entry.scale, config)]
    return starts[0] if starts else None


def _unknown(name: str, known: tuple[Entry, ...]) -> NoReturn:
    own = [own.name for own in library.own_models()]
    names = list(dict.fromkeys([e.family for e in known] + [e.name for e in known] + own))
    if name == AUTO_MODEL:
        raise WeightsError(f"auto chooses for each picture of `srgan upscale`; here name one of {', '.join(names)}")
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise WeightsError(
        f"there is no model called {name!r}{hint}; there are {', '.join(names)}, or give a file or a run folder"
    )


def resolve(source: str | Path, scale: float | None = None) -> tuple[Path, Entry | None]:
    """The file for a model's name, a family's name, a weights file or a run folder; and its entry if bundled.

    Bundled names take precedence over the user's own models, and both over a file of the same name in the working
    directory; `./name` means the file.
    """
    text = str(source)
    if isinstance(source, str) and text in {name for e in entries() for name in (e.name, e.family)}:
        entry = find(text, scale)
        return entry.path, entry
    if isinstance(source, str) and (own := library.members(text)):
        return _enough(own, scale).path, None
    path = expanded(source)
    try:
        if path.is_dir():
            inside = path / RUN_MODEL
            if inside.is_file():
                return inside, None
            raise WeightsError(f"{path} is a folder without a {RUN_MODEL}, so it is not the result of a training run")
        if path.is_file():
            return path, None
    except (OSError, ValueError) as err:  # the name is too long, or contains a NUL
        raise WeightsError(f"{text!r} is not a model: {err}") from err
    if path.parent != Path() or path.suffix.lower() in MODEL_SUFFIXES or isinstance(source, Path):
        raise WeightsError(f"there is no file {text}")
    _unknown(text, entries())


def verify() -> tuple[Check, ...]:
    """Whether every bundled file exists and equals, byte for byte, the one in the manifest."""
    return tuple(Check(entry, not reason, reason) for entry in entries() for reason in [_fault(entry)])


def _fault(entry: Entry) -> str:
    try:
        found = file_sha256(entry.path)
    except OSError as err:
        return f"cannot be read: {err.strerror}"
    return "" if found == entry.sha256 else f"is not the file it should be: its SHA-256 is {found}"


# ---------------------------------------------------------------------------------------------------- a file's own word


def read_model_file(path: Path, max_bytes: int | None = None) -> bytes:
    """The whole file, read at once, so that the hashed bytes are the loaded ones. Raises `WeightsError`, also for an
    empty file."""
    try:
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise WeightsError(f"{path} is larger than {max_bytes >> 20} MiB, so it is not a network")
        data = path.read_bytes()
    except OSError as err:
        raise WeightsError(f"{path} cannot be read: {err.strerror}") from err
    if not data:
        raise WeightsError(f"{path} is empty")
    return data


def read_weights_header(path: Path) -> WeightsHeader:
    """The header of a safetensors file: 8 bytes of length, JSON, and then exactly the tensors' bytes.

    Untrusted: lengths are checked against the file's size before anything of that length is read. Raises `WeightsError`
    if the file is missing, truncated, or not a safetensors file.
    """
    try:
        with path.open("rb") as file:
            return parse_header(file, path.stat().st_size, str(path))
    except OSError as err:
        raise WeightsError(f"{path} cannot be read: {err.strerror}") from err


def parse_header(file: BinaryIO, size_bytes: int, name: str) -> WeightsHeader:
    """`read_weights_header` for a file that is already open; `name` is for messages."""
    if size_bytes == 0:
        raise WeightsError(f"{name} is empty")
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size_bytes
    if not 2 <= length <= min(_MAX_HEADER_BYTES, size_bytes - 8):
        raise WeightsError(f"{name} is not a safetensors file, or it is truncated")
    try:
        content = json.loads(file.read(length))
        metadata = content.pop("__metadata__", {})
        if not all(isinstance(item, str) for pair in metadata.items() for item in pair):
            raise ValueError("metadata that is not text")
        tensors = {str(key): (str(t["dtype"]), tuple(int(n) for n in t["shape"])) for key, t in content.items()}
        end_bytes = max((int(t["data_offsets"][1]) for t in content.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError) as err:
        raise WeightsError(f"{name} is not a safetensors file: its header is not valid") from err
    if end_bytes != size_bytes - 8 - length:
        raise WeightsError(f"{name} is damaged: {end_bytes} bytes of numbers should follow its header, not "
                           f"{size_bytes - 8 - length}; copy or download it again")  # fmt: skip
    return WeightsHeader(metadata, tensors)


def metadata_of(
    card: Card, architecture: str, config: Mapping[str, object], scale: int, parameters: int
) -> dict[str, str]:
    """A file's safetensors metadata: text only."""
    return {
        "format": "pt",  # safetensors' convention for files of PyTorch tensors
        "srgan_format": str(FORMAT),
        "architecture": architecture,
        "config": json.dumps(config),
        "scale": str(scale),
        "parameters": str(parameters),
        "name": card.name,
        "family": card.family,
        "description": card.description,
        "licence": card.licence,
        "adversarial": json.dumps(card.adversarial),
        "scores": json.dumps(card.scores),
        "recipe": json.dumps(card.recipe),
    }


def entry_of(header: WeightsHeader, path: Path, sha256: str) -> Entry | None:
    """The entry in a file's metadata; None if the file was not made by srgan."""
    data = header.metadata
    if "srgan_format" not in data:
        return None
    if data["srgan_format"] != str(FORMAT):
        raise WeightsError(f"{path} is of a newer format ({data['srgan_format']!r}) than this srgan knows; upgrade it")
    try:
        config, scores, recipe = (_json_mapping(data[key]) for key in ("config", "scores", "recipe"))
        if not all(isinstance(values, dict) for values in scores.values()):
            raise ValueError("scores that are not mappings")
        return Entry(
            name=data["name"],
            family=data["family"],
            description=data["description"],
            licence=data["licence"],
            adversarial=data["adversarial"] == "true",
            scores=scores,  # type: ignore[arg-type]  # shown to people, never computed with
            recipe=recipe,
            scale=int(data["scale"]),
            architecture=data["architecture"],
            config=config,
            parameters=int(data["parameters"]),
            path=path,
            sha256=sha256,
        )
    except (KeyError, ValueError, RecursionError, WeightsError) as err:
        raise WeightsError(f"{path} is damaged: its metadata is not valid ({err})") from err


def _json_mapping(text: str) -> dict[str, object]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"{text[:40]!r} is not a mapping")
    return value


def describe_file(path: Path) -> Entry | None:
    """A weights file's description of itself; None for another program's file (which has to be loaded to find out)."""
    if path.suffix.lower() != ".safetensors":
        return None
    header = read_weights_header(path)
    return entry_of(header, path, file_sha256(path))


def draws_from_noise(path: Path) -> bool:
    """Whether it is one of srgan's files with a network that draws its detail from noise; False if it cannot be read.
    Reads only its header."""
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        entry = entry_of(read_weights_header(path), path, sha256="")
    except WeightsError:
        return False
    return entry is not None and entry.has_noise


# --------------------------------------------------------------------------------------------------------- the manifest


def manifest(folder: Path) -> str:
    """The text of `manifest.toml` for all weights files in `folder`, sorted by family and scale."""
    found = [entry for path in folder.glob("*.safetensors") if (entry := describe_file(path)) is not None]
    tables = [_table(entry) for entry in sorted(found, key=lambda e: (e.family, e.scale, e.name))]
    head = "# The models that come with srgan. Written from the files, by `python -m srgan_cli.networks.registry`.\n"
    return "\n".join([head, *tables])


def _table(entry: Entry) -> str:
    values = {**entry.as_dict()}
    del values["path"]
    # Long values get their own tables, with a line for each test set and each part of the recipe.
    tables = {name: values.pop(name) for name in ("recipe", "scores")}
    return _lines("[[model]]", values) + "".join(_lines(f"\n[model.{name}]", tables[name]) for name in tables)


def _lines(head: str, values: object) -> str:
    assert isinstance(values, Mapping)
    present = [f"{_key(key)} = {_toml(value)}\n" for key, value in values.items() if value is not None]
    return f"{head}\n{''.join(present)}" if present else ""


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text, ensure_ascii=False)


def _toml(value: object) -> str:
    """A plain value as TOML. TOML writes basic strings, integers and booleans as JSON does."""
    if isinstance(value, Mapping):
        present = {str(key): item for key, item in value.items() if item is not None}  # TOML has no null
        inside = ", ".join(f"{_key(key)} = {_toml(item)}" for key, item in present.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    assert isinstance(value, str | int | float), f"{value!r} cannot be stored in a manifest"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.stdout.write(manifest(weights_folder()))
