"""The files in the training folders: which look like pictures, and which form pairs.

Only names are read here, and no file is opened, so that problems with the folders are found quickly.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from srgan_cli.dataset.pictures import SUFFIXES
from srgan_cli.dataset.twins import Twins
from srgan_cli.errors import NothingToDoError, SettingsError, shown
from srgan_cli.files import expanded
from srgan_cli.training_data_config import DataSettings
from srgan_cli.wording import counted

RefusalKind: TypeAlias = Literal[
    "unreadable", "too small", "duplicate", "nearly flat", "heavily compressed", "unpaired"
]


@dataclass(frozen=True)
class Refusal:
    """A file that is left out, or a folder that cannot be entered. `reason` follows "FILE: "."""

    path: Path
    reason: str
    kind: RefusalKind = "unreadable"


@dataclass(frozen=True)
class PictureFile:
    """A picture's file that has not been examined yet; `name` is its path within its folder, without the suffix."""

    path: Path
    name: str
    low: Path | None = None


def files_of(settings: DataSettings, scale: int) -> tuple[list[PictureFile], list[PictureFile], list[Refusal]]:
    """The files to learn from, those to validate on, and what in the folders cannot be used.

    Raises `NothingToDoError` if a folder is missing or contains no pictures, or if no picture has a counterpart, and
    `SettingsError` if the folders of a paired set do not match.
    """
    if not settings.high_dirs:
        raise NothingToDoError("no pictures to learn from are given; name a folder of sharp ones with --hr-dir")
    refused: list[Refusal] = []
    learned = _files(settings.high_dirs, settings.low_dirs, scale, refused)
    judged = _files(*_val_folders(settings), scale, refused)
    for files, what_for in ((learned, "to learn from"), (judged, "to validate on")):
        if not files and (what_for == "to learn from" or settings.val_dir):
            example = next(one for one in refused if one.kind == "unpaired")
            raise NothingToDoError(f"no pairs {what_for}: {shown(example.path)}: {example.reason}")
    return learned, judged, refused


def files_under(folders: Sequence[str]) -> tuple[list[PictureFile], list[Refusal]]:
    """The pictures in folders without counterparts, and what in them cannot be used. Raises `NothingToDoError`."""
    refused: list[Refusal] = []
    return _files(folders, (), 1, refused), refused


def _val_folders(settings: DataSettings) -> tuple[Sequence[str], Sequence[str]]:
    return ([settings.val_dir] if settings.val_dir else []), ([settings.val_low_dir] if settings.val_low_dir else [])


def _files(highs: Sequence[str], lows: Sequence[str], scale: int, refused: list[Refusal]) -> list[PictureFile]:
    """The pictures under `highs`, each with its twin under `lows` if given."""
    if lows and len(lows) not in (1, len(highs)):
        raise SettingsError(
            f"{counted(len(highs), 'folder')} of large pictures and {len(lows)} of small ones: give one folder of "
            "small pictures for each of the large ones, in the same order, or one for all"
        )
    for high, low in zip(highs, [*lows] * (len(highs) // len(lows)) if lows else (), strict=False):
        if is_same_folder(folder_of(high), folder_of(low)):
            raise SettingsError(
                f"{shown(high)} is given both for the large pictures and for the small ones; give another folder for "
                "the small ones, or none: then they are made from the large ones"
            )
    seen: set[tuple[int, int]] = set()
    found = [_walk(folder_of(name), seen, refused) for name in highs]
    if not lows:
        return [file for files in found for file in files]
    twins = [_walk(folder_of(name), set(), refused) for name in lows]
    if len(lows) == len(highs):
        return [
            file for files, small in zip(found, twins, strict=True) for file in _paired(files, small, scale, refused)
        ]
    return _paired([file for files in found for file in files], twins[0], scale, refused)


def folder_of(name: str) -> Path:
    return expanded(name)  # in a TOML file there is no shell to expand it


def is_same_folder(one: Path, other: Path) -> bool:
    """Also if they are spelled differently; False if one of them does not exist."""
    try:
        return one.is_dir() and one.samefile(other)
    except OSError:
        return False


def _walk(root: Path, seen: set[tuple[int, int]], refused: list[Refusal]) -> list[PictureFile]:
    """Pictures under a folder, sorted, without hidden ones.

    Links are followed, since data sets often consist of them. `seen` holds the visited folders, so that circular links
    end and a folder inside another counts once. Raises `NothingToDoError` if nothing in it has a picture's name, so
    that a misspelt folder is noticed.
    """
    if not root.is_dir():
        file = f"{shown(root)} is not a folder; give the folder that it is in"
        raise NothingToDoError(file if root.exists() else f"there is no folder {shown(root)}")
    if not _is_new(root, seen):
        return []
    found: list[PictureFile] = []
    odd: list[Refusal] = []
    skipped = 0

    def note(err: OSError) -> None:
        odd.append(Refusal(Path(err.filename or root), f"cannot be listed: {(err.strerror or '').lower()}"))

    for folder, folders, files in os.walk(root, onerror=note, followlinks=True):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and _is_new(here / name, seen))
        for path in (here / name for name in sorted(files)):
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                skipped += 1
            elif (reason := _no_file(path)) is not None:
                odd.append(Refusal(path, reason))
            else:
                found.append(PictureFile(path, path.relative_to(root).with_suffix("").as_posix()))
    if not found:
        raise NothingToDoError(_no_pictures(root, odd, skipped))
    refused += odd
    return found


def _no_pictures(root: Path, odd: Sequence[Refusal], skipped: int) -> str:
    what = f"there are no pictures in {shown(root)}"
    if odd:
        return f"{what}: {shown(odd[0].path)}: {odd[0].reason}"
    return f"{what}; the files there have other extensions than ({' '.join(sorted(SUFFIXES))})" if skipped else what


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        found = folder.stat()
    except OSError:
        return True  # os.walk reports it
    identity = (found.st_dev, found.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _no_file(path: Path) -> str | None:
    """Why it cannot be read, determined before opening: reading a pipe would block for ever."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link to something that does not exist"
    except OSError as err:
        return f"cannot be opened: {(err.strerror or '').lower()}"
    return None if stat.S_ISREG(mode) else "not a file but a device or a pipe"


# -------------------------------------------------------------------------------------------------------------- pairing


def _paired(
    files: Iterable[PictureFile], small: Iterable[PictureFile], scale: int, refused: list[Refusal]
) -> list[PictureFile]:
    """Pair files with the same name within their folders, apart from the suffix. `0001x4` is paired with `0001`, as in
    DIV2K."""
    lows = [(twin.name, twin.path) for twin in small]
    twins = Twins(lows, scale)
    result, used = [], set()
    for file in files:
        chosen = twins.of(file.name)
        used.update(chosen)
        if len(chosen) == 1:
            result.append(PictureFile(file.path, file.name, chosen[0]))
        else:
            many = f"{len(chosen)} small pictures match its name; keep only one"
            refused.append(Refusal(file.path, many if chosen else "no small picture has its name", "unpaired"))
    rest = (path for _, path in lows if path not in used)
    refused += [Refusal(path, "no large picture has its name", "unpaired") for path in rest]
    return result
