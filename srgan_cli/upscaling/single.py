"""Enlarging one picture from Python, like `srgan upscale`: files, bytes and file objects."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, overload

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import NothingToDoError, SettingsError, SrganError, in_python
from srgan_cli.files import is_folder
from srgan_cli.stores.paths import path_of
from srgan_cli.upscaling.inputs import STREAM
from srgan_cli.upscaling.observer import Silent
from srgan_cli.upscaling.session import Session, prepare

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.upscaling.plan import Job

PictureSource: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO"
Progress: TypeAlias = Callable[[float], None]


@overload
def upscale_file(
    source: PictureSource, target: str | os.PathLike[str], options: UpscaleOptions | None = None, *,
    upscaler: Upscaler | None = None, progress: Progress | None = None,
) -> Path: ...  # fmt: skip


@overload
def upscale_file(
    source: PictureSource, target: BinaryIO, options: UpscaleOptions | None = None, *,
    upscaler: Upscaler | None = None, progress: Progress | None = None,
) -> None: ...  # fmt: skip


@overload
def upscale_file(
    source: PictureSource, target: None = None, options: UpscaleOptions | None = None, *,
    upscaler: Upscaler | None = None, progress: Progress | None = None,
) -> bytes: ...  # fmt: skip


def upscale_file(
    source: PictureSource,
    target: str | os.PathLike[str] | BinaryIO | None = None,
    options: UpscaleOptions | None = None,
    *,
    upscaler: Upscaler | None = None,
    progress: Progress | None = None,
) -> Path | bytes | None:
    """Enlarge one picture and write the result with its metadata.

    `source` is a path, the bytes of a picture file, or a readable file object. `target` is a path (which is returned),
    a writable file object, or None: the result's bytes are returned. Without a target path, the format is that of
    `options.write`, else the input's own.

    `options` are those of the command (except `inputs` and `output`), for example `UpscaleOptions(size=Size(scale=2))`.
    Passing an `upscaler` saves loading the model for each picture; it enlarges by its own scale or less, with its own
    `EngineOptions` instead of those in `options`. `progress` is called with the fraction done, which only increases, in
    the calling thread. An exception from it ends the work, and nothing is written.

    May be called from several threads at once. Calls with the same `upscaler` process one picture after the other.
    Raises a `PictureError` (such as `UnreadablePictureError`), `SettingsError`, `WeightsError` or `DeviceError`, and
    `TypeError` for a source or target of another kind.
    """
    try:
        return _upscale(source, target, options or UpscaleOptions(), upscaler, progress)
    except NothingToDoError as err:
        raise SettingsError(in_python(str(err))) from err
    except SrganError as err:
        if (message := in_python(err.sentence)) == str(err):
            raise
        raise type(err)(message) from err


def _upscale(
    source: PictureSource,
    target: str | os.PathLike[str] | BinaryIO | None,
    options: UpscaleOptions,
    upscaler: Upscaler | None,
    progress: Progress | None,
) -> Path | bytes | None:
    data = _bytes_of(source)
    if isinstance(target, io.TextIOBase):
        raise TypeError("target is a file of text; open it in binary mode, with 'wb'")
    path = _path(target) if isinstance(target, (str, os.PathLike)) else None
    given = STREAM if data is not None else _path(source)  # type: ignore[arg-type]
    if (data is None and given == STREAM) or is_folder(given):
        raise SettingsError(f"upscale_file takes one picture, not {given}")
    options = replace(options, inputs=(given,), output=STREAM if path is None else path)
    session = prepare(options, stdin=data, upscaler=upscaler)
    if path is not None:
        run_one(session, Reporting(progress), None)
        return session.plan.jobs[0].target if session.plan.jobs else session.plan.skips[0].target
    stream = io.BytesIO() if target is None else target
    assert not isinstance(stream, (str, os.PathLike))
    run_one(session, Reporting(progress), stream)
    return stream.getvalue() if isinstance(stream, io.BytesIO) and target is None else None


def _path(name: str | os.PathLike[str]) -> Path:
    return name if isinstance(name, Path) else path_of(os.fspath(name))


def _bytes_of(source: PictureSource) -> bytes | None:
    """The contents of a source that is not a path."""
    if isinstance(source, (str, os.PathLike)):
        return None
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if not hasattr(source, "read"):
        raise TypeError(
            f"source must be a path, the bytes of a file, or a file object, not {type(source).__name__}; "
            "Upscaler.upscale is for arrays"
        )
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError("source is a file of text; open it in binary mode, with 'rb'")
    return data


def run_one(session: Session, reporting: Reporting, stream: BinaryIO | None) -> None:
    """Run a session of one picture. Raises its failure, or what `reporting` raised."""
    try:
        tally = session.run(reporting, stream=stream)
    except BrokenPipeError:
        if reporting.raised is not None:
            raise reporting.raised from None
        raise
    if tally.error is not None:
        raise tally.error
    if tally.failures:
        raise tally.failures[0].kind(tally.failures[0].reason)
    if tally.interrupted:
        raise KeyboardInterrupt


class Reporting(Silent):
    """Calls a function with a picture's progress."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done_px, self._reported = 0, -1.0
        self.raised: BaseException | None = None

    def advanced(self, job: Job, network_pixels: int) -> None:  # type: ignore[override] # of all there are, it is a Job
        self._done_px += network_pixels
        self._report(self._done_px / max(1, job.network_pixels))

    def resumed(self, job: Job, network_pixels: int) -> None:  # type: ignore[override]
        self.advanced(job, network_pixels)

    def computed(self, job: Job, network_pixels: int) -> None:  # type: ignore[override]
        self._report((self._done_px + network_pixels) / max(1, job.network_pixels))

    def _report(self, fraction: float) -> None:
        if self._progress is None or fraction <= self._reported:  # less: something has to be computed again
            return
        self._reported = min(1.0, fraction)
        try:
            self._progress(self._reported)
        except BaseException as err:
            self.raised = err
            raise BrokenPipeError from err  # ends the run: nobody is listening any more
