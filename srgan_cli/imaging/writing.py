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
from srgan_cli.errors import InterruptedRunError, SettingsError, UnwritablePictureError, shown
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.formats import FORMATS, Format, format_of_suffix
from srgan_cli.imaging.image import Depth, Header, Pixels
from srgan_cli.imaging.metadata import update as metadata_of

_BMP_BYTES = 2**32 - 4096  # its size field has 32 bits


def output_format(target: Path | None, header: Header, options: WriteOptions) -> str:
    """The key in `FORMATS` of the result: as asked for, else by the target's suffix, else the input's own or PNG.

    Raises `SettingsError` for a format or a suffix that cannot be written.
    """
    if options.format is not None:
        asked = options.format.lower()
        return _writable(asked if asked in FORMATS else format_of_suffix(asked), f"--format {options.format}")
    if target is not None and target.suffix:
        return _writable(format_of_suffix(target.suffix), shown(target))
    return header.format if FORMATS[header.format].writable else "png"


def _writable(format: str | None, asked: str) -> str:  # noqa: A002
    if format is None or not FORMATS[format].writable:
        known = ", ".join(known.suffixes[0] for known in FORMATS.values() if known.writable)
        raise SettingsError(f"{asked}: srgan cannot write that format; it writes {known}")
    return format


def final_depth(format: str, depth: Depth, options: WriteOptions) -> Depth:  # noqa: A002
    """Bits per sample of the result, for an input of `depth`: as asked for, as far as `format` can hold it."""
    wanted = depth if options.bit_depth == "keep" else options.bit_depth
    return wanted if wanted in FORMATS[format].depths else 8


def check_output(
    format: str,  # noqa: A002
    width: int,
    height: int,
    channels: int,
    depth: Depth,
    options: WriteOptions,
    *,
    target: Path | None,
    scratch_bytes: int = 0,
) -> None:
    """Refuse, before any work, a result that could not be written. `scratch_bytes` are needed beside it meanwhile.

    Raises `SettingsError` for options that do not go together, and `UnwritablePictureError` for the limits of the
    container, alpha that has nowhere to go, a folder that cannot be written to, and a disk without enough space.
    """
    known = FORMATS[format]
    _check_options(known, options)
    _check_limits(format, width, height, channels)
    if channels in (2, 4) and not known.alpha and options.background is None:
        raise UnwritablePictureError(
            f"the picture has transparency and {known.title} has none; give --background COLOUR to lay it on, "
            "or write PNG, WebP, TIFF or AVIF"
        )
    if target is not None:
        raw = width * height * channels * final_depth(format, depth, options) // 8
        check_place(target, needed_bytes(format, raw, options) + scratch_bytes)


def _check_options(known: Format, options: WriteOptions) -> None:
    if options.lossless and not known.lossless:
        raise SettingsError(f"{known.title} cannot be lossless here; use PNG, TIFF or WebP")
    if options.bit_depth not in ("keep", *known.depths):
        raise SettingsError(f"{known.title} has 8 bits per channel; write PNG, TIFF or AVIF for --bit-depth 16")
    # Without --format the pictures of one folder may be PNG and JPEG, and --quality is then meant for the latter.
    if options.quality is not None and known.default_quality is None and options.format is not None:
        raise SettingsError(f"--quality has no meaning for {known.title}, which is always lossless")
    if options.quality is not None and options.lossless:
        raise SettingsError("give only one of --quality and --lossless")


def _check_limits(format: str, width: int, height: int, channels: int) -> None:  # noqa: A002
    known = FORMATS[format]
    if known.max_side_px is not None and max(width, height) > known.max_side_px:
        raise UnwritablePictureError(
            f"{width}x{height} px is too large for {known.title}, whose sides end at {known.max_side_px} px; "
            "write PNG or TIFF"
        )
    if format == "bmp" and (width * channels + 3) * height > _BMP_BYTES:
        raise UnwritablePictureError(f"{width}x{height} px is too large for BMP, which ends at 4 GB; write PNG or TIFF")


def needed_bytes(format: str, raw: int, options: WriteOptions) -> int:  # noqa: A002
    """A generous guess at the file, for a result of `raw` bytes before compression."""
    lossy = FORMATS[format].default_quality is not None and not options.lossless
    return raw // 4 if lossy else raw


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
    options: WriteOptions,
    *,
    width: int,
    height: int,
    modified_ns: int | None = None,
    stop: Callable[[], bool] | None = None,
) -> tuple[str, ...]:
    """Encode `pixels` (H, W, C), uint8 or uint16, at `width` × `height` px, with the input's metadata (`header`).

    A file appears under its name when it is complete and on disc; until then it is `.NAME.….part` beside it, which
    nothing leaves behind but a killed process. `modified_ns` becomes its time of modification. A stream is written
    to as it comes. `stop` is asked before each block that is written: once it says so, the writing ends with
    `InterruptedRunError` and nothing is left. Returns notes on what could not be kept. Raises
    `UnwritablePictureError`, and `SettingsError` as `check_output` does.
    """
    assert pixels.ndim == 3
    assert pixels.dtype in (np.uint8, np.uint16)
    path = target if isinstance(target, Path) else None
    format = output_format(path, header, options)  # noqa: A001
    channels = pixels.shape[2]
    check_output(format, width, height, channels, header.depth, options, target=None)
    depth = final_depth(format, header.depth, options)
    notes: tuple[str, ...] = ()
    if header.depth == 16 and depth == 8 and options.bit_depth == "keep":
        notes = (f"{FORMATS[format].title} has 8 bits per channel; the picture's 16 are rounded",)
    if depth == 16 and format == "avif":
        notes = ("AVIF has at most 12 bits per channel; the picture's 16 are rounded",)
    metadata = metadata_of.updated(header.metadata, width, height, options.strip)
    if metadata.iptc and (header.format, format) != ("jpeg", "jpeg"):
        notes += ("IPTC captions and keywords are left out; they are kept from JPEG to JPEG",)
    name = "the output" if path is None else shown(path)
    try:
        with (
            contextlib.nullcontext(target) if not isinstance(target, Path) else _published(target, modified_ns) as file
        ):
            stoppable = file if stop is None else cast("BinaryIO", _Stoppable(file, stop))
            notes += encode(pixels, stoppable, format, depth, metadata, options, (width, height))
            file.flush()
    except OSError as err:
        raise _unwritable(name, err) from err
    return notes


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
