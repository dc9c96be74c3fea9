"""Where a result grows before it is encoded: an array in memory, or one in a scratch file when it is large."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from srgan_cli.errors import UnwritablePictureError
from srgan_cli.imaging.image import Depth, Pixels
from srgan_cli.imaging.sources import shown


class Canvas:
    """`pixels` is (H, W, C), uint8 or uint16, zeros at first. A context manager; nothing is left of it on disc."""

    def __init__(self, pixels: Pixels, scratch: Path | None) -> None:
        self.pixels = pixels
        self.scratch = scratch

    def close(self) -> None:
        # The pages are dropped with the last reference; the file's name need not wait for that, except on Windows.
        self.pixels = np.empty((0, 0, self.pixels.shape[2]), self.pixels.dtype)
        if self.scratch is not None:
            _remove(self.scratch)
            self.scratch = None

    def __enter__(self) -> Canvas:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def open_canvas(height: int, width: int, channels: int, depth: Depth, *, folder: Path, memory_bytes: int) -> Canvas:
    """An empty picture of (height, width, channels), in memory up to `memory_bytes`, else in a file in `folder`.

    The file's space is reserved at once: a disc that is too full is an `UnwritablePictureError` here, and never a
    SIGBUS when a page cannot be written later.
    """
    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    shape = (height, width, channels)
    size = height * width * channels * dtype.itemsize
    if size <= memory_bytes:
        return Canvas(np.zeros(shape, dtype), None)
    scratch: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=".srgan-", suffix=".scratch", dir=folder)
        scratch = Path(name)
        try:
            _reserve(descriptor, size, folder)
        finally:
            os.close(descriptor)
        pixels = np.memmap(scratch, dtype, "r+", shape=shape)
    except BaseException as err:
        if scratch is not None:
            _remove(scratch)
        if isinstance(err, OSError):
            raise UnwritablePictureError(_why(err, size, folder)) from err
        raise
    return Canvas(pixels, scratch)


def _reserve(descriptor: int, size: int, folder: Path) -> None:
    """Blocks for `size` bytes, or `OSError`."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as err:
            if err.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    # Not every system and file system can reserve. A sparse file then has to do, after a look at what is free.
    if shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.ftruncate(descriptor, size)


def _why(err: OSError, size: int, folder: Path) -> str:
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the disk is full: {shown(folder)} has no room for {size / 1e6:,.0f} MB of scratch space; "
            "free some, or write to another disk"
        )
    return f"no scratch file can be made in {shown(folder)}: {(err.strerror or 'unknown reason').lower()}"


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
