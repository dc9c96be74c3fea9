"""Adds a model from a file or an address to the user's own models, after checking it, completely or not at all."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from srgan_cli import files
from srgan_cli.config import AUTO_MODEL
from srgan_cli.errors import SettingsError, WeightsError, shown
from srgan_cli.files import file_sha256
from srgan_cli.networks import library, registry
from srgan_cli.networks.download import Progress, download
from srgan_cli.networks.library import OwnModel

if TYPE_CHECKING:
    from srgan_cli.networks.weights import Model

_STALE_SECONDS = 24 * 3600.0  # of clocks that need not agree
_KINDS = {".onnx": "onnx", ".param": "ncnn"}


@dataclass(frozen=True)
class AddOptions:
    """Settings of one `srgan models add`. `source` is a file, a run folder, or an http(s) address; `sha256` is the
    expected hash.

    `name` None: the file's own name. `licence` None: the file's own statement, if any.
    """

    source: str
    name: str | None = None
    licence: str | None = None
    sha256: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        digits = self.sha256 is None or (len(self.sha256) == 64 and set(self.sha256.lower()) <= set("0123456789abcdef"))
        if not digits:
            raise SettingsError(f"--sha256 expects 64 hexadecimal digits, not {self.sha256!r}")
        if self.licence is not None and not (self.licence.isprintable() and len(self.licence) <= 200):
            raise SettingsError("--licence expects one line of text, such as MIT or CC-BY-4.0")


def add(options: AddOptions, on_progress: Progress | None = None) -> OwnModel:
    """Add a model to the user's folder and return its record.

    `on_progress` is called with the bytes received and the expected total, if known. Raises `WeightsError` if the file
    does not exist, cannot be downloaded, does not match `sha256`, is not a model that enlarges pictures, or its name is
    taken.
    """
    if options.name is not None:
        _check_free(options.name, options.overwrite)
    _clear_stale(library.models_folder())
    with _fetched(options, on_progress) as (path, where):
        if options.sha256 is not None and file_sha256(path) != options.sha256.lower():
            raise WeightsError(f"{where} is not the file asked for: its SHA-256 is {file_sha256(path)}")
        return _put(path, where, options)


@contextmanager
def _fetched(options: AddOptions, on_progress: Progress | None) -> Iterator[tuple[Path, str]]:
    """The model's file, and its origin."""
    scheme, is_address, _ = options.source.partition("://")
    if is_address and scheme.lower() not in ("http", "https"):
        raise WeightsError(f"{shown(options.source)} cannot be downloaded: only http and https addresses can")
    if not is_address:
        path, _ = registry.resolve(Path(options.source))
        yield path, str(path.absolute())
        return
    key = hashlib.sha256(options.source.encode()).hexdigest()[:16]
    folder = library.models_folder() / f".{key}.download"
    with _locked(folder):
        try:
            path = download(options.source, folder, on_progress)
        except WeightsError:
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing was received
            raise
        if path.suffix.lower() == ".param":
            _download_weights(options.source, path, on_progress)
        try:
            yield path, options.source
        finally:  # otherwise it resumes from there next time
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = files.lock(folder.with_suffix(".lock"))
    except OSError as err:
        raise WeightsError(f"{folder.parent} cannot be written: {files.reason(err)}") from err
    if lock is None:
        raise WeightsError("another srgan is downloading this file")
    with lock:
        yield


def _download_weights(url: str, param: Path, on_progress: Progress | None) -> None:
    """The `.bin` of an ncnn model, which is beside the `.param`."""
    parts = urlsplit(url)
    weights = urlunsplit(parts._replace(path=str(PurePosixPath(parts.path).with_suffix(".bin"))))
    folder = param.parent / "weights"
    download(weights, folder, on_progress).replace(param.with_suffix(".bin"))


def _put(path: Path, where: str, options: AddOptions) -> OwnModel:
    from srgan_cli.networks.weights import load_model

    model = load_model(path)
    name = options.name or _name_of(model)
    _check_free(name, options.overwrite)
    kept = _files(path, name)
    record = OwnModel(
        name=name,
        scale=model.scale,
        kind=_KINDS.get(path.suffix.lower(), "spandrel" if model.entry is None else "srgan"),
        architecture=model.architecture,
        parameters=sum(p.numel() for p in model.network.parameters()),
        licence=options.licence or (model.entry.licence if model.entry is not None else ""),
        source=where,
        added=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        size_bytes=sum(file.stat().st_size for file in kept.values()),
        sha256={target: file_sha256(file) for target, file in kept.items()},
        adversarial=model.adversarial,
        description=model.entry.description if model.entry is not None else "",
    )
    _publish(record, kept, options.overwrite)
    return record


def _name_of(model: Model) -> str:
    """The file's own name, with invalid characters replaced."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in model.name)
    return kept.strip("-._")[:80] or "model"


def _files(path: Path, name: str) -> dict[str, Path]:
    """The files to store under their new names, beginning with the one that is loaded."""
    kept = {name + path.suffix.lower(): path}
    if path.suffix.lower() == ".param":
        kept[f"{name}.bin"] = path.with_suffix(".bin")
    return kept


def _check_free(name: str, overwrite: bool) -> None:
    library.check_name(name)
    bundled = {n.lower() for e in registry.entries() for n in (e.name, e.family)} | {AUTO_MODEL}
    if name.lower() in bundled or library.family_of(name).lower() in bundled:
        raise WeightsError(f"{name} is a name of the models that come with srgan; choose another with --name")
    folder = library.models_folder() / name
    taken = [m.name for m in library.own_models() if m.name.lower() == name.lower() and m.name != name]
    if taken or (folder.exists() and not overwrite):
        raise WeightsError(
            f"you have a model called {taken[0] if taken else name} already; choose another --name, or --overwrite"
        )


def _publish(model: OwnModel, kept: Mapping[str, Path], overwrite: bool) -> None:
    target = model.folder
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(target) as part:
            for name, file in kept.items():
                shutil.copyfile(file, part / name)
                if file_sha256(part / name) != model.sha256[name]:
                    raise WeightsError(f"{file} changed while it was copied; try again")
            library.write_record(part, model)
            if overwrite and target.exists():
                library.remove(model.name)
            files.move(part, target)
    except OSError as err:
        raise WeightsError(f"{target} cannot be written: {files.reason(err)}") from err


@contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, removed at the end if it is still there. It is locked, so that other processes know
    that it is in use."""
    part, lock = target, None
    while lock is None:  # unless another process is just looking whether the new name is in use
        part = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
        lock = files.lock(_lock_of(part))
    with lock:
        try:
            part.mkdir()
            yield part
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _lock_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.lock")


def _clear_stale(folder: Path) -> None:
    """Remove what killed processes have left: unfinished models, and removals that were interrupted."""
    parts = {*files.stale_parts(folder), *(lock.with_suffix("") for lock in folder.glob(".*.part.lock"))}
    for part in parts:
        with contextlib.suppress(OSError):
            lock = files.lock(_lock_of(part))
            if lock is None:  # a process is writing to it
                continue
            with lock:
                if lock.excludes or _is_old(part):
                    shutil.rmtree(part, ignore_errors=True)
    for gone in folder.glob(".*.removed"):
        shutil.rmtree(gone, ignore_errors=True)


def _is_old(part: Path) -> bool:
    """Whether nothing has been written into a folder for a long time, where locks do not exist."""
    latest = max((path.stat().st_mtime for path in (part, *part.iterdir())), default=0.0)
    return time.time() - latest > _STALE_SECONDS
