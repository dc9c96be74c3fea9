"""Operations on stores: existence, listing, reading, writing. Each is retried if the error may be temporary.

All of them raise `StoreError`, and `FileNotFoundError` or `FileExistsError` where appropriate. The first use of a
protocol raises `SettingsError` if its library is not installed. fsspec is imported with the first URL.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from srgan_cli.errors import SettingsError, SrganError
from srgan_cli.extras import how_to_install
from srgan_cli.stores import reach
from srgan_cli.stores.failures import StoreError, Trouble, trouble_of
from srgan_cli.stores.paths import StorePath, below

_WAITS = (0.5, 1.0, 2.0, 4.0)  # delays before each retry, in seconds
_WEB_SECONDS = 60.0  # seconds without a byte
# An upload to these is atomic. Elsewhere (sftp, ftp, hdfs, smb) a file is uploaded under another name and renamed.
_ATOMIC = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "r2", "oci", "memory"}
_WITH_BUCKETS = _ATOMIC - {"memory"}
_EXCLUSIVE = {"s3", "s3a"}  # an upload can be made conditional on the name being free
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
    "oss": "ossfs", "http": "aiohttp", "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip
_T = TypeVar("_T")


@dataclass(frozen=True)
class Stat:
    """One object. `version` changes with its content; `size` in bytes is None if the server does not report it."""

    size: int | None
    version: str
    modified_ns: int | None = None


@dataclass(frozen=True)
class Below:
    """The contents of a store's folder: objects, in order, and how many folders were not entered."""

    objects: tuple[tuple[StorePath, Stat], ...]
    folders: int = 0


def check(path: StorePath, *, writing: bool = False) -> None:
    """Raise `SettingsError` if nothing can be read from (or written to) that store."""
    _filesystem(path.protocol)
    if not writing:
        return
    if path.is_web:
        raise SettingsError(f"{path}: a web server can only be read from; give -o FOLDER, or a bucket")
    if path.protocol in _WITH_BUCKETS:
        bucket = StorePath(*path.parts[:2])
        try:
            _tried(bucket, lambda fs: fs.info(str(bucket)))
        except FileNotFoundError as err:
            raise SettingsError(f"there is no bucket {bucket}, or it is not visible with these credentials") from err
        except StoreError as err:  # credentials that allow writing need not allow listing
            if err.trouble.concerns_all or err.trouble.passes:
                raise SettingsError(f"{path} cannot be written to: {err.trouble.why}") from err


def stat(path: StorePath) -> Stat | None:
    """The current object of that name; None if there is none."""
    try:
        info = _tried(path, lambda fs: fs.info(str(path)))
    except FileNotFoundError:
        return None
    return None if info.get("type") == "directory" else _stat(info)


def is_folder(path: StorePath) -> bool:
    """Whether there are objects below it. Never true for a web server."""
    if path.is_web:
        return False
    try:
        return bool(_tried(path, lambda fs: fs.info(str(path))).get("type") == "directory")
    except FileNotFoundError:
        return False


def listing(folder: StorePath, *, recursive: bool) -> Below:
    """The objects below a folder, by one request per thousand; empty if there is no such folder."""

    def look(fs: Any) -> tuple[str, dict[str, Any]]:
        root = fs._strip_protocol(str(folder)).rstrip("/")
        if recursive:
            return root, dict(fs.find(str(folder), detail=True))
        return root, {one["name"]: one for one in fs.ls(str(folder), detail=True)}

    try:
        root, found = _tried(folder, look)
    except FileNotFoundError:
        return Below(())
    folders, objects = 0, []
    for name, info in sorted(found.items()):
        relative = name[len(root) :].strip("/") if name.startswith(root) else ""
        if not relative or name.endswith("/"):
            continue
        if info.get("type") == "directory":
            folders += not relative.startswith(".")
        else:
            objects.append((below(folder, relative), _stat(info)))
    return Below(tuple(objects), folders)


def read(path: StorePath, begin: int = 0, end: int | None = None) -> bytes:
    """Bytes [begin, end) of an object. A server without range support may return all of it."""
    data: bytes = _tried(path, lambda fs: fs.cat_file(str(path), start=begin or None, end=end))
    return data


def fetch(path: StorePath, target: Path, going: Callable[[int], None]) -> None:
    """Fetch an object into a local file. `going` is called with the number of bytes received, and may raise."""

    def get(fs: Any) -> None:
        fs.get_file(str(path), str(target), callback=_callback(going))

    try:
        _tried(path, get)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def put(source: Path, path: StorePath, going: Callable[[int], None], *, overwrite: bool = True) -> None:
    """Upload a local file as an object, atomically.

    Without `overwrite`: `FileExistsError` if one exists by then. S3 checks this itself; other stores are queried
    before.
    """
    if not overwrite:
        if path.protocol in _EXCLUSIVE and _is_put_again(source, path, going):
            return
        if stat(path) is not None:
            raise FileExistsError(str(path))
    _tried(path, lambda fs: _put(fs, source, path, going))


def _is_put_again(source: Path, path: StorePath, going: Callable[[int], None]) -> bool:
    """False if an S3-compatible store does not support conditional uploads."""
    try:
        _tried(path, lambda fs: fs.put_file(str(source), str(path), mode="create", callback=_callback(going)))
    except FileExistsError:
        # An earlier attempt whose response was lost may have uploaded it.
        if not _is_same(path, source):
            raise
    except StoreError as err:
        if err.trouble.passes or err.trouble.concerns_all:
            raise
        return False
    return True


def is_exclusive(path: StorePath) -> bool:
    """Whether its store can refuse an upload if the name exists, as far as is known without trying."""
    return path.protocol in _EXCLUSIVE


def create(path: StorePath, data: bytes) -> bool:
    """Create a small object if the name is free. Returns False if it is not, unless it holds these very bytes, which an
    attempt whose response was lost has uploaded. Only for stores that are `is_exclusive`."""
    try:
        _tried(path, lambda fs: fs.pipe_file(str(path), data, mode="create"))
    except FileExistsError:
        with contextlib.suppress(FileNotFoundError):
            return read(path) == data
        return False
    return True


def write(path: StorePath, data: bytes) -> None:
    """Replace a small object of srgan's own."""
    _tried(path, lambda fs: fs.pipe_file(str(path), data))


def remove(path: StorePath) -> None:
    with contextlib.suppress(FileNotFoundError):
        _tried(path, lambda fs: fs.rm_file(str(path)))


def _put(fs: Any, source: Path, path: StorePath, going: Callable[[int], None]) -> None:
    if path.protocol in _ATOMIC:
        fs.put_file(str(source), str(path), callback=_callback(going))
        return
    part = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.part")
    with contextlib.suppress(FileExistsError):
        fs.makedirs(str(path.parent), exist_ok=True)
    try:
        fs.put_file(str(source), str(part), callback=_callback(going))
        fs.mv(str(part), str(path))
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(str(part))
        raise


def _is_same(path: StorePath, source: Path) -> bool:
    found = stat(path)
    return found is not None and found.size == source.stat().st_size and read(path) == source.read_bytes()


# --------------------------------------------------------------------------------------------------------------- fsspec


def _tried(path: StorePath, work: Callable[[Any], _T]) -> _T:
    """Call a store's operation, with retries while the error may be temporary."""
    fs = _filesystem(path.protocol)
    reach.check(path)
    for wait in (*_WAITS, None):
        try:
            done = work(fs)
        except (SrganError, StoreError, FileExistsError, KeyboardInterrupt):
            raise
        except Exception as err:
            trouble = trouble_of(err, path.protocol)
            if trouble.why == _MISSING:
                reach.answered(path)
                raise FileNotFoundError(str(path)) from err
            if wait is None or not trouble.passes:
                again = f" ({len(_WAITS) + 1} tries)" if trouble.passes else ""
                trouble = replace(trouble, why=f"{trouble.why}{again}")
                _note_silence(path, trouble)
                raise StoreError(trouble) from err
        else:
            reach.answered(path)
            return done
        time.sleep(wait * random.uniform(0.8, 1.2))
    raise AssertionError("the last try returns or raises")


def _note_silence(path: StorePath, trouble: Trouble) -> None:
    if trouble.is_silent:
        reach.silent(path, trouble)
    else:
        reach.answered(path)


_MISSING = trouble_of(FileNotFoundError(), "").why


@cache
def _filesystem(protocol: str) -> Any:
    try:
        import fsspec
    except ImportError as err:
        raise SettingsError(f"{protocol}:// needs fsspec: {how_to_install('stores')}") from err
    options: dict[str, Any] = {"use_listings_cache": False}  # other clients write, too
    try:
        if protocol in ("http", "https"):
            import aiohttp

            clock = aiohttp.ClientTimeout(total=None, sock_connect=_WEB_SECONDS / 3, sock_read=_WEB_SECONDS)
            options["client_kwargs"] = {"timeout": clock}
        if protocol in _EXCLUSIVE:
            # Retries by it, and by the library below, would multiply with srgan's own and take minutes.
            retries = {"max_attempts": 1, "mode": "standard"}
            options["config_kwargs"] = {"retries": retries, "connect_timeout": 20, "read_timeout": _WEB_SECONDS}
        _refuse_missing_settings(protocol, fsspec.get_filesystem_class(protocol), options)
        found = fsspec.filesystem(protocol, **options)
        found.retries = 1
        return found
    except ImportError as err:
        package = _PACKAGES.get(protocol)
        hint = f": pip install {package}" if package else f" that is missing: {err}"
        raise SettingsError(f"{protocol}:// needs a package for fsspec{hint}") from err
    except ValueError as err:
        raise SettingsError(f"{protocol}:// is not a protocol that fsspec knows ({err})") from err
    except SettingsError:
        raise
    except Exception as err:
        trouble = trouble_of(err, protocol)
        raise SettingsError(f"{protocol}:// cannot be used: {trouble.why}") from err


def _refuse_missing_settings(protocol: str, kind: Any, options: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for a file system that cannot be made without more settings, such as FTP's host. (fsspec
    would report them as missing arguments, and print a traceback.)"""
    from fsspec.config import apply_config

    known = apply_config(kind, dict(options))
    needed = [name for name, one in list(inspect.signature(kind.__init__).parameters.items())[1:]
              if one.default is one.empty and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
              and name not in known]  # fmt: skip
    if needed:
        raise SettingsError(
            f"{protocol}:// needs settings that an address does not have: {', '.join(needed)}; give them to fsspec, as "
            f"in FSSPEC_{protocol.upper()}_{needed[0].upper()}=…"
        )


def _callback(going: Callable[[int], None]) -> Any:
    from fsspec.callbacks import Callback

    class Going(Callback):  # type: ignore[misc] # fsspec has no types
        def call(self, *_args: Any, **_more: Any) -> None:
            going(self.value)

    return Going()


def _stat(info: dict[str, Any]) -> Stat:
    size = info.get("size")
    modified = _time_ns(info)
    mark = next((info[key] for key in ("ETag", "etag", "md5Hash", "Content-MD5", "checksum") if info.get(key)), None)
    if mark is None:
        mark = modified or ""
    return Stat(size, f"{'' if size is None else size}-{str(mark).strip(chr(34))}", modified)


def _time_ns(info: dict[str, Any]) -> int | None:
    for key in ("LastModified", "mtime", "updated", "last_modified", "Last-Modified", "created"):
        value = info.get(key)
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            if isinstance(value, str):
                value = parsedate_to_datetime(value) if "," in value else datetime.fromisoformat(value)
            if isinstance(value, datetime):
                return int(value.timestamp()) * 10**9 + value.microsecond * 1000
            if isinstance(value, (int, float)):
                return round(value * 1e6) * 1000  # more than a float can represent
    return None
