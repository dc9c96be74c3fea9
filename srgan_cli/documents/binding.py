"""Results put together into one file, page by page: whoever adds one may forget it.

What a binder has to remember between two pages is in its `state`, a few numbers: with them, and the bytes of the file
up to the last whole page, an interrupted run can be resumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from srgan_cli.config import WriteOptions
from srgan_cli.imaging.encoding import CLASSIC_TIFF_BYTES, append_tiff
from srgan_cli.imaging.image import Header, Metadata, Pixels
from srgan_cli.imaging.output import Output

Notes = tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """An enlarged page: (H, W, C) uint8 or uint16, what it was, and how it is to be written."""

    pixels: Pixels
    header: Header
    output: Output
    metadata: Metadata  # of the result
    notes: Notes = ()


class Binder(Protocol):
    """Writes pages into `file`, which is empty, or as it was when `state` was what it is now."""

    @property
    def state(self) -> dict[str, Any]: ...

    @property
    def pages(self) -> int:
        """How many pages are whole in the file."""

    def add(self, page: Page) -> Notes:
        """One more page. Raises `OSError` from the file, and `UnwritablePictureError` when the encoder refuses."""

    def finish(self) -> Notes:
        """The file's end: what is in it now is whole."""

    def abandon(self) -> None:
        """Let go of a file that is not to be finished now."""


class TiffBinder:
    """Pages of a TIFF, little-endian; a BigTIFF where all of them could pass 4 GB."""

    def __init__(self, file: BinaryIO, options: WriteOptions, raw_bytes: int, state: dict[str, Any]) -> None:
        self._file, self._options, self._big = file, options, raw_bytes > CLASSIC_TIFF_BYTES
        link = state.get("link_at")
        self._link_at = link if isinstance(link, int) else None
        self._pages = state.get("pages", 0) if isinstance(state.get("pages", 0), int) else 0

    @property
    def pages(self) -> int:
        return self._pages

    @property
    def state(self) -> dict[str, Any]:
        return {} if self._link_at is None else {"link_at": self._link_at, "pages": self._pages}

    def add(self, page: Page) -> Notes:
        self._link_at, notes = append_tiff(
            page.pixels, self._file, page.output, page.metadata, self._options, link_at=self._link_at, big=self._big
        )
        self._pages += 1
        if self._options.tiff_layout == "pyramid":
            notes += ("pages of a TIFF are written in tiles, without the smaller copies of a pyramid",)
        return notes

    def finish(self) -> Notes:
        return ()

    def abandon(self) -> None: ...
