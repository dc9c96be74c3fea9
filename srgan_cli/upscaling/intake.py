"""One picture on its way to the engine: decoded ahead, or open to be read row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from srgan_cli.config import UpscaleOptions
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.upscaling.patience import Patience
from srgan_cli.upscaling.plan import READ_AHEAD_BYTES, Job
from srgan_cli.upscaling.rows import ArrayRows, RowSource

_ROWS = 256

Opened: TypeAlias = "OpenPicture | WholePicture | Exception | None"


class WholePicture(ArrayRows):
    """A picture that has been decoded whole. `damage`: what was lost of it, where that is accepted."""

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
    """One picture on its way to the engine; holds its share of the byte budget until it is closed."""

    def __init__(self, job: Job, source: Opened, patience: Patience, release: Callable[[], None]) -> None:
        self.job = job
        self.patience = patience
        self._source = source
        self._release = release

    def rows(self) -> RowSource:
        """The picture's rows; raises what reading ahead met."""
        if isinstance(self._source, Exception):
            raise self._source
        assert self._source is not None
        return self._source

    @property
    def damage(self) -> str | None:
        """What was lost of the picture so far, where that is accepted."""
        return self._source.damage if isinstance(self._source, (OpenPicture, WholePicture)) else None

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self._source, OpenPicture):
            self._source.close()
        self._source = None
        self._release()


def open_ahead(job: Job, options: UpscaleOptions, patience: Patience) -> Opened:
    """A job's picture, decoded, or only opened when it is large; None where only its bytes are wanted.

    Raises what reading it does.
    """
    if job.is_copy:
        return None
    source = job.source if job.data is None else job.data
    picture = open_picture(source, max_pixels=options.max_pixels, accept_damaged=options.accept_damaged)
    try:
        if picture.header != job.header:
            raise UnreadablePictureError("it has changed since the run began")
        if picture.header.decoded_bytes > READ_AHEAD_BYTES:
            return picture
        with picture:
            return WholePicture(picture, patience)
    except BaseException:
        picture.close()
        raise
