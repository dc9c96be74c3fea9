"""Files of many pages: their number, and access to each page as a separate picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.image import Header, Metadata
from srgan_cli.imaging.reading import OpenPicture
from srgan_cli.imaging.sources import Source

# Pages are independent; frames follow each other in time.
Kind: TypeAlias = Literal["pages", "frames"]
MAX_PAGES = 10_000


@dataclass(frozen=True)
class Timing:
    """How often the animation plays (0: endlessly), and the duration of each frame in ms."""

    plays: int
    delays_ms: tuple[int, ...]


class Document(Protocol):
    """An open file of many pages, numbered from 0. A context manager; for one thread at a time."""

    @property
    def kind(self) -> Kind: ...

    @property
    def count(self) -> int: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user on the file as a whole."""

    @property
    def timing(self) -> Timing | None:
        """Timing of frames; None for pages."""

    def header(self, number: int) -> Header:
        """The header of a page, before its pixels are decoded. Raises `UnreadablePictureError`."""

    def open(self, number: int) -> OpenPicture:
        """Open one page. Opening frames is fast only in order. Raises `UnreadablePictureError`."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Closing:
    """A context manager that calls its own `close` at the end."""

    def close(self) -> None:
        raise NotImplementedError

    def open(self, number: int) -> OpenPicture:
        raise NotImplementedError

    def header(self, number: int) -> Header:
        with self.open(number) as page:
            return page.header

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class Contents:
    """The pages of a document to be enlarged, before any pixel is decoded.

    `numbers` count from 1 up to `count`; `pages` are their headers, of which only the first has its metadata (it may be
    large).
    """

    kind: Kind
    format: str
    count: int
    numbers: tuple[int, ...]
    pages: tuple[Header, ...]
    notes: tuple[str, ...] = ()


def bare(header: Header) -> Header:
    """A header without what is read again when its page is enlarged."""
    return replace(header, metadata=Metadata())


def check_count(source: Source, count: int) -> None:
    """Raise `UnreadablePictureError` for more pages than `MAX_PAGES`."""
    if count > MAX_PAGES:
        raise UnreadablePictureError(
            f"{source.name} has more than {MAX_PAGES} pages or frames, the limit for one file: split it first"
        )
