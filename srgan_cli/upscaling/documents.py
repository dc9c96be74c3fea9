"""Enlarges a document of many pages. It is processed page by page, but published as a whole file.

One page is decoded, enlarged and appended to the growing file while the next one is enlarged. Memory holds at most two
results of `CANVAS_BYTES`, for any number of pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from srgan_cli.config import UpscaleOptions
from srgan_cli.documents.binding import Binder, Page
from srgan_cli.documents.document import Document
from srgan_cli.documents.opening import binder_of
from srgan_cli.engine.rows import AheadRows, Unchanged
from srgan_cli.errors import PictureError, UnreadablePictureError, UnwritablePictureError
from srgan_cli.files import reason
from srgan_cli.imaging.canvas import Canvas
from srgan_cli.imaging.metadata.provenance import Record
from srgan_cli.imaging.reading import OpenPicture
from srgan_cli.imaging.writing import described
from srgan_cli.upscaling.graining import Graining, graining_of
from srgan_cli.upscaling.growing import Growing, growing
from srgan_cli.upscaling.inputs import STREAM
from srgan_cli.upscaling.observer import Observer, Tally
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.places import canvas_of
from srgan_cli.upscaling.plan import READ_AHEAD_BYTES, Job, page_of
from srgan_cli.upscaling.stabilising import Stabiliser

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler


@dataclass(frozen=True)
class DocumentContext:
    """What a run provides for making a document."""

    options: UpscaleOptions
    settings_key: str
    upscaler_of: Callable[[Job], Upscaler | Unchanged]
    tally: Tally
    observer: Observer
    patience_of: Callable[[Job], Patience]


@dataclass
class FinishedDocument:
    """A complete document that is not published yet. `damages`: what was lost of its input, by page."""

    publish: Callable[[int | None], None]
    notes: tuple[str, ...] = ()
    damages: tuple[str, ...] = ()


@dataclass
class _PageNotes:
    """Notes, with the pages that they apply to."""

    pages: dict[str, list[int]] = field(default_factory=dict)

    def add(self, number: int, notes: tuple[str, ...]) -> None:
        for note in notes:
            self.pages.setdefault(note, []).append(number)

    def sentences(self, count: int, word: str) -> tuple[str, ...]:
        return tuple(_of_pages(note, numbers, count, word) for note, numbers in self.pages.items())


def _of_pages(note: str, numbers: list[int], count: int, word: str) -> str:
    if len(set(numbers)) == count or numbers == [0]:
        return note
    listed = ", ".join(map(str, numbers[:3]))
    more = f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    return f"{word}{'s' * (len(numbers) > 1)} {listed}{more}: {note}"


@contextlib.contextmanager
def making(
    job: Job, document: Document, context: DocumentContext, target: Path | BinaryIO, record: Record
) -> Iterator[FinishedDocument]:
    """Enlarge and bind all pages. Yields the complete document; it is removed at the end of the block unless published.

    Raises `PictureError` for the first page that fails: a missing page would be an unnoticed loss.
    """
    numbers = hashlib.sha256(repr([(p.number, p.output) for p in job.pages]).encode()).hexdigest()[:16]
    key = f"{context.settings_key}-{job.source_identity}-{numbers}"
    resume = context.options.resume and document.kind == "pages"  # a frame reuses the texture of earlier ones
    with growing(target, key, resume=resume) as file:
        try:
            notes, damages = _bind(job, document, context, file, target, record)
        except OSError as err:
            raise UnwritablePictureError(f"{job.target} cannot be written: {reason(err)}") from err

        def publish(modified_ns: int | None) -> None:
            file.publish(target, overwrite=not job.is_new, modified_ns=modified_ns)

        yield FinishedDocument(publish, notes, damages)


def _bind(
    job: Job, document: Document, context: DocumentContext, file: Growing, target: Path | BinaryIO, record: Record
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    numbers = tuple(page.number for page in job.pages)
    write = context.options.write
    binder = binder_of(
        document, numbers, job.output.format, file.file, write, job.raw_bytes, file.state,
        keeps_others=context.options.pages.is_all,
    )  # fmt: skip
    page_notes, damaged = _PageNotes(), _PageNotes()
    if file.pages:
        word = document.kind.removesuffix("s")
        context.observer.note(f"{job.source}: resuming at {word} {file.pages + 1} of {len(job.pages)}")
        context.observer.resumed(job, sum(page.network_pixels for page in job.pages[: file.pages]))
    stabiliser = Stabiliser() if document.kind == "frames" else None
    grainings = _Grainings(job, document, context)
    with _Encoder(binder, file, page_notes) as encoder:
        for page in job.pages[file.pages :]:
            part = page_of(job, page)
            with _naming(page.number, document):
                graining = grainings.of(part)
                bound, canvas, damage = _enlarged(job, part, document, context, record, target, stabiliser, graining)
                encoder.take(page.number, bound, canvas)
            damaged.add(page.number, () if damage is None else (damage,))
    try:
        page_notes.add(0, binder.finish())
    except BaseException:
        binder.abandon()
        raise
    if document.kind == "frames" and job.container is None and job.output.format == "tiff":
        page_notes.add(0, ("the frames become pages: TIFF cannot store how long each is shown",))
    word = document.kind.removesuffix("s")
    return page_notes.sentences(len(job.pages), word), damaged.sentences(len(job.pages), word)


@contextlib.contextmanager
def _naming(number: int, document: Document) -> Iterator[None]:
    """Adds the page to errors that do not name it."""
    word = document.kind.removesuffix("s")
    try:
        yield
    except PictureError as err:
        if f"{word} {number}" in str(err):
            raise
        raise type(err)(f"{word} {number}: {err}") from err


def _enlarged(
    job: Job,
    part: Job,
    document: Document,
    context: DocumentContext,
    record: Record,
    target: Path | BinaryIO,
    stabiliser: Stabiliser | None,
    graining: Graining | None,
) -> tuple[Page, Canvas, str | None]:
    patience = context.patience_of(part)
    with patience.working(), document.open((part.page or 1) - 1) as picture:
        header = picture.header
        if (header.width, header.height, header.channels) != (
            part.header.width, part.header.height, part.header.channels,
        ):  # fmt: skip
            raise UnreadablePictureError("it has changed since the run began")
        canvas = _canvas(part, target)
        try:
            _fill(job, part, picture, canvas, context, patience, stabiliser, graining)
        except BaseException:
            canvas.close()
            raise
        damage = picture.damage
    scale = f"{part.output.width / header.width:.4g}"
    own = replace(record, scale=scale, source_size=f"{header.width}x{header.height}")
    metadata, notes = described(header, part.output, context.options.write, own)
    return Page(canvas.pixels, header, part.output, metadata, (*header.notes, *notes)), canvas, damage


def _canvas(part: Job, target: Path | BinaryIO) -> Canvas:
    named = isinstance(target, Path) and part.target != STREAM
    folder = target.parent if isinstance(target, Path) and named else Path(tempfile.gettempdir())
    return canvas_of(part, folder, named=named)


def _fill(
    job: Job,
    part: Job,
    picture: OpenPicture,
    canvas: Canvas,
    context: DocumentContext,
    patience: Patience,
    stabiliser: Stabiliser | None,
    graining: Graining | None,
) -> None:
    header, upscaler = part.header, context.upscaler_of(part)
    done = 0

    def final(rows: int) -> None:
        nonlocal done
        if graining is not None:
            graining.put(canvas.pixels, done, done + rows)
        done += rows
        context.observer.advanced(job, rows * part.network_pixels // header.height)
        patience.check()

    def computed(px: int) -> None:
        context.observer.computed(job, px * part.network_scale**2)

    began = time.perf_counter()
    if stabiliser is not None and not isinstance(upscaler, Unchanged):
        stabiliser.enlarge(picture.read_rows(header.height), upscaler, canvas.pixels, patience.check)
        final(header.height)
    elif header.decoded_bytes > READ_AHEAD_BYTES:
        with AheadRows(picture, header.decoded_bytes // header.height) as ahead:
            upscaler.upscale_rows(ahead, canvas.pixels, on_rows=final, on_part=computed)
    else:
        upscaler.upscale_rows(picture, canvas.pixels, on_rows=final, on_part=computed)
    context.tally.network_seconds += time.perf_counter() - began
    context.tally.network_pixels += part.network_pixels


class _Grainings:
    """The grain of each page. For an animation it is measured in the first frame, and has the same pattern in all
    frames, so that still areas do not flicker."""

    def __init__(self, job: Job, document: Document, context: DocumentContext) -> None:
        self._job, self._document, self._context = job, document, context
        self._of_frames: list[Graining | None] = []

    def of(self, part: Job) -> Graining | None:
        if self._document.kind == "pages":
            return self._made(part, part.page or 0)
        if not self._of_frames:
            self._of_frames.append(self._made(page_of(self._job, self._job.pages[0]), 0))
        return self._of_frames[0]

    def _made(self, part: Job, page: int) -> Graining | None:
        context, number = self._context, part.page or 1
        again = partial(self._document.open, number - 1)
        return graining_of(part, context.options, context.upscaler_of(part), again, context.observer.detail, page=page)


class _Encoder:
    """Binds one page while the next one is enlarged. A context manager: at its end everything is bound."""

    def __init__(self, binder: Binder, file: Growing, page_notes: _PageNotes) -> None:
        self._binder, self._file, self._page_notes = binder, file, page_notes
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="srgan-binder")
        self._pending: Future[None] | None = None

    def take(self, number: int, page: Page, canvas: Canvas) -> None:
        """Page `number` of the document. Raises the error of binding the previous page, if any."""
        try:
            self._wait()
        except BaseException:
            canvas.close()
            raise
        self._pending = self._pool.submit(self._bind, number, page, canvas)
        if canvas.scratch is not None:  # there is only one scratch file (and name)
            self._wait()

    def _bind(self, number: int, page: Page, canvas: Canvas) -> None:
        with canvas:
            notes = (*page.notes, *self._binder.add(page))
        self._page_notes.add(number, notes)
        self._file.whole(self._binder.pages, self._binder.state)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._pool.shutdown(wait=True)
            if kind is not None:
                self._binder.abandon()
