"""The pages of a TIFF, each presented to the reader as a TIFF with a single picture.

A page is the file itself with two numbers changed: the offset of the first table, and the link to the next, which is
removed. So everything implemented for TIFFs with one picture (kinds of samples, metadata, bounds) works for each page,
and opening page 5,000 does not read 4,999 others.
"""

from __future__ import annotations

from typing import Any

from srgan_cli.documents.document import Closing, Kind, Timing
from srgan_cli.imaging import tiff_kinds
from srgan_cli.imaging.metadata.ifd import Structure, Table
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source, vips_source


class TiffPages(Closing):
    """An open TIFF of several pages; levels of a pyramid, previews and masks do not count. Closes `source`."""

    kind: Kind = "pages"
    notes: tuple[str, ...] = ()
    timing: Timing | None = None

    def __init__(self, source: Source, max_pixels: int, *, accept_damaged: bool = False) -> None:
        self._source, self._max_pixels, self._accept = source, max_pixels, accept_damaged
        structure = Structure(source.read_at, source.size)
        self._big, self._order = structure.big, "little" if structure.order == "<" else "big"
        self._tables = tiff_kinds.page_tables(structure, source.name)

    @property
    def count(self) -> int:
        return len(self._tables)

    def open(self, number: int) -> OpenPicture:
        page = _Page(self._source, self._tables[number], number, big=self._big, order=self._order)
        return open_picture(page, max_pixels=self._max_pixels, accept_damaged=self._accept)

    def close(self) -> None:
        self._source.close()


class _Page(Source):
    """The bytes of a TIFF as if it contained only one of its pages. The file stays open when this is closed."""

    def __init__(self, whole: Source, table: Table, number: int, *, big: bool, order: Any) -> None:
        self._whole = whole
        self.name, self.suffix, self.size = f"page {number + 1} of {whole.name}", whole.suffix, whole.size
        word = 8 if big else 4
        self._patches = ((word, table.at.to_bytes(word, order)), (table.next_at, bytes(word)))
        self._shown: list[Any] = []  # libvips does not keep Python callbacks alive

    def read_at(self, offset: int, count: int) -> bytes:
        data = self._whole.read_at(offset, count)
        for at, new in self._patches:
            begin, end = max(at, offset), min(at + len(new), offset + len(data))
            if begin < end:
                data = data[: begin - offset] + new[begin - at : end - at] + data[end - offset :]
        return data

    def read_all(self) -> bytes:
        return self.read_at(0, self.size)

    def for_vips(self) -> Any:
        self._shown.append(vips_source(self.read_quietly, self.size))
        return self._shown[-1]

    def close(self) -> None:
        self._shown.clear()
