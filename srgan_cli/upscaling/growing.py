"""A result that grows page by page beside its target: published when complete, and resumed after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from srgan_cli import stored
from srgan_cli.errors import PictureError, UnwritablePictureError, shown
from srgan_cli.files import is_special, lock, open_own, publish_file, publish_text, reason, sync
from srgan_cli.upscaling.journal import EVERY_SECONDS
from srgan_cli.upscaling.places import JOURNAL, beside

PAGES = ".srgan-pages"  # extension of the file beside a document in progress
_MAX_BYTES = 1 << 16
_COPIED_BYTES = 1 << 20


class Growing:
    """`file` is open for reading and writing; `pages` of the document are complete in it, and `state` is the
    binder's."""

    def __init__(self, file: BinaryIO, path: Path | None, journal: Path | None, key: str) -> None:
        self.file = file
        self.pages = 0
        self.state: dict[str, Any] = {}
        self.is_published = False
        self._path, self._journal, self._key = path, journal, key
        self._saved = time.monotonic()
        self._kept: tuple[int, int, dict[str, Any]] | None = None

    def restore(self) -> None:
        """Continue with what an interrupted run has left of the same document, if anything."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            assert self._journal is not None
            entry = stored.json_of(stored.read_bytes(self._journal, _MAX_BYTES))
            size = stored.whole(entry["bytes"])
            if entry["key"] == self._key and isinstance(entry["state"], dict) and self._size() >= size:
                self.pages, self.state = stored.whole(entry["pages"]), entry["state"]
                self.file.truncate(size)
                return
        self.file.truncate(0)

    def _size(self) -> int:
        return self.file.seek(0, 2)

    def whole(self, pages: int, state: dict[str, Any]) -> None:
        """That many pages are complete; every ten seconds they are synced, and the journal is updated."""
        if pages == 0:
            return
        self._kept = (pages, self._size(), dict(state))
        if time.monotonic() - self._saved >= EVERY_SECONDS:
            self.save()

    def save(self) -> None:
        if self._journal is None or self._kept is None:
            return
        pages, size, state = self._kept
        sync(self.file)
        entry = {"key": self._key, "pages": pages, "bytes": size, "state": state}
        publish_text(self._journal, json.dumps(entry), own=True)
        self._saved = time.monotonic()

    def publish(self, target: Path | BinaryIO, *, overwrite: bool, modified_ns: int | None) -> None:
        """Publish the file, or copy it to a target that is not a file. Raises `UnwritablePictureError`."""
        try:
            self.file.flush()
            if self._path is not None:
                assert isinstance(target, Path)
                sync(self.file)
                publish_file(self._path, target, overwrite=overwrite, modified_ns=modified_ns)
            else:
                self._pass_on(target)
        except OSError as err:
            name = shown(target) if isinstance(target, Path) else "the output"
            if isinstance(err, FileExistsError):
                raise UnwritablePictureError(f"{name} has appeared since the run began; it is left alone") from err
            raise UnwritablePictureError(f"{name} cannot be written: {reason(err)}") from err
        self.is_published = True

    def _pass_on(self, target: Path | BinaryIO) -> None:
        self.file.seek(0)
        with target.open("wb") if isinstance(target, Path) else contextlib.nullcontext(target) as stream:
            shutil.copyfileobj(self.file, stream, _COPIED_BYTES)
            stream.flush()

    def close(self, *, keep: bool) -> None:
        if keep:
            with contextlib.suppress(OSError):
                self.save()
        self.file.close()
        if not keep:
            for path in (self._path, self._journal):
                if path is not None:
                    with contextlib.suppress(OSError):
                        path.unlink()


@contextlib.contextmanager
def growing(target: Path | BinaryIO, key: str, *, resume: bool) -> Iterator[Growing]:
    """A file that becomes `target` by its `publish`. If it was not published, it is removed at the end of the block.

    With `resume`, it starts with what an earlier run with the same `key` had finished, and an interrupted run (not one
    whose picture failed) leaves its file. Raises `UnwritablePictureError`, also if another process is writing it.
    """
    if not isinstance(target, Path) or is_special(target):
        with tempfile.TemporaryFile() as file:
            yield Growing(file, None, None, key)
        return
    path = beside(target, PAGES)
    try:
        held = lock(path.with_name(f"{path.name}.lock"))
        if held is None:
            raise UnwritablePictureError(f"another srgan is making the same result: it holds {shown(path)}")
        with held:
            yield from _grown(path, beside(target, JOURNAL), key, resume=resume)
    except OSError as err:
        raise UnwritablePictureError(f"{shown(target)} cannot be written: {reason(err)}") from err


def _grown(path: Path, journal: Path, key: str, *, resume: bool) -> Iterator[Growing]:
    made = Growing(os.fdopen(open_own(path, os.O_RDWR, keep=False), "r+b"), path, journal, key)
    keep = False
    try:
        if resume:
            made.restore()
        else:
            made.file.truncate(0)
            with contextlib.suppress(OSError):
                journal.unlink()
        yield made
    except BaseException as err:
        keep = resume and not isinstance(err, (PictureError, OSError))
        raise
    finally:
        made.close(keep=keep and not made.is_published)
