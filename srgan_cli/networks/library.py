"""The user's own models: a folder for each, with its files and a record. Does not import torch.

`NAME/model.json` and `NAME/NAME.safetensors` (or .pth, .onnx, .param and .bin) are in the user's data folder. `adding`
puts a model there completely or not at all.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from srgan_cli.errors import WeightsError, shown
from srgan_cli.files import data_folder, file_sha256, move, reason

RECORD = "model.json"
_FORMAT = 1
_SCALED = re.compile(r"(.+)-x(\d+)")


@dataclass(frozen=True)
class OwnModel:
    """One of the user's models. `kind` is the library that knows the network: srgan, spandrel, onnx or ncnn. `sha256`
    maps each file's name to its hash; the first file is the one that is loaded. `source` is the file or address it came
    from, `added` the date."""

    name: str
    scale: int
    kind: str
    architecture: str
    parameters: int
    licence: str
    source: str
    added: str
    size_bytes: int
    sha256: dict[str, str]
    adversarial: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name)
        for file in self.sha256:
            if Path(file).name != file or file.startswith("."):
                raise WeightsError(f"{file!r} is not a plain file name")
        texts = (self.kind, self.architecture, self.licence, self.source, self.added, self.description)
        if not self.sha256 or not all(isinstance(text, str) for text in (*texts, *self.sha256.values())):
            raise WeightsError("a model's record is incomplete")

    @property
    def folder(self) -> Path:
        return models_folder() / self.name

    @property
    def path(self) -> Path:
        return self.folder / next(iter(self.sha256))

    @property
    def family(self) -> str:
        return family_of(self.name)

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON; `sha256` is that of the file that is loaded."""
        more = {"family": self.family, "sha256": next(iter(self.sha256.values())), "path": str(self.path)}
        return {**asdict(self), **more, "file": self.path.name, "own": True}


def models_folder() -> Path:
    """The folder of the user's own models; it need not exist. Raises `WeightsError` if there is no home directory."""
    try:
        return data_folder() / "models"
    except RuntimeError as err:
        raise WeightsError(str(err)) from err


def check_name(name: str) -> None:
    """Raises `WeightsError` for an invalid model name: it is used for folders, files and results."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name) or name.endswith("."):
        raise WeightsError(
            f"{shown(name[:100])!r} cannot be a model's name: use up to 80 letters, digits, dots, - and _"
        )


def family_of(name: str) -> str:
    """`N-x2` and `N-x4` are of the family `N`; any other name is its own family."""
    match = _SCALED.fullmatch(name)
    return match[1] if match else name


def own_models() -> tuple[OwnModel, ...]:
    """All of the user's models, by name. Folders with an invalid record are not included: see `damaged`."""
    return tuple(model for folder in _folders() if (model := _read(folder)) is not None)


def damaged() -> tuple[Path, ...]:
    """Folders of models whose record is missing or invalid."""
    return tuple(folder for folder in _folders() if _read(folder) is None)


def _folders() -> list[Path]:
    try:
        found = [path for path in models_folder().iterdir() if path.is_dir() and not path.name.startswith(".")]
    except (OSError, WeightsError):
        return []
    return sorted(found)


def _read(folder: Path) -> OwnModel | None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record.pop("format") != _FORMAT or record["name"] != folder.name:
            return None
        known = {field.name for field in fields(OwnModel)}
        model = OwnModel(**{key: value for key, value in record.items() if key in known})
        return model if isinstance(model.scale, int) and model.scale > 1 else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, WeightsError):
        return None


def write_record(folder: Path, model: OwnModel) -> None:
    text = json.dumps({"format": _FORMAT, **asdict(model)}, indent=2, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def members(name: str) -> tuple[OwnModel, ...]:
    """The user's models that `name` stands for, by scale: a single one by its own name, or all scales of a family."""
    known = own_models()
    chosen = [m for m in known if m.name == name] or [m for m in known if m.family == name]
    by_scale = {model.scale: model for model in reversed(chosen)}
    return tuple(by_scale[scale] for scale in sorted(by_scale))


def owner_of(path: Path) -> OwnModel | None:
    """The user's model that this file belongs to."""
    if not (path.parent / RECORD).is_file():  # before anything asks for the models' folder
        return None
    return next((model for model in own_models() if model.path == path), None)


def fault(model: OwnModel) -> str:
    """What is wrong with a model's files; empty if they are unchanged since they were added."""
    for name, sha256 in model.sha256.items():
        try:
            found = file_sha256(model.folder / name)
        except OSError as err:
            return f"{name} cannot be read: {reason(err)}"
        if found != sha256:
            return f"{name} is not the file that was added: its SHA-256 is {found}"
    return ""


def remove(name: str) -> Path:
    """Remove a model of the user's, even a damaged one, and return its folder. Raises `WeightsError` if there is none
    of that name, or it cannot be removed."""
    folder = next((folder for folder in _folders() if folder.name == name), None)
    if folder is None:
        known = ", ".join(folder.name for folder in _folders()) or "none"
        raise WeightsError(f"there is no model of your own called {shown(name)!r}; there are {known}")
    try:
        gone = folder.with_name(f".{name}.removed")
        if gone.exists():  # of a removal that was interrupted
            shutil.rmtree(gone)
        move(folder, gone)  # atomically, whatever happens afterwards
        with contextlib.suppress(FileNotFoundError):  # another process clears it
            shutil.rmtree(gone)
    except OSError as err:
        raise WeightsError(f"{shown(folder)} cannot be removed: {reason(err)}") from err
    return folder
