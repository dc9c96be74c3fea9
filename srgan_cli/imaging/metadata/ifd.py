"""The tables (IFDs) that TIFF files and EXIF blocks consist of: classic and BigTIFF, both byte orders.

The input may be hostile: every offset, count and chain is checked before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

ReadAt = Callable[[int, int], bytes]
Order = Literal["<", ">"]

# Bytes per value of each field type. 13 (IFD) to 18 (IFD8) are from the supplements and BigTIFF.
TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
# sizes of the units whose bytes are swapped between byte orders: a rational is two longs
_UNIT_BYTES = {**TYPE_BYTES, 5: 4, 10: 4}
_NUMBER_CODE = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 3, 4, 5, 7, 16
EXIF_IFD, GPS_IFD, INTEROP_IFD, SUB_IFDS = 0x8769, 0x8825, 0xA005, 0x014A

_MAX_ENTRIES = 4096  # real tables have tens of entries; a garbage table must not take a second
_MAX_VALUE_BYTES = 64 << 20
_WORK = 10  # maximum bytes read per byte of the file


@dataclass(frozen=True)
class IfdEntry:
    """One field: the offsets of its 12 (BigTIFF 20) bytes and of its value (inside them if it is short)."""

    tag: int
    kind: int
    count: int
    at: int
    value_at: int

    @property
    def size(self) -> int:
        return TYPE_BYTES[self.kind] * self.count


@dataclass(frozen=True)
class Table:
    """One IFD: its valid entries, and the offset of the next one (0: none)."""

    at: int
    entries: tuple[IfdEntry, ...]
    declared: int
    next_at: int
    next_offset: int

    def find(self, tag: int) -> IfdEntry | None:
        return next((entry for entry in self.entries if entry.tag == tag), None)


@dataclass(frozen=True)
class Field:
    """A field extracted from its file: `value` is in the byte order of the `Structure` it came from."""

    tag: int
    kind: int
    count: int
    value: bytes


class Structure:
    """A TIFF structure that is read through `read_at`. Raises `ValueError` if its start is not valid."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self.read_at = read_at
        self.size = size
        # Tables and values may overlap, and be listed thousands of times, so the total number of bytes read is limited
        # by the file's size.
        self._left = _WORK * max(size, 64)
        head = read_at(0, 16)
        if head[:2] not in (b"II", b"MM"):
            raise ValueError("no TIFF byte order mark")
        self.order: Order = "<" if head[:2] == b"II" else ">"
        magic = self._unpack("H", head[2:4])
        self.big = magic == 43
        if magic not in (42, 43):
            raise ValueError("no TIFF magic number")
        self.first = self._unpack("Q", head[8:16]) if self.big else self._unpack("I", head[4:8])
        self.entry_bytes = 20 if self.big else 12

    def _unpack(self, code: str, data: bytes) -> int:
        if len(data) < struct.calcsize(code):
            raise ValueError("the structure ends too early")
        return int(struct.unpack(self.order + code, data)[0])

    def table(self, offset: int) -> Table | None:
        """The IFD at `offset`, or None if that is impossible. Entries that point outside the file are left out."""
        count_bytes, link_bytes = (8, 8) if self.big else (2, 4)
        if offset < 8 or offset + count_bytes > self.size:
            return None
        declared = self._unpack("Q" if self.big else "H", self.read_at(offset, count_bytes))
        start = offset + count_bytes
        next_at = start + declared * self.entry_bytes
        if declared > _MAX_ENTRIES or next_at > self.size or not self._may_read(next_at - offset):
            return None
        rows = self.read_at(start, declared * self.entry_bytes)
        found = [self._entry(rows, start, index) for index in range(declared)]
        link = self.read_at(next_at, link_bytes)
        following = self._unpack("Q" if self.big else "I", link) if len(link) == link_bytes else 0
        return Table(offset, tuple(entry for entry in found if entry is not None), declared, next_at, following)

    def _entry(self, rows: bytes, start: int, index: int) -> IfdEntry | None:
        row = rows[index * self.entry_bytes : (index + 1) * self.entry_bytes]
        tag, kind = struct.unpack(self.order + "HH", row[:4])
        inline = 8 if self.big else 4
        count = self._unpack("Q" if self.big else "I", row[4 : 4 + inline])
        if kind not in TYPE_BYTES:
            return None
        at = start + index * self.entry_bytes
        size = TYPE_BYTES[kind] * count
        value_at = at + 4 + inline
        if size > inline:
            value_at = self._unpack("Q" if self.big else "I", row[4 + inline :])
        if size > _MAX_VALUE_BYTES or value_at + size > self.size:
            return None
        return IfdEntry(tag, kind, count, at, value_at)

    def _may_read(self, count: int) -> bool:
        self._left -= count
        return self._left >= 0

    def value(self, entry: IfdEntry) -> bytes:
        """The bytes of a field; none once more has been read from this structure than a valid file would need."""
        return self.read_at(entry.value_at, entry.size) if self._may_read(entry.size) else b""

    def numbers(self, entry: IfdEntry | None) -> tuple[int, ...]:
        """The values of an unsigned integer field; empty for None and for any other type."""
        if entry is None or entry.kind not in _NUMBER_CODE:
            return ()
        data = self.value(entry)
        if len(data) != entry.size:
            return ()
        return tuple(struct.unpack(f"{self.order}{entry.count}{_NUMBER_CODE[entry.kind]}", data))

    def number(self, table: Table, tag: int) -> int | None:
        """The single value of an unsigned integer field."""
        values = self.numbers(table.find(tag))
        return values[0] if values else None

    def sub_table(self, table: Table, tag: int) -> Table | None:
        """The IFD that field `tag` points to."""
        offset = self.number(table, tag)
        return None if offset is None else self.table(offset)

    def fields(self, table: Table, *, max_bytes: int | None = None) -> list[Field]:
        """All fields that can be read, except those of more than `max_bytes`."""
        wanted = [entry for entry in table.entries if max_bytes is None or entry.size <= max_bytes]
        found = [Field(entry.tag, entry.kind, entry.count, self.value(entry)) for entry in wanted]
        return [field for field in found if len(field.value) == TYPE_BYTES[field.kind] * field.count]


def opened(read_at: ReadAt, size: int) -> tuple[Structure, Table] | None:
    """The structure behind `read_at` and its first IFD; None if it is not valid."""
    try:
        structure = Structure(read_at, size)
        table = structure.table(structure.first)
    except ValueError:
        return None
    return None if table is None else (structure, table)


def first_table(exif: bytes) -> tuple[Structure, Table] | None:
    """The structure of an EXIF block and its first IFD; None if the block is not valid or is a BigTIFF's."""
    found = opened(lambda at, count: exif[at : at + count], len(exif))
    return None if found is None or found[0].big else found


def turned(field: Field) -> Field:
    """The same field in the other byte order."""
    unit = _UNIT_BYTES[field.kind]
    if unit == 1:
        return field
    value = b"".join(field.value[at : at + unit][::-1] for at in range(0, len(field.value), unit))
    return Field(field.tag, field.kind, field.count, value)


def number_field(order: Order, tag: int, kind: int, *values: int) -> Field:
    """A field of unsigned integers; `kind` is `SHORT`, `LONG` or `LONG8`."""
    return Field(tag, kind, len(values), struct.pack(f"{order}{len(values)}{_NUMBER_CODE[kind]}", *values))


def table_bytes(order: Order, fields: Sequence[Field], at: int, *, big: bool = False, next_offset: int = 0) -> bytes:
    """A whole IFD for file offset `at` (even), followed by its long values. `fields` are in byte order `order`; they
    are sorted here.

    Raises `struct.error` if an offset of a classic TIFF exceeds 4 GiB.
    """
    inline = 8 if big else 4
    word = "Q" if big else "I"
    rows = [struct.pack(order + ("Q" if big else "H"), len(fields))]
    values: list[bytes] = []
    value_at = at + len(rows[0]) + len(fields) * (4 + 2 * inline) + inline
    for field in sorted(fields, key=lambda one: one.tag):
        row = struct.pack(f"{order}HH{word}", field.tag, field.kind, field.count)
        if len(field.value) <= inline:
            rows.append(row + field.value.ljust(inline, b"\0"))
            continue
        padding = b"\0" * (value_at % 2)  # values start at even offsets
        values.append(padding + field.value)
        rows.append(row + struct.pack(order + word, value_at + len(padding)))
        value_at += len(padding) + len(field.value)
    rows.append(struct.pack(order + word, next_offset))
    return b"".join(rows + values)


def with_table(block: bytes, structure: Structure, table: Table | None, field: Field) -> tuple[bytes, int]:
    """`block` followed by a copy of `table` (None: an empty one) with `field` added or replaced; and the copy's offset.

    No byte of the block moves, so the values that the copied rows refer to stay valid. `block` is a classic TIFF
    structure, and `field` is in its byte order. The caller has to link the copy.
    """
    order = structure.order
    block += b"\0" * (len(block) % 2)
    rows = [] if table is None else [block[table.at + 2 + 12 * index :][:12] for index in range(table.declared)]
    kept = [row for row in rows if _tag_of(order, row) != field.tag]
    # the new field's row, and its value, which comes after all rows
    alone = table_bytes(order, [field], len(block) + 12 * len(kept))
    kept = sorted([*kept, alone[2:14]], key=lambda row: _tag_of(order, row))
    following = 0 if table is None else table.next_offset
    head, link = struct.pack(order + "H", len(kept)), struct.pack(order + "I", following)
    return b"".join((block, head, *kept, link, alone[18:])), len(block)


def _tag_of(order: Order, row: bytes) -> int:
    return int(struct.unpack(order + "H", row[:2])[0])
