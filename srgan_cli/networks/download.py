"""Downloads a file from an http(s) address, resuming interrupted downloads.

Received data is stored in a separate folder, together with the server's identifier of that version of the file (RFC
9110, sections 8.8 and 13.1.5: `ETag`, `If-Range`), so that parts of two versions are never joined.
"""

from __future__ import annotations

import http.client
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from srgan_cli import __version__, stored
from srgan_cli.errors import WeightsError, shown
from srgan_cli.files import move, reason
from srgan_cli.networks.registry import MODEL_SUFFIXES

Progress = Callable[[int, int | None], None]

SUFFIXES = tuple(dict.fromkeys((*MODEL_SUFFIXES, ".onnx", ".param", ".bin")))
_TIMEOUT_S = 30.0
_PAUSES_S = (1.0, 3.0, 10.0)  # delays before retries without progress since the last one
_MAX_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 18
_PART, _VERSION = "part", "version.json"
_MAX_VERSION_BYTES = 1 << 16


class _CutError(Exception):
    """The connection ended early, or could not be made; a retry may help."""


class _Answer(NamedTuple):
    """The server's description of the file. `size_bytes` is the total; `version` is for `If-Range`, if usable."""

    name: str
    size_bytes: int | None
    version: str


def download(url: str, folder: Path, on_progress: Progress | None = None) -> Path:
    """The file at `url`, complete, under its own name in `folder`, which is used for it alone.

    Resumes what an earlier call left there. Raises `WeightsError` if it does not exist, does not have a model's name,
    or is still incomplete after several tries; received data is kept for the next call, unless it is unusable.
    """
    pauses = list(_PAUSES_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            before = _present(folder)
            try:
                return _once(url, folder, on_progress)
            except _CutError as err:
                if _present(folder) > before:
                    pauses = list(_PAUSES_S)
                if not pauses:
                    raise WeightsError(_cut_message(url, folder, err)) from err
                time.sleep(pauses.pop(0))
    except OSError as err:
        raise WeightsError(f"{shown(folder)} cannot be written: {reason(err)}") from err


def _cut_message(url: str, folder: Path, err: _CutError) -> str:
    again = "; the same command resumes from there" if _present(folder) else ""
    return f"{shown(url)} cannot be downloaded: {err}, after {_present(folder):,} bytes{again}"


def _present(folder: Path) -> int:
    part = folder / _PART
    return part.stat().st_size if part.is_file() else 0


def _once(url: str, folder: Path, on_progress: Progress | None) -> Path:
    part, headers = folder / _PART, _headers(folder)
    try:
        answer = _open(url, headers)
    except urllib.error.HTTPError as err:
        err.close()
        if err.code == 416 and "Range" in headers:  # nothing is left to fetch, or it is another file now
            part.unlink()
            raise _CutError("the file has changed") from err
        if err.code in (408, 429) or err.code >= 500:
            raise _CutError(f"the server answered {err.code} {err.reason}") from err
        raise WeightsError(f"{shown(url)} cannot be downloaded: the server answered {err.code} {err.reason}") from err
    except (OSError, http.client.HTTPException) as err:
        raise _CutError(str(getattr(err, "reason", err)) or type(err).__name__) from err
    except ValueError as err:
        raise WeightsError(f"{shown(url)} is not an address: {err}") from err
    with answer as body:
        described = _described(url, body)
        start = _present(folder) if "Range" in headers and body.status == 206 else 0
        _check_room(url, described, folder)
        (folder / _VERSION).write_text(json.dumps(described.version), encoding="utf-8")
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            _receive(url, body, file, start, described, on_progress)
    whole = folder / described.name
    move(part, whole)
    return whole


def _headers(folder: Path) -> dict[str, str]:
    headers = {"User-Agent": f"srgan/{__version__}", "Accept-Encoding": "identity"}
    try:
        version = stored.json_of(stored.read_bytes(folder / _VERSION, _MAX_VERSION_BYTES))
    except (OSError, ValueError):
        return headers
    if isinstance(version, str) and version.isprintable() and version and _present(folder):
        headers |= {"Range": f"bytes={_present(folder)}-", "If-Range": version}
    return headers


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Allows redirects between http(s) addresses, but never from an encrypted to an unencrypted one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old, new) == ("https", "http"):
            raise WeightsError(f"{shown(req.full_url)} cannot be downloaded: it leads to {shown(newurl)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


def _open(url: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, headers=dict(headers))
    return urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT_S)


def _described(url: str, body: Any) -> _Answer:
    headers = body.headers
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise WeightsError(f"{shown(url)} is a web page; give the address of the model's file itself")
    tag = headers.get("ETag", "")
    version = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    size = headers.get("Content-Length")
    if body.status == 206:
        size = headers.get("Content-Range", "").rpartition("/")[2]
    return _Answer(_name(url, body), int(size) if size and size.isascii() and size.isdecimal() else None, version)


def _name(url: str, body: Any) -> str:
    """The file's name, from the server or from the end of the address, which may be a redirect's."""
    said = body.headers.get_filename() or ""
    names = [said, *(unquote(urlsplit(address).path) for address in (url, body.url))]
    for name in (PurePosixPath(name.replace("\\", "/")).name for name in names):
        if PurePosixPath(name).suffix.lower() in SUFFIXES and name.isprintable() and not name.startswith("."):
            return name[-200:]
    raise WeightsError(f"{shown(url)} is not a model; models are files ending in {', '.join(SUFFIXES)}")


def _check_room(url: str, described: _Answer, folder: Path) -> None:
    size_bytes = described.size_bytes or 0
    if size_bytes > _MAX_BYTES:
        raise WeightsError(f"{shown(url)} has {size_bytes:,} bytes, but srgan accepts at most {_MAX_BYTES:,}")
    free_bytes = shutil.disk_usage(folder).free
    if size_bytes - _present(folder) > free_bytes:
        raise WeightsError(f"{shown(url)} has {size_bytes:,} bytes, but {folder} has room for only {free_bytes:,}")


def _receive(
    url: str, body: Any, file: IO[bytes], start: int, described: _Answer, on_progress: Progress | None
) -> None:
    done = start
    while True:
        try:
            chunk = body.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as err:
            raise _CutError("the connection was cut") from err
        if not chunk:
            break
        file.write(chunk)
        done += len(chunk)
        if done > _MAX_BYTES:
            raise WeightsError(f"{shown(url)} has more than {_MAX_BYTES:,} bytes, too many for a model")
        if on_progress is not None:
            on_progress(done, described.size_bytes)
    file.truncate()
    if described.size_bytes is not None and done < described.size_bytes:
        raise _CutError("the connection was cut")
