"""Enlarging one picture for a client: bytes in, bytes out, within the server's limits."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from srgan_cli.config import AUTO_MODEL, PageRange, UpscaleOptions, WriteOptions
from srgan_cli.engine.held import Upscalers
from srgan_cli.errors import NothingToDoError, PictureError, SettingsError, in_python
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.reading import read_header
from srgan_cli.networks import library, registry
from srgan_cli.serving.settings import ServeOptions
from srgan_cli.upscaling.inputs import STREAM
from srgan_cli.upscaling.paging import SeveralResultsError
from srgan_cli.upscaling.session import Session, prepare, select
from srgan_cli.upscaling.single import Reporting, run_one

if TYPE_CHECKING:
    from srgan_cli.upscaling.plan import Job

_ANY_SIZE = 1 << 62
_PIXELS = b"P5 8 8 255\n" + bytes(range(0, 256, 4))  # the smallest picture that all models accept, as PGM
_MIME = {"jp2": "image/jp2", "ppm": "image/x-portable-anymap"}


class TooLargeError(SettingsError):
    """The result would be larger than this server allows."""


class CancelledError(Exception):
    """The client has disconnected or cancelled."""


@dataclass(frozen=True)
class Result:
    """A finished picture: the file's bytes, and facts about it."""

    data: bytes
    format: str
    width: int
    height: int
    model: str
    why: str
    notes: tuple[str, ...]
    seconds: float

    @property
    def mime(self) -> str:
        return mime_of(self.format)

    @property
    def suffix(self) -> str:
        return FORMATS[self.format].suffixes[0]


def mime_of(format: str) -> str:  # noqa: A002
    return _MIME.get(format, f"image/{format}")


def model_names() -> tuple[str, ...]:
    """The names that a request may use: bundled and own models and families, but never a local file."""
    known = [(model.family, model.name) for model in registry.entries()]
    known += [(model.family, model.name) for model in library.own_models()]
    return AUTO_MODEL, *dict.fromkeys(name for names in known for name in names)


def within_limits(asked: UpscaleOptions, options: ServeOptions) -> UpscaleOptions:
    """A client's options, restricted to what this server offers. Raises `SettingsError` for an unavailable model."""
    name, _ = registry.split_detail(asked.model)
    if asked.model != options.model and name not in model_names():
        raise SettingsError(f"there is no model called {asked.model!r} here; there are {', '.join(model_names())}")
    return replace(
        asked,
        inputs=(STREAM,),
        output=STREAM,
        engine=replace(options.engine, color_lock=asked.engine.color_lock),
        max_pixels=min(asked.max_pixels, options.max_pixels),
        timeout_s=min(asked.timeout_s or options.timeout_s, options.timeout_s),
    )


def make(
    data: bytes,
    asked: UpscaleOptions,
    upscalers: Upscalers,
    *,
    max_result_pixels: int,
    progress: Callable[[float], None],
) -> Result:
    """Enlarge the picture. An exception from `progress` ends the work. Raises `TooLargeError` before the work, and what
    `upscale_file` does."""
    began = time.perf_counter()
    try:
        try:
            session = prepare(asked, stdin=data, upscalers=upscalers)
        except SeveralResultsError:  # a response is one file; the note on its first page says so
            session = prepare(replace(asked, pages=PageRange(1, 1)), stdin=data, upscalers=upscalers)
        if session.plan.failures:
            _refuse_too_many_pixels(data, asked.max_pixels)
            failure = session.plan.failures[0]
            raise failure.kind(failure.reason)
        _refuse_too_large(session, max_result_pixels)
        stream, collected = io.BytesIO(), _Collecting(progress)
        run_one(session, collected, stream)
    except NothingToDoError as err:
        raise SettingsError(in_python(str(err))) from err
    if collected.job is None:
        raise SettingsError("the picture is large enough already; copy_large=copy or copy_large=reduce returns it")
    job = collected.job
    seconds = time.perf_counter() - began
    output, data = job.output, stream.getvalue()
    model = session.selections[job.model].name if job.model else "none"  # not the path of a local file
    return Result(data, output.format, output.width, output.height, model, job.why, collected.notes, seconds)


def warm_up(options: ServeOptions, upscalers: Upscalers, on_failure: Callable[[BaseException], None]) -> None:
    """Import torch and load the model before the first request. If that fails, `on_failure` is called, and each client
    gets the error."""
    asked = replace(within_limits(UpscaleOptions(model=options.model), options), write=WriteOptions("png"))
    try:
        make(_PIXELS, asked, upscalers, max_result_pixels=options.max_result_pixels, progress=lambda _done: None)
    except Exception as err:  # noqa: BLE001 - reported; the server may work for other models
        on_failure(err)


def _refuse_too_many_pixels(data: bytes, most: int) -> None:
    """If a picture was refused for its size, name the server's limit: a client cannot raise it."""
    with suppress(PictureError):
        header = read_header(data, max_pixels=_ANY_SIZE)
        if header.width * header.height > most:
            raise TooLargeError(f"the picture is {header.width}x{header.height} px, and this server takes at most "
                                f"{most / 1e6:g} million px")  # fmt: skip


def _refuse_too_large(session: Session, most: int) -> None:
    for job in session.plan.jobs:
        if job.container is not None:
            raise SettingsError("this file holds several pictures; use the command srgan upscale for it")
        if job.output_pixels > most or job.network_pixels > 4 * most:
            raise TooLargeError(
                f"the result would be {job.output.width}x{job.output.height} px, and this server makes at most "
                f"{most / 1e6:g} million px; ask for a smaller size"
            )


class _Collecting(Reporting):
    """Collects the messages of a run about its one picture."""

    def __init__(self, progress: Callable[[float], None]) -> None:
        super().__init__(progress)
        self.job: Job | None = None
        self.notes: tuple[str, ...] = ()

    def done(self, job: Any, seconds: float, notes: tuple[str, ...]) -> None:
        self.job, self.notes = job, tuple(dict.fromkeys(map(in_python, notes)))


def check_model(options: ServeOptions) -> None:
    """Raise `WeightsError` at the start if the server's own model is missing, or not a model."""
    if options.model != AUTO_MODEL:
        select(options.model)
