"""Reading srgan's own files, treated as untrusted input.

A record, a journal, a cache or a log may be truncated, edited, copied from elsewhere or malicious. `json_of` and
`toml_of` raise only `ValueError`, for everything that cannot be used: invalid text, excessive nesting, numbers that are
not finite or do not fit into 64 bits.
"""

from __future__ import annotations

import json
import math
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 256 << 20  # a scan of 200,000 pictures takes 40 MB, a record of a million results 250 MB
_MAX_INTEGER = 2**63 - 1
_MAX_DEPTH = 32


def read_bytes(path: Path, max_bytes: int = MAX_BYTES, *, follow: bool = False, begin: int = 0) -> bytes:
    """A file's bytes, starting at `begin`. Raises `OSError` if it cannot be read, is not a regular file (reading a pipe
    would block), is larger than any of srgan's files, or is a link, unless the user gave its name (`follow`)."""
    # O_NONBLOCK: opening a pipe without a writer would block. It has no effect on regular files.
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags if follow else flags | getattr(os, "O_NOFOLLOW", 0))
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        if found.st_size > max_bytes:
            raise OSError(f"{path} is larger than any file of its kind")
        file.seek(begin)
        return file.read(max_bytes)


def json_of(data: bytes | str) -> Any:
    """The value of JSON in UTF-8. Raises `ValueError`."""
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite, parse_int=_whole)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err


def toml_of(data: bytes | str) -> dict[str, Any]:
    """The table of TOML in UTF-8. Raises `ValueError`."""
    text = data if isinstance(data, str) else data.decode("utf-8")
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err
    _check(found)
    return found


def whole(value: object, min_value: int = 0) -> int:
    """`value` if it is an integer of at least `min_value`. Raises `ValueError` otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and min_value <= value <= _MAX_INTEGER:
        return value
    raise ValueError(f"not a whole number from {min_value}")


def real(value: object) -> float:
    """`value` as a float if it is a finite number. Raises `ValueError` otherwise."""
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_INTEGER:
        return float(value)
    raise ValueError("not a finite number")


def text(value: object) -> str:
    """`value` if it is text. Raises `ValueError` otherwise."""
    if isinstance(value, str):
        return value
    raise ValueError("not text")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else _MAX_INTEGER + 1
    if abs(value) > _MAX_INTEGER:
        raise ValueError("a whole number is out of range")
    return value


def _check(found: object) -> None:
    """Reject what TOML's reader allows: integers of any size, infinity, NaN, and unlimited nesting through dotted
    keys."""
    todo = [(found, 0)]
    while todo:
        value, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if isinstance(value, int) and abs(value) > _MAX_INTEGER:
            raise ValueError("a whole number is out of range")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("a number is out of range")
        inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
        todo += [(item, depth + 1) for item in inside]
