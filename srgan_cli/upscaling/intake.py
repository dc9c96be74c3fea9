"""One picture on its way to the engine: decoded ahead, or open to be read row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from srgan_cli.errors import PictureError, UnreadablePictureError
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.upscaling.plan import READ_AHEAD_BYTES, Job
from srgan_cli.upscaling.rows import ArrayRows, RowSource

Opened: TypeAlias = "OpenPicture | ArrayRows | PictureError | OSError | None"


class Intake:
    """One picture on its way to the engine; holds its share of the byte budget until it is closed."""

    def __init__(self, job: Job, source: Opened, release: Callable[[], None]) -> None:
        self.job = job
        self._source = source
        self._release = release

    def rows(self) -> RowSource:
        """The picture's rows; raises what reading ahead met."""
        if isinstance(self._source, BaseException):
            raise self._source
        assert self._source is not None
        return self._source

    def __enter__(self) -> Intake:
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self._source, OpenPicture):
            self._source.close()
        self._source = None
        self._release()


def open_ahead(job: Job, max_pixels: int) -> Opened:
    """The picture, or what is wrong with it; None where only its bytes are wanted."""
    if job.is_copy:
        return None
    try:
        picture = open_picture(job.source if job.data is None else job.data, max_pixels=max_pixels)
        if picture.header != job.header:
            raise UnreadablePictureError("it has changed since the run began")
        if picture.header.decoded_bytes > READ_AHEAD_BYTES:
            return picture
        with picture:
            return ArrayRows(picture.read_rows(picture.header.height))
    except (PictureError, OSError) as err:
        return err
    except MemoryError:
        return UnreadablePictureError("there is not enough memory to decode it")
