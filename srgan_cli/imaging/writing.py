"""Writing a picture so that its file is either complete or absent."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from srgan_cli.config import WriteOptions
from srgan_cli.errors import InterruptedRunError, UnwritablePictureError, shown
from srgan_cli.files import is_folder, is_special, publish_text, publishing, reason, why_not_writable
from srgan_cli.imaging.encoding import encode
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.image import Header, Metadata, Pixels
from srgan_cli.imaging.metadata import provenance
from srgan_cli.imaging.metadata import update as metadata_of
from srgan_cli.imaging.metadata.comment import with_text
from srgan_cli.imaging.metadata.geometry import Geometry
from srgan_cli.imaging.metadata.jpeg import COMMENT
from srgan_cli.imaging.output import Output
from srgan_cli.wording import size

_SEGMENT_BYTES = 65_000  # of EXIF in a JPEG file


def check_place(target: Path, needed: int) -> None:
    """Refuse before any work if a file of `needed` bytes cannot be written: `UnwritablePictureError`."""
    try:
        _refuse_place(target, needed)
    except OSError as err:  # the name is too long, or a folder has disappeared
        raise _unwritable(shown(target), err) from err


def _refuse_place(target: Path, needed: int) -> None:
    if is_special(target) and not is_folder(target):
        if not os.access(target, os.W_OK):
            raise UnwritablePictureError(f"you have no permission to write to {shown(target)}")
        return
    folder = target.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise UnwritablePictureError(f"{shown(folder)} is not a folder, so {shown(target)} cannot be written")
    if target.is_dir():
        raise UnwritablePictureError(f"{shown(target)} is a folder; give the name of a file")
    if (why := why_not_writable(folder)) is not None:
        raise UnwritablePictureError(why)
    disk = shutil.disk_usage(folder)
    if disk.free < needed and disk.total:  # /proc and similar file systems report no size
        raise UnwritablePictureError(
            f"the disk is too full for {shown(target)}: up to {size(needed)} are needed in {shown(folder)}, "
            f"{size(disk.free)} are free"
        )


def write_picture(
    target: Path | BinaryIO,
    pixels: Pixels,
    header: Header,
    output: Output,
    options: WriteOptions,
    *,
    overwrite: bool = True,
    modified_ns: int | None = None,
    stop: Callable[[], bool] | None = None,
    record: provenance.Record | None = None,
) -> tuple[str, ...]:
    """Encode `pixels` (H, W, C), uint8 or uint16, as `output` specifies, with the input's metadata (`header`).

    A file appears under its name when it is complete and on disk. Until then it is `.NAME.….part` beside it, which only
    a killed process leaves behind. Without `overwrite`, a file that has appeared there meanwhile is left unchanged.
    `modified_ns` becomes its modification time. A stream is written to directly. `stop` is called before each block is
    written: once it returns true, writing ends with `InterruptedRunError` and nothing is left. `record` (how the result
    was made) is added to its metadata, unless all metadata is stripped. Returns notes on what could not be kept. Raises
    `UnwritablePictureError`.
    """
    assert pixels.ndim == 3
    assert pixels.dtype in (np.uint8, np.uint16)
    metadata, notes = described(header, output, options, record)
    with _open(target, overwrite, modified_ns) as file:
        stoppable = file if stop is None else cast("BinaryIO", _Stoppable(file, stop))
        notes += encode(pixels, stoppable, output, metadata, options)
    return notes


@contextlib.contextmanager
def _open(target: Path | BinaryIO, overwrite: bool, modified_ns: int | None) -> Iterator[BinaryIO]:
    """The open target of a result. Every `OSError` inside becomes `UnwritablePictureError`."""
    try:
        with (
            contextlib.nullcontext(target)
            if not isinstance(target, Path)
            else publishing(target, overwrite=overwrite, modified_ns=modified_ns) as file
        ):
            yield file
            file.flush()
    except OSError as err:
        raise _unwritable(shown(target) if isinstance(target, Path) else "the output", err) from err


def described(
    header: Header, output: Output, options: WriteOptions, record: provenance.Record | None
) -> tuple[Metadata, tuple[str, ...]]:
    """The metadata of an enlarged picture, and notes on what could not be kept."""
    notes = _depth_notes(header, output, options)
    geometry = Geometry(output.width, output.height, header.width, header.height, header.orientation)
    metadata = metadata_of.updated(header.metadata, geometry, options.strip, dpi=output.dpi)
    notes += metadata_of.losses(header.metadata, metadata, options.strip)
    notes += header.left_out if options.strip != "all" else ()
    if record is not None and options.strip != "all":
        metadata = provenance.added(metadata, record)
    metadata, held_notes = _held(metadata, output.format, options)
    notes += held_notes
    if output.dpi is not None and "dpi" not in FORMATS[output.format].carries and not metadata.exif:
        notes += (f"{FORMATS[output.format].title} cannot store the resolution of {output.dpi:g} dpi",)
    return metadata, notes


def _held(metadata: Metadata, format: str, options: WriteOptions) -> tuple[Metadata, tuple[str, ...]]:  # noqa: A002
    """The metadata that `format` can hold, and notes on what it cannot."""
    notes: tuple[str, ...] = ()
    title = FORMATS[format].title
    if metadata.iptc and format not in ("jpeg", "png", "tiff"):
        notes += (f"IPTC captions and keywords are left out: {title} cannot store them",)
    if format == "png":
        return metadata, notes
    comments = tuple(one for one in metadata.text if format == "jpeg" and one[0] == COMMENT)
    other = replace(metadata, text=tuple(one for one in metadata.text if one not in comments))
    if other.text:
        commented = with_text(other) if options.keep_text else None
        if commented is not None and (format != "jpeg" or len(commented.exif or b"") <= _SEGMENT_BYTES):
            return replace(commented, text=comments), notes
        names = ", ".join(list(dict.fromkeys(key for key, _ in other.text))[:3])
        hint = "it is too long" if options.keep_text else "--keep-text puts it into EXIF's UserComment"
        notes += (f"the text in the file ({names}) is left out: {title} cannot store it, and {hint}",)
    return replace(metadata, text=comments), notes


def _depth_notes(header: Header, output: Output, options: WriteOptions) -> tuple[str, ...]:
    if header.format == "bmp" and output.format == "png" and header.has_alpha and options.format is None:
        return ("BMP cannot store the picture's transparency; the result is a PNG",)
    if header.depth == 16 and output.depth == 8 and options.bit_depth == "keep":
        return (f"{FORMATS[output.format].title} has 8 bits per channel; the picture's 16 are rounded",)
    if output.depth == 16 and output.format == "avif":
        return ("AVIF has at most 12 bits per channel; the picture's 16 are rounded",)
    return ()


def copy_picture(
    target: Path | BinaryIO, source: Path | bytes, *, overwrite: bool = True, modified_ns: int | None = None
) -> None:
    """Copy a file's bytes unchanged, with the same guarantees. Raises `UnwritablePictureError`; `OSError` from
    `source`."""
    with (
        io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as original,
        _open(target, overwrite, modified_ns) as file,
    ):
        shutil.copyfileobj(original, file, 1 << 20)


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8 with the same guarantees: complete and on disk, or absent."""
    try:
        publish_text(target, text, errors="replace")
    except OSError as err:
        raise _unwritable(shown(target), err) from err


class _Stoppable:
    """A file that refuses the next block once a stop is requested."""

    def __init__(self, file: BinaryIO, stop: Callable[[], bool]) -> None:
        self._file, self._stop = file, stop

    def write(self, data: bytes) -> int:
        if self._stop():
            raise InterruptedRunError("interrupted")
        return self._file.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def _unwritable(name: str, err: OSError) -> UnwritablePictureError:
    if isinstance(err, FileExistsError):
        return UnwritablePictureError(f"{name} has appeared since the run began; it is left alone")
    return UnwritablePictureError(f"{name} cannot be written: {reason(err)}")
