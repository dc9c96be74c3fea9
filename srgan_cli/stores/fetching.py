"""Objects as temporary local files, and uploading files as objects."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from srgan_cli.errors import UnreadablePictureError, UnwritablePictureError
from srgan_cli.files import file_sha256
from srgan_cli.stores import scratch, store
from srgan_cli.stores.failures import StoreError
from srgan_cli.stores.paths import StorePath
from srgan_cli.stores.store import Stat
from srgan_cli.wording import size

Check = Callable[[], None]  # raises to stop the transfer


def _always() -> None: ...


@dataclass(frozen=True)
class Fetched:
    """A local copy of an object, to be closed. `digest` is the SHA-256 of its bytes, in hexadecimal."""

    path: Path
    digest: str
    modified_ns: int | None

    def close(self) -> None:
        shutil.rmtree(self.path.parent, ignore_errors=True)


@contextlib.contextmanager
def reading(path: StorePath) -> Iterator[None]:
    """Turns a store's error inside the block into a sentence about the picture."""
    try:
        yield
    except FileNotFoundError as err:
        raise UnreadablePictureError(f"{path} cannot be opened: there is no such object") from err
    except StoreError as err:
        raise UnreadablePictureError(f"{path} cannot be read: {err.trouble.why}") from err


@contextlib.contextmanager
def writing(path: StorePath) -> Iterator[None]:
    """What goes wrong with a store in the block, as a sentence about the result there."""
    try:
        yield
    except FileExistsError as err:
        raise UnwritablePictureError(f"{path} has appeared since the run began; it is left alone") from err
    except FileNotFoundError as err:
        raise UnwritablePictureError(f"{path} cannot be written: its bucket or folder does not exist") from err
    except StoreError as err:
        raise UnwritablePictureError(f"{path} cannot be written: {err.trouble.why}") from err


def fetch(path: StorePath, version: str = "", check: Check = _always) -> Fetched:
    """Fetch an object into a local file. `version`: the object's version when the run was planned, if known.

    Raises `UnreadablePictureError`: missing, changed meanwhile, not enough space, a persistent connection failure.
    """
    with reading(path):
        found = store.stat(path)
        if found is None:
            raise FileNotFoundError(str(path))
        if version not in ("", found.version):
            raise UnreadablePictureError("it has changed since the run began")
        folder = scratch.for_inputs() / secrets.token_hex(8)
        folder.mkdir()
        try:
            file = folder / path.plain.name
            store.fetch(path, file, _bounded(path, found, folder, check))
            digest = file_sha256(file)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return Fetched(file, digest, found.modified_ns)


@contextlib.contextmanager
def on_this_machine(path: Path) -> Iterator[Path]:
    """A local file with the bytes of any path: the file itself, or a temporary copy that exists during the block."""
    if not isinstance(path, StorePath):
        yield path
        return
    got = fetch(path)
    try:
        yield got.path
    finally:
        got.close()


def publish(source: Path, path: StorePath, *, overwrite: bool, check: Check = _always) -> None:
    """Upload a finished file as an object. Raises `UnwritablePictureError`."""
    with writing(path):
        store.put(source, path, lambda _count: check(), overwrite=overwrite)


def _bounded(path: StorePath, found: Stat, folder: Path, check: Check) -> Callable[[int], None]:
    """Limits a fetch to the announced size, or to half of the free space if the server does not announce one."""
    free = shutil.disk_usage(folder).free
    if found.size is not None and found.size > free:
        raise UnreadablePictureError(
            f"there is no room for {path}: it has {size(found.size)}, and {folder.parent} has "
            f"{size(free)} free; set TMPDIR to a folder on another disk"
        )

    def going(count: int) -> None:
        check()
        if found.size is None and count > free // 2:
            raise UnreadablePictureError(f"{path} is too large: {size(count)} have arrived, half of the free space")

    return going
