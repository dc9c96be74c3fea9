"""Stores that do not respond: after failures for several objects in a row, no requests are sent for a while, since each
takes seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace

from srgan_cli.stores.failures import StoreError, Trouble
from srgan_cli.stores.paths import StorePath

_OBJECTS = 3  # different objects in a row, each tried several times
_SECONDS = 60.0  # time until the next request
_WITH_HOSTS = ("http", "https", "ftp", "sftp", "ssh", "smb", "webdav", "hdfs", "webhdfs")


@dataclass
class _Host:
    silent: set[StorePath] = field(default_factory=set)  # the objects in a row for which it did not respond
    trouble: Trouble | None = None  # the reason, once it has been given up
    until: float = 0.0


_hosts: dict[str, _Host] = {}
_lock = threading.Lock()


def check(path: StorePath) -> None:
    """Raise `StoreError` (`is_given_up`) while no requests are sent to the path's store."""
    with _lock:
        host = _hosts.get(host_of(path))
        if host is not None and host.trouble is not None and time.monotonic() < host.until:
            raise StoreError(host.trouble)


def answered(path: StorePath) -> None:
    with _lock:
        _hosts.pop(host_of(path), None)


def silent(path: StorePath, trouble: Trouble) -> None:
    """Record that an object's store did not respond, even after retries."""
    name = host_of(path)
    with _lock:
        host = _hosts.setdefault(name, _Host())
        host.silent.add(path)
        # Not again for the objects that were under way: their number would make it another sentence.
        if len(host.silent) >= _OBJECTS and (host.trouble is None or time.monotonic() >= host.until):
            why = (
                f"{trouble.why}, for {_OBJECTS} objects of {name} in a row; no more requests are sent to it: "
                "all pictures that need it count as failed, and --resume, or the list of --failed, continues with them"
            )
            host.trouble = replace(trouble, why=why, is_given_up=True)
            host.until = time.monotonic() + _SECONDS


def forget() -> None:
    """Send requests to all stores again."""
    with _lock:
        _hosts.clear()


def host_of(path: StorePath) -> str:
    """The name of what does not respond: a server, or the service behind a protocol."""
    server = path.parts[1] if path.protocol in _WITH_HOSTS and len(path.parts) > 1 else ""
    return f"{path.protocol}://{server}"
