"""Memory for a result before it is encoded: an array, or a scratch file if it is large."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from srgan_cli.errors import UnwritablePictureError, shown
from srgan_cli.files import Lock, discard, lock, open_own
from srgan_cli.imaging.image import Depth, Pixels
from srgan_cli.wording import size as in_words


class Canvas:
    """`pixels` is (H, W, C), uint8 or uint16, initially zero. A context manager that leaves nothing on disk.

    `reused` means that it is the scratch file of an interrupted run, with that run's pixels.
    """

    def __init__(self, pixels: Pixels, scratch: Path | None, held: Lock | None = None, reused: bool = False) -> None:
        self.pixels = pixels
        self.scratch = scratch
        self.reused = reused
        self._held = held

    def flush(self) -> None:
        """Write the scratch file's contents to disk."""
        if isinstance(self.pixels, np.memmap):
            self.pixels.flush()

    def close(self, *, keep: bool = False) -> None:
        """Release it. `keep` leaves the scratch file for a run that resumes."""
        # The pages are freed with the last reference; the file can be removed earlier, except on Windows. The name is
        # removed before the lock is released, so that no other process takes over a file that is about to disappear.
        self.pixels = np.empty((0, 0, self.pixels.shape[2]), self.pixels.dtype)
        if self.scratch is not None and not keep:
            discard(self.scratch)
        self.scratch = None
        if self._held is not None:
            self._held.release()

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_canvas(
    height: int,
    width: int,
    channels: int,
    depth: Depth,
    *,
    folder: Path,
    memory_bytes: int,
    name: str | None = None,
    reuse: bool = False,
) -> Canvas:
    """An empty picture of (height, width, channels): in memory up to `memory_bytes`, else in a file in `folder`.

    The file's space is reserved immediately, so that a full disk is an `UnwritablePictureError` here and not a SIGBUS
    when a page cannot be written later. With a `name` (a plain file name), an interrupted run's file is found again: it
    is taken over, or with `reuse` continued. A name that another process is using is an `UnwritablePictureError`.
    """
    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    shape = (height, width, channels)
    size = height * width * channels * dtype.itemsize
    if size <= memory_bytes:
        return Canvas(np.zeros(shape, dtype), None)
    scratch: Path | None = None
    held: Lock | None = None
    descriptor: int | None = None
    try:
        if name is None:
            descriptor, made = tempfile.mkstemp(prefix=".srgan-", suffix=".scratch", dir=folder)
            scratch, reused = Path(made), False
        else:
            held = _lock(folder / name)
            descriptor = open_own(folder / name, os.O_RDWR, keep=False)
            scratch = folder / name
            reused = reuse and os.fstat(descriptor).st_size == size
        if not reused:
            os.ftruncate(descriptor, 0)
            _reserve(descriptor, size, folder)
        pixels = np.memmap(scratch, dtype, "r+", shape=shape)
    except BaseException as err:
        if scratch is not None:
            discard(scratch)
        if held is not None:
            held.release()
        if isinstance(err, OSError):
            raise UnwritablePictureError(_why(err, size, folder)) from err
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return Canvas(pixels, scratch, held, reused)


def _lock(path: Path) -> Lock:
    held = lock(path.with_name(f"{path.name}.lock"))
    if held is None:
        raise UnwritablePictureError(f"another srgan is making the same result: it holds {shown(path)}")
    return held


def _reserve(descriptor: int, size: int, folder: Path) -> None:
    """Reserve `size` bytes, or raise `OSError`."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as err:
            if err.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    # Some systems and file systems cannot reserve space. There, a sparse file is used after checking the free space.
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, size)


def _why(err: OSError, size: int, folder: Path) -> str:
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk is full: {shown(folder)} has no room for {in_words(size)} of scratch space; "
            "free some, or write to another disk"
        )
    return f"no scratch file can be made in {shown(folder)}: {(err.strerror or 'unknown reason').lower()}"
