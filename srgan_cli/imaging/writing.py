"""Writing a picture so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from srgan_cli.config import WriteOptions
from srgan_cli.errors import InterruptedRunError, UnwritablePictureError, shown
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.image import Header, Pixels
from srgan_cli.imaging.metadata import update as metadata_of
from srgan_cli.imaging.output import Output


def check_place(target: Path, needed: int) -> None:
    """Refuse, before any work, a file of `needed` bytes that could not be written: `UnwritablePictureError`."""
    try:
        _refuse_place(target, needed)
    except OSError as err:  # a name that is too long, a folder that went away
        raise _unwritable(shown(target), err) from err


def _refuse_place(target: Path, needed: int) -> None:
    folder = target.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UnwritablePictureError(f"{shown(folder)} is not a folder, so {shown(target)} cannot be written")
    if target.is_dir():
        raise UnwritablePictureError(f"{shown(target)} is a folder; give the name of a file")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UnwritablePictureError(f"you have no permission to write into {shown(folder)}")
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UnwritablePictureError(
            f"the disk is too full for {shown(target)}: up to {needed / 1e6:,.1f} MB are needed in {shown(folder)}, "
            f"{free / 1e6:,.1f} MB are free"
        )


def write_picture(
    target: Path | BinaryIO,
    pixels: Pixels,
    header: Header,
    output: Output,
    options: WriteOptions,
    *,
    modified_ns: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[str, ...]:
    """Encode `pixels` (H, W, C), uint8 or uint16, as `output` says, with the input's metadata (`header`).

    A file appears under its name when it is complete and on disc; until then it is `.NAME.….part` beside it, which
    nothing leaves behind but a killed process. `modified_ns` becomes its time of modification. A stream is written
    to as it comes. `stop` is asked before each block that is written: once it says so, the writing ends with
    `InterruptedRunError` and nothing is left. Returns notes on what could not be kept. Raises
    `UnwritablePictureError`.
    """
    assert pixels.ndim == 3
    assert pixels.dtype in (np.uint8, np.uint16)
    notes = _depth_notes(header, output, options)
    metadata = metadata_of.updated(header.metadata, output.width, output.height, options.strip)
    if metadata.iptc and (header.format, output.format) != ("jpeg", "jpeg"):
        notes += ("IPTC captions and keywords are left out; they are kept from JPEG to JPEG",)
    name = shown(target) if isinstance(target, Path) else "the output"
    try:
        with (
            contextlib.nullcontext(target) if not isinstance(target, Path) else _published(target, modified_ns) as file
        ):
            stoppable = file if stop is None else cast("BinaryIO", _Stoppable(file, stop))
            notes += encode(pixels, stoppable, output, metadata, options)
            file.flush()
    except OSError as err:
        raise _unwritable(name, err) from err
    return notes


def _depth_notes(header: Header, output: Output, options: WriteOptions) -> tuple[str, ...]:
    if header.depth == 16 and output.depth == 8 and options.bit_depth == "keep":
        return (f"{FORMATS[output.format].title} has 8 bits per channel; the picture's 16 are rounded",)
    if output.depth == 16 and output.format == "avif":
        return ("AVIF has at most 12 bits per channel; the picture's 16 are rounded",)
    return ()


def write_text(target: Path, text: str) -> None:
    """A file that is no picture, UTF-8, with the same promise: whole and on disc, or not there."""
    try:
        with _published(target, None) as file:
            file.write(text.encode("utf-8", "replace"))
    except OSError as err:
        raise _unwritable(shown(target), err) from err


class _Stoppable:
    """A file that refuses the next block when it is told to stop."""

    def __init__(self, file: BinaryIO, stop: Callable[[], bool]) -> None:
        self._file, self._stop = file, stop

    def write(self, data: bytes) -> int:
        if self._stop():
            raise InterruptedRunError("interrupted")
        return self._file.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


@contextlib.contextmanager
def _published(target: Path, modified_ns: int | None) -> Iterator[BinaryIO]:
    """A file that becomes `target` when the block ends well, and vanishes when it does not."""
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        # /dev/stdout, a named pipe: to replace it would destroy it. A folder is refused by open().
        with target.open("wb") as device:
            yield device
        return
    part = target.with_name(f".{part_name(target)}.{secrets.token_hex(6)}.part")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(part, flags, 0o666)  # less the umask, as for any new file
    try:
        with os.fdopen(descriptor, "w+b", buffering=1 << 20) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if modified_ns is not None:
            os.utime(part, ns=(modified_ns, modified_ns))
        part.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(target.parent)


def part_name(target: Path) -> str:
    """What a file that belongs to a result begins with, after a dot: a name may have 255 bytes, and these are longer.

    The whole name is in the hash, for series whose names differ only at the end.
    """
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]
    return f"{target.name[:40]}.{digest}"


def stale_parts(folder: Path) -> dict[Path, str]:
    """What killed processes left in a folder: each with the (shortened) name of its result."""
    try:
        matches = {path: re.fullmatch(r"\.(.+)\.[0-9a-f]{12}\.part", path.name) for path in folder.iterdir()}
    except OSError:
        return {}
    return {path: match[1] for path, match in matches.items() if match is not None}


def _sync_folder(folder: Path) -> None:
    """The new name itself must survive a power cut. Not every system lets a folder be opened; then it has to do."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unwritable(name: str, err: OSError) -> UnwritablePictureError:
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        reason = "the disk is full; free some space, or write to another disk"
    elif err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        reason = "you have no permission to write there"
    elif err.errno == errno.ENOENT:
        reason = "its folder does not exist"
    elif err.errno == errno.ENAMETOOLONG:
        reason = "its name is too long for the file system; shorten it with --name"
    elif err.errno == errno.EPIPE:
        reason = "the program that was reading it has ended"
    else:
        reason = (err.strerror or "unknown reason").lower()
    return UnwritablePictureError(f"{name} cannot be written: {reason}")
