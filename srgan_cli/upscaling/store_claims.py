"""Which process makes which picture, among processes that share a folder of an object store: leases as in `claims`, as
objects.

For stores with conditional uploads (S3 since 2024, and compatible ones): a claim is an object that is created only if
there is none. It contains its process's token, under whose name that process uploads a heartbeat every `RENEW_SECONDS`.
A claim is taken over, by an object of the next generation, if its heartbeat is missing or has not changed for
`LEASE_SECONDS` by the waiting process's clock, or if its process is known to have ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import threading
import time
from dataclasses import dataclass

from srgan_cli import stored
from srgan_cli.stores import store
from srgan_cli.stores.failures import StoreError
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling import claims

_GENERATIONS = 100


@dataclass(frozen=True)
class _Beat:
    """The contents of a process's heartbeat, different each time."""

    content: bytes
    machine: str
    process: int
    started: str


class StoreClaims:
    """This run's claims in one folder of a store, usable from any thread. Raises `StoreError`, also if the store does
    not support conditional uploads."""

    def __init__(self, folder: StorePath) -> None:
        self.token = secrets.token_hex(8)
        self._folder = folder
        self._own = _beat_of(folder, self.token)
        self._beats = 0
        self._held: dict[str, StorePath] = {}
        self._watched: dict[StorePath, tuple[bytes, float]] = {}  # other processes' heartbeats: as seen, and since when
        self._lock = threading.Lock()
        if not store.create(self._own, self._says()):
            raise AssertionError("a token of 64 random bits is nobody else's")

    def take(self, name: str) -> bool:
        """Claim a name; False if another process holds it. If the store keeps failing, the name is not protected:
        uploading the result still fails if another process has made it."""
        with self._lock:
            if name in self._held:
                return False
            for generation in range(1, _GENERATIONS):
                path = self._path(name, generation)
                try:
                    if store.create(path, self.token.encode()):
                        self._held[name] = path
                        return True
                    if not self._is_over(path):
                        return False
                except StoreError:
                    self._held[name] = path
                    return True
            return False

    def holds(self, name: str) -> bool:
        with self._lock:
            path = self._held.get(name)
        return path is not None and not self._is_there(_following(path))

    def is_taken_over(self, name: str) -> bool:
        """Whether a claim of this process has been taken over."""
        with self._lock:
            path = self._held.get(name)
        return path is not None and self._is_there(_following(path))

    def release(self, name: str) -> None:
        """Release a claim after its work has been recorded, or has not been done."""
        with self._lock:
            path = self._held.pop(name, None)
        if path is not None:
            for generation in range(_generation(path), 0, -1):
                _remove(self._path(name, generation))

    def sweep(self) -> None:
        """Remove what ended processes have left: those of this machine, or others that have not changed for long."""
        with contextlib.suppress(StoreError, FileNotFoundError):
            there = store.listing(self._folder, recursive=False).objects
            found = {path: stat.modified_ns or 0 for path, stat in there if claims.is_own(path)}
            oldest = found.get(self._own, 0) - int(claims.ABANDONED_SECONDS * 1e9)
            beats = {path for path in found if not _is_claim(path)}
            gone = {path for path in beats if found[path] < oldest or self._is_dead(path)}
            for path in found.keys() - beats:
                beat = _beat_of(self._folder, _token_in(path))
                if beat in gone or (beat not in beats and found[path] < oldest):
                    _remove(path)
            for path in gone:
                _remove(path)

    def renew(self) -> None:
        """Must be called every `RENEW_SECONDS`."""
        self._beats += 1
        with contextlib.suppress(StoreError, FileNotFoundError):
            store.write(self._own, self._says())

    def close(self) -> None:
        """Release all claims."""
        for name in tuple(self._held):
            self.release(name)
        _remove(self._own)

    def _says(self) -> bytes:
        machine, process, started = claims.this_process()
        says = {"machine": machine, "process": process, "started": started, "beats": self._beats}
        return json.dumps(says).encode()

    def _path(self, name: str, generation: int) -> StorePath:
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        return self._folder / f"{claims.PREFIX}{digest}.{generation}"

    def _is_over(self, path: StorePath) -> bool:
        """Whether another process's claim has been released or abandoned."""
        token = _token_in(path)
        if not token:  # removed by now: try again soon, from the first generation on
            return False
        place = _beat_of(self._folder, token)
        beat = _read(place)
        if beat is None:  # its process has ended, unless it has just released the claim
            return self._is_there(path)
        if claims.is_dead_here(beat.machine, beat.process, beat.started):
            return True
        seen, since = self._watched.get(place, (b"", 0.0))
        if seen != beat.content:
            self._watched[place] = beat.content, time.monotonic()
            return False
        return time.monotonic() - since > claims.LEASE_SECONDS

    def _is_dead(self, place: StorePath) -> bool:
        beat = None if place == self._own else _read(place)
        return beat is not None and claims.is_dead_here(beat.machine, beat.process, beat.started)

    @staticmethod
    def _is_there(path: StorePath) -> bool:
        try:
            return store.stat(path) is not None
        except StoreError:
            return False


def _beat_of(folder: StorePath, token: str) -> StorePath:
    return folder / f"{claims.PREFIX}{token}"


def _is_claim(path: StorePath) -> bool:
    """Whether a name ends in a generation."""
    return path.name.count(".") > claims.PREFIX.count(".")


def _generation(path: StorePath) -> int:
    return int(path.suffix[1:])


def _following(path: StorePath) -> StorePath:
    """The object of a claim's next generation."""
    return path.with_name(f"{path.stem}.{_generation(path) + 1}")


def _token_in(path: StorePath) -> str:
    """The token of a claim's process; empty if the claim has been removed or is invalid."""
    with contextlib.suppress(StoreError, FileNotFoundError, ValueError):
        token = store.read(path).decode("ascii")
        return token if len(token) == 16 and token.isalnum() else "0" * 16
    return ""


def _read(place: StorePath) -> _Beat | None:
    """A heartbeat's current contents; None if there is none."""
    try:
        content = store.read(place)
    except FileNotFoundError:
        return None
    try:
        says = stored.json_of(content)
        return _Beat(content, stored.text(says["machine"]), stored.whole(says["process"]), stored.text(says["started"]))
    except (ValueError, KeyError, TypeError):  # not srgan's
        return _Beat(content, "", 0, "")


def _remove(path: StorePath) -> None:
    with contextlib.suppress(StoreError):
        store.remove(path)
