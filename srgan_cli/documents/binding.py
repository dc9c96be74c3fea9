"""Binding results into one file, page by page, so that each page can be freed once added.

A binder's `state` (a few numbers) and the bytes of the file up to the last complete page are sufficient to resume an
interrupted run.
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
    """An enlarged page: (H, W, C) uint8 or uint16, its input, and how it is to be written."""

    pixels: Pixels
    header: Header
    output: Output
    metadata: Metadata  # of the result
    notes: Notes = ()


class Binder(Protocol):
    """Writes pages into `file`, which is empty or in the state that `state` describes."""

    @property
    def state(self) -> dict[str, Any]: ...

    @property
    def pages(self) -> int:
        """How many pages are complete in the file."""

    def add(self, page: Page) -> Notes:
        """Add one page. Raises `OSError` from the file, and `UnwritablePictureError` if the encoder refuses."""

    def finish(self) -> Notes:
        """Write the file's end, after which it is complete."""

    def abandon(self) -> None:
        """Release a file that is not to be finished now."""


class TiffBinder:
    """Pages of a TIFF, little-endian; a BigTIFF if all of them together could exceed 4 GB."""

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
