"""URLs as paths, so that names are made, compared and shown in one way, wherever a picture is."""

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
# Parts that a path would lose or act upon (`a//b`, `.`, `..`) stand behind it. No URL has it.
_KEPT = "\x1f"
_Self = TypeVar("_Self", bound="StorePath")

if TYPE_CHECKING:
    _Here = Path
else:
    _Here = type(Path())  # until Python 3.12 only the system's own kind can be derived from


class StorePath(_Here):
    """`s3://bucket/folder/name.jpg`: a path whose first part is the protocol, `s3:`. Its text is the URL.

    Names, parents and joining are those of any path; nothing of it is on this machine.
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
        """Whether it is a web server's, which can be read from only, and lists nothing."""
        return self.protocol in _WEB

    @property
    def plain(self) -> Path:
        """A name for a file of this machine: of a web address without its query."""
        name = unquote(Path(urlsplit(str(self)).path).name) if self.is_web else self.name
        return Path(name.removeprefix(_KEPT).replace("/", "_").replace("\0", "_") or "picture")


def is_url(text: str) -> bool:
    return _URL.fullmatch(text) is not None


def path_of(text: str) -> Path:
    """What a person named: a path of this machine, also as `file://`, or a `StorePath`. What is there is a file.

    Raises `SettingsError` for what is neither: `https://` alone, `s3::simplecache://…`.
    """
    match = _URL.fullmatch(text)
    if match is None or os.path.lexists(text):
        return Path(text)
    protocol, rest = match[1].lower(), match[2]
    if protocol == "file":
        return Path(url2pathname(unquote(urlsplit(text).path)))
    if protocol != "memory" and not rest.strip("/"):
        raise SettingsError(f"{text} is not a complete address: the name of a bucket or a server is missing")
    return StorePath(f"{protocol}:", *(_kept(part) for part in rest.strip("/").split("/") if rest.strip("/")))


def below(root: StorePath, relative: str) -> StorePath:
    """The object of that name inside a folder."""
    return StorePath(root, *(_kept(part) for part in relative.strip("/").split("/")))


def relative_to(path: Path, root: Path) -> Path:
    """As `Path.relative_to`, for a name on this machine: what would lead out of a folder does not."""
    parts = path.relative_to(root).parts
    return Path(*(part.replace(_KEPT, "_") for part in parts)) if isinstance(path, StorePath) else Path(*parts)


def _kept(part: str) -> str:
    return f"{_KEPT}{part}" if part in ("", ".", "..") else part
