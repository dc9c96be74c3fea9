"""URLs as paths, so that names are made, compared and displayed in the same way for files and stores."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from srgan_cli.errors import SettingsError

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
_WEB = ("http", "https")
# Parts that a path would drop or interpret (`a//b`, `.`, `..`) are marked with this character, which no URL contains.
_KEPT = "\x1f"
_Self = TypeVar("_Self", bound="StorePath")

if TYPE_CHECKING:
    _Here = Path
else:
    _Here = type(Path())  # before Python 3.12, only the system's own path type can be subclassed


class StorePath(_Here):
    """`s3://bucket/folder/name.jpg`: a path whose first part is the protocol, `s3:`. Its text is the URL.

    Names, parents and joining work as for any path; nothing of it is on this machine.
    """

    __slots__ = ()

    def __str__(self) -> str:
        protocol, *rest = self.parts or ("",)
        if not protocol.endswith(":"):
            return super().__str__()
        return f"{protocol}//{'/'.join(part.removeprefix(_KEPT) for part in rest)}"

    def __fspath__(self) -> str:
        return str(self)

    def is_absolute(self) -> bool:
        return True

    def absolute(self: _Self) -> _Self:
        return self

    def resolve(self: _Self, strict: bool = False) -> _Self:
        return self

    @property
    def protocol(self) -> str:
        return self.parts[0][:-1]

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, which is read-only and cannot be listed."""
        return self.protocol in _WEB

    @property
    def plain(self) -> Path:
        """A file name for it on this machine; for a web address, without its query."""
        name = unquote(Path(urlsplit(str(self)).path).name) if self.is_web else self.name
        return Path(name.removeprefix(_KEPT).replace("/", "_").replace("\0", "_") or "picture")


def is_url(text: str) -> bool:
    return _URL.fullmatch(text) is not None


def path_of(text: str) -> Path:
    """What the user gave: a path on this machine, also as `file://`, or a `StorePath`. An existing local file takes
    precedence.

    Raises `SettingsError` if it is neither: `https://` alone, `file://[`.
    """
    match = _URL.fullmatch(text)
    if match is None or os.path.lexists(text):
        return Path(text)
    protocol, rest = match[1].lower(), match[2]
    if protocol == "file":
        try:
            return Path(url2pathname(unquote(urlsplit(text).path)))
        except ValueError as err:
            raise SettingsError(f"{text} is not an address: {err}") from err
    if protocol != "memory" and not rest.strip("/"):
        raise SettingsError(f"{text} is not a complete address: the name of a bucket or a server is missing")
    return StorePath(f"{protocol}:", *(_kept(part) for part in rest.strip("/").split("/") if rest.strip("/")))


def below(root: StorePath, relative: str) -> StorePath:
    """The object of that name inside a folder."""
    return StorePath(root, *(_kept(part) for part in relative.strip("/").split("/")))


def relative_to(path: Path, root: Path) -> Path:
    """As `Path.relative_to`, as a path on this machine. Parts that would lead out of the folder are made harmless."""
    parts = path.relative_to(root).parts
    return Path(*(part.replace(_KEPT, "_") for part in parts)) if isinstance(path, StorePath) else Path(*parts)


def _kept(part: str) -> str:
    return f"{_KEPT}{part}" if part in ("", ".", "..") else part
