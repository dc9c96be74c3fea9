"""What a file of many pages is: how many, and a way to open each of them as a picture of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.image import Header, Metadata
from srgan_cli.imaging.reading import OpenPicture
from srgan_cli.imaging.sources import Source

# Pages are read one by one; frames follow each other in time.
Kind: TypeAlias = Literal["pages", "frames"]
MAX_PAGES = 10_000


@dataclass(frozen=True)
class Timing:
    """How often all frames are shown (0: without end), and how long each of them, in ms."""

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
        """What a person should know of the file as a whole."""

    @property
    def timing(self) -> Timing | None:
        """Of frames; None for pages."""

    def header(self, number: int) -> Header:
        """What is known of a page before its pixels are decoded. Raises `UnreadablePictureError`."""

    def open(self, number: int) -> OpenPicture:
        """One page. Frames are quickly opened in their order only. Raises `UnreadablePictureError`."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Closing:
    """A context manager that closes itself at the end."""

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
    """Those pages of a document that a run is about, before a pixel of them is decoded.

    `numbers` count from 1, of `count`; `pages` are their headers, without the metadata, which may be large.
    """

    kind: Kind
    format: str
    count: int
    numbers: tuple[int, ...]
    pages: tuple[Header, ...]
    notes: tuple[str, ...] = ()


def bare(header: Header) -> Header:
    """A header without what is read again when its page is made."""
    return replace(header, metadata=Metadata())


def check_count(source: Source, count: int) -> None:
    """Raise `UnreadablePictureError` for more pages than `MAX_PAGES`."""
    if count > MAX_PAGES:
        raise UnreadablePictureError(
            f"{source.name} has more than {MAX_PAGES} pages or frames, the limit for one file: split it first"
        )
