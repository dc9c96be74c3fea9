"""One picture on its way to the engine: decoded ahead, or opened for reading row by row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from srgan_cli.config import UpscaleOptions
from srgan_cli.documents.document import Document, bare
from srgan_cli.documents.opening import open_document, open_page
from srgan_cli.engine.rows import ArrayRows, RowSource
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.stores import reach
from srgan_cli.stores.fetching import fetch, reading, writing
from srgan_cli.stores.paths import StorePath
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.plan import READ_AHEAD_BYTES, Job

_ROWS = 256

Opened: TypeAlias = "OpenPicture | DecodedPicture | Document | Exception | None"


class DecodedPicture(ArrayRows):
    """A picture that has been decoded whole. `damage`: what was lost, if damage is accepted."""

    def __init__(self, picture: OpenPicture, patience: Patience) -> None:
        header = picture.header
        pixels = np.empty((header.height, header.width, header.channels), header.dtype)
        for top in range(0, header.height, _ROWS):
            part = pixels[top : top + _ROWS]
            part[:] = picture.read_rows(len(part))
            patience.check()
        super().__init__(pixels)
        self.damage = picture.damage


class Intake:
    """One picture on its way to the engine. Holds its part of the byte budget until closed."""

    def __init__(self, job: Job, source: Opened, patience: Patience, release: Callable[[], None]) -> None:
        self.job = job
        self.patience = patience
        self._source = source
        self._release = release

    def rows(self) -> RowSource:
        """The picture's rows. Raises what reading ahead raised."""
        if isinstance(self._source, Exception):
            raise self._source
        assert isinstance(self._source, (OpenPicture, DecodedPicture))
        return self._source

    def document(self) -> Document:
        """The open document of many pages. Raises what reading ahead raised."""
        if isinstance(self._source, Exception):
            raise self._source
        assert self._source is not None
        assert not isinstance(self._source, (OpenPicture, DecodedPicture))
        return self._source

    @property
    def lost(self) -> Exception | None:
        """Why a picture could not be fetched from its store, and so was not examined."""
        is_away = isinstance(self.job.source, StorePath) and self.job.fetched is None and self.job.data is None
        return self._source if is_away and isinstance(self._source, Exception) else None

    @property
    def damage(self) -> str | None:
        """What has been lost of the picture so far, if damage is accepted."""
        return self._source.damage if isinstance(self._source, (OpenPicture, DecodedPicture)) else None

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()

    def close(self) -> None:
        if self._source is not None and not isinstance(self._source, (DecodedPicture, Exception)):
            self._source.close()
        self._source = None
        if self.job.fetched is not None:
            self.job.fetched.close()
        self._release()


def at_hand(job: Job, check: Callable[[], None]) -> Job:
    """A job whose input is on this machine: one in a store is fetched, and kept as long as its `Intake`. `check` is
    called meanwhile; an exception from it ends the transfer. Raises `UnreadablePictureError`."""
    if not isinstance(job.source, StorePath) or job.data is not None:
        return job
    return replace(job, fetched=fetch(job.source, job.version, check))


def check_stores(job: Job) -> None:
    """Raises `PictureError`, as reading or publishing would, if a job's store has been given up, so that the picture is
    not upscaled in vain."""
    if isinstance(job.source, StorePath) and job.data is None:
        with reading(job.source):
            reach.check(job.source)
    if isinstance(job.target, StorePath):
        with writing(job.target):
            reach.check(job.target)


def open_ahead(job: Job, options: UpscaleOptions, patience: Patience) -> tuple[Job, Opened]:
    """A job's picture: decoded, or only opened if it is large; None if only its bytes are needed. Also returns the job,
    completed with everything learned from the picture.

    Raises what reading the picture raises.
    """
    if job.is_copy:
        return job, None
    if job.pages:
        return job, _document(job, options)
    picture = open_alone(job, options)
    try:
        if bare(picture.header) != bare(replace(job.header, notes=picture.header.notes)):
            raise UnreadablePictureError("it has changed since the run began")
        job = replace(job, header=replace(picture.header, notes=job.header.notes))
        if picture.header.decoded_bytes > READ_AHEAD_BYTES:
            return job, picture
        with picture:
            return job, DecodedPicture(picture, patience)
    except BaseException:
        picture.close()
        raise


def open_alone(job: Job, options: UpscaleOptions) -> OpenPicture:
    """The picture of a job that is not a document. Raises what `open_picture` does."""
    source = job.origin
    if job.page is None:
        return open_picture(source, max_pixels=options.max_pixels, accept_damaged=options.accept_damaged)
    return open_page(source, job.page - 1, max_pixels=options.max_pixels, accept_damaged=options.accept_damaged)


def _document(job: Job, options: UpscaleOptions) -> Document:
    source = job.origin
    document = open_document(source, max_pixels=options.max_pixels, accept_damaged=options.accept_damaged)
    if document.count < job.pages[-1].number:
        document.close()
        raise UnreadablePictureError("it has changed since the run began")
    return document
