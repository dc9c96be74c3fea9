"""Lists of pictures' names in files: those that `--files-from` reads, and those that `--failed` writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from srgan_cli.errors import SettingsError, shown
from srgan_cli.files import check_publishable, publish_bytes, reason
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.stores.paths import is_url, path_of

_OTHER_SUFFIXES = (".cbz", ".zip", ".pdf")
_MAX_CHECKED_BYTES = 16 << 20


def names_in(file: Path) -> tuple[Path, ...]:
    """The inputs named in a list (`-`: stdin). Raises `SettingsError` if it cannot be read, or is a picture itself."""
    if file == Path("-"):
        return tuple(path_of(name) for name in _split(sys.stdin.buffer.read()))
    try:
        data = file.read_bytes()
    except OSError as err:
        raise SettingsError(f"--files-from {shown(file)}: {(err.strerror or str(err)).lower()}") from err
    names = _split(data)
    if not _is_list(names) and file.suffix.lower() in (*PICTURE_SUFFIXES, *_OTHER_SUFFIXES):
        raise SettingsError(f"--files-from {shown(file)} is no list of names: give a picture itself as an INPUT")
    return tuple(map(path_of, names))


def check_list(option: str, file: Path) -> None:
    """Raise `SettingsError` if a list cannot be written to `file`, or would replace something else than a list: the
    name of a picture is easily given by mistake. `file` is not changed."""
    try:
        if file.is_file() and file.stat().st_size > 0:
            with file.open("rb") as existing:
                data = existing.read(_MAX_CHECKED_BYTES)
            names = _split(data)
            if len(data) == _MAX_CHECKED_BYTES and len(names) > 1:
                names.pop()  # it may be cut
            if not _is_list(names):
                raise SettingsError(
                    f"{option} {shown(file)} exists already and is no list of pictures; give another name"
                )
        check_publishable(file)
    except OSError as err:
        raise SettingsError(f"{option} {shown(file)} cannot be written: {reason(err)}") from err


def write_list(option: str, file: Path, sources: Iterable[Path]) -> None:
    """One name per line, or separated by NUL if a name holds a line end. Raises `SettingsError` if it cannot be
    written."""
    names = [str(source).encode("utf-8", "surrogateescape") for source in sources]
    separator = b"\0" if any(b"\n" in name or b"\r" in name for name in names) else b"\n"
    try:
        publish_bytes(file, b"".join(name + separator for name in names))
    except OSError as err:
        raise SettingsError(f"{option} {shown(file)} cannot be written: {reason(err)}") from err


def _split(data: bytes) -> list[str]:
    """Separated by NUL if there is one, else by line ends. Bytes that are not UTF-8 are kept."""
    data = data.removeprefix(b"\xef\xbb\xbf")  # Windows editors start a text file with it
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [name.decode("utf-8", "surrogateescape") for name in names if name.strip()]


def _is_list(names: list[str]) -> bool:
    return all(_may_be_input(name) for name in names)


def _may_be_input(name: str) -> bool:
    try:
        return (
            Path(name).suffix.lower() in (*PICTURE_SUFFIXES, *_OTHER_SUFFIXES) or is_url(name) or os.path.lexists(name)
        )
    except ValueError:
        return False
