"""Putting metadata into a TIFF file written by libvips.

In a classic file the EXIF block is placed verbatim at the very start, where offsets count from, so every table and
maker note in it stays valid. libvips' own file follows, and a new first table at the end of the file refers to both.
The constraint is that a TIFF file has a single byte order: that of the EXIF block.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata import iptc
from srgan_cli.imaging.metadata.exif import STRUCTURAL_TAGS, classic
from srgan_cli.imaging.metadata.ifd import (
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    LONG,
    LONG8,
    RATIONAL,
    SHORT,
    UNDEFINED,
    Field,
    Order,
    Structure,
    Table,
    number_field,
    table_bytes,
    turned,
)

_STRIP_OFFSETS, _TILE_OFFSETS = 0x0111, 0x0144
_XMP, _ICC, _IPTC = 0x02BC, 0x8773, 0x83BB
_RESOLUTION = (0x011A, 0x011B, 0x0128)


def lead_in(metadata: Metadata, *, big: bool) -> bytes:
    """What precedes libvips' file: the padded EXIF block; empty without one, or in BigTIFF.

    A BigTIFF file's tables have another layout, so there the values have to move.
    """
    if big or not metadata.exif:
        return b""
    return metadata.exif + b"\0" * (-len(metadata.exif) % 16)


def byte_order(lead: bytes) -> Order:
    """The byte order of a file that starts with `lead`."""
    return ">" if lead[:2] == b"MM" else "<"


def finish(file: BinaryIO, lead: bytes, metadata: Metadata, *, swapped: bool) -> None:
    """Complete `file`, which contains `lead` followed by a little-endian TIFF file of libvips.

    `swapped`: the samples have been written in the other byte order, to match `lead`.
    """
    written, table = _written(file, len(lead))
    order = byte_order(lead)
    assert swapped == (order == ">")
    fields = _fields(written, table, len(lead), metadata, order)
    end = _align(file)
    tail = b""
    if lead:
        fields.update(_described(lead))
    elif metadata.exif:
        tail, moved = _moved(metadata.exif, end, big=written.big)
        fields.update(moved)
    first = end + len(tail)
    following = 0 if lead else table.next_offset  # the smaller pictures of a pyramid
    file.write(tail + table_bytes(order, list(fields.values()), first, big=written.big, next_offset=following))
    file.seek(0)
    if written.big:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, first))
    else:
        file.write(struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, first))


def head(*, big: bool) -> bytes:
    """The start of a little-endian file without pages yet: it ends with the link to the first."""
    return struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if big else struct.pack("<2sHI", b"II", 42, 0)


def append(file: BinaryIO, base: int, metadata: Metadata, link_at: int) -> int:
    """Append the little-endian TIFF file of libvips located at `base`, the end of `file`, as a page.

    `link_at` is the offset of the link in the previous page (or the head). Returns the offset of this page's link.
    """
    written, table = _written(file, base)
    fields = _fields(written, table, base, metadata, "<")
    end = _align(file)
    tail, moved = _moved(metadata.exif, end, big=written.big) if metadata.exif else (b"", {})
    fields.update(moved)
    at = end + len(tail)
    file.write(tail + table_bytes("<", list(fields.values()), at, big=written.big))
    word = "<Q" if written.big else "<I"
    file.seek(link_at)
    file.write(struct.pack(word, at))
    file.seek(0, 2)
    return at + (8 + 20 * len(fields) if written.big else 2 + 12 * len(fields))


def _written(file: BinaryIO, base: int) -> tuple[Structure, Table]:
    """What libvips has written from `base` to the end of `file`."""
    size = file.seek(0, 2) - base

    def read_at(at: int, count: int) -> bytes:
        file.seek(base + at)
        return file.read(max(0, min(count, size - at)))

    written = Structure(read_at, size)
    table = written.table(written.first)
    assert table is not None, "libvips wrote no TIFF table"
    assert written.order == "<"
    return written, table


def _fields(written: Structure, table: Table, base: int, metadata: Metadata, order: Order) -> dict[int, Field]:
    """libvips' fields and those of the metadata that are not part of an EXIF block."""
    fields = {field.tag: field for field in _shifted(written, table, base)}
    for tag in _RESOLUTION:
        fields.pop(tag, None)
    if order == ">":
        fields = {tag: turned(field) for tag, field in fields.items()}
    fields.update(_resolution(order, metadata.dpi))
    if metadata.xmp:
        fields[_XMP] = Field(_XMP, 1, len(metadata.xmp), metadata.xmp)
    records = iptc.records(metadata.iptc) if metadata.iptc else None
    if records:
        fields[_IPTC] = Field(_IPTC, UNDEFINED, len(records), records)
    if metadata.icc:
        fields[_ICC] = Field(_ICC, UNDEFINED, len(metadata.icc), metadata.icc)
    return fields


def _align(file: BinaryIO) -> int:
    end = file.seek(0, 2)
    file.write(b"\0" * (end % 2))
    return end + end % 2


def _shifted(written: Structure, table: Table, by: int) -> list[Field]:
    """libvips' fields, with the offsets of the pixels increased by `by` bytes."""
    shifted = []
    for field in written.fields(table):
        entry = table.find(field.tag)
        if field.tag in (_STRIP_OFFSETS, _TILE_OFFSETS) and by:
            offsets = [value + by for value in written.numbers(entry)]
            field = number_field("<", field.tag, LONG8 if written.big else LONG, *offsets)
        shifted.append(field)
    return shifted


def _resolution(order: Order, dpi: tuple[float, float] | None) -> dict[int, Field]:
    if dpi is None:
        return {}
    across, down, unit = _RESOLUTION
    values = [struct.pack(order + "II", min(round(max(value, 0.0) * 10_000), 2**32 - 1), 10_000) for value in dpi]
    return {
        across: Field(across, RATIONAL, 1, values[0]),
        down: Field(down, RATIONAL, 1, values[1]),
        unit: number_field(order, unit, SHORT, 2),
    }


def _described(lead: bytes) -> dict[int, Field]:
    """The fields of the EXIF block's own first table that describe the picture, pointers included."""
    block = Structure(lambda at, count: lead[at : at + count], len(lead))
    main = block.table(block.first)
    fields = block.fields(main) if main is not None else []
    return {field.tag: field for field in fields if field.tag not in STRUCTURAL_TAGS}


def _moved(exif: bytes, at: int, *, big: bool) -> tuple[bytes, dict[int, Field]]:
    """The EXIF and GPS tables laid out again for file offset `at`, little-endian, and IFD0's fields that point to
    them."""
    block = Structure(lambda start, count: exif[start : start + count], len(exif))
    main = block.table(block.first)
    if main is None:
        return b"", {}
    described = {field.tag: field for field in _little(block, main) if field.tag not in STRUCTURAL_TAGS}
    tail = b""
    for pointer in (EXIF_IFD, GPS_IFD):
        described.pop(pointer, None)
        table = block.sub_table(main, pointer)
        if table is None:
            continue
        start = at + len(tail)
        fields = [field for field in _little(block, table) if field.tag != INTEROP_IFD]
        tail += table_bytes("<", fields, start, big=big)
        tail += b"\0" * (len(tail) % 2)
        described[pointer] = number_field("<", pointer, LONG8 if big else LONG, start)
    return tail, described


def _little(block: Structure, table: Table) -> list[Field]:
    fields = classic(block.fields(table))
    return fields if block.order == "<" else [turned(field) for field in fields]
