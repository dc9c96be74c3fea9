"""PNG text stored in an EXIF block's UserComment, where programs that make pictures from prompts look for it in JPEG
and WebP.

It is encoded as these programs do: UTF-16 big-endian, regardless of the block's byte order.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata.exif import block
from srgan_cli.imaging.metadata.ifd import (
    EXIF_IFD,
    LONG,
    UNDEFINED,
    Field,
    Structure,
    Table,
    first_table,
    number_field,
    table_bytes,
)

_COMMENT = 0x9286
_UNICODE = b"UNICODE\0"


def with_text(metadata: Metadata) -> Metadata | None:
    """The metadata with its text as a comment; None if the EXIF block is not valid."""
    text = metadata.text[0][1] if len(metadata.text) == 1 else "\n".join(f"{k}: {v}" for k, v in metadata.text)
    value = _UNICODE + text.encode("utf-16-be", "replace")
    comment = Field(_COMMENT, UNDEFINED, len(value), value)
    exif = _made(comment) if not metadata.exif else _added(metadata.exif, comment)
    return None if exif is None else replace(metadata, exif=exif, text=())


def _made(comment: Field) -> bytes:
    head = b"MM\0*" + struct.pack(">I", 8)
    return block(Structure(lambda at, count: head[at : at + count], len(head)), [], [(EXIF_IFD, [comment])])


def _added(exif: bytes, comment: Field) -> bytes | None:
    """No byte of the block moves: the two tables are repeated after its end, and the old ones are no longer
    referenced."""
    found = first_table(exif)
    if found is None:
        return None
    structure, main = found
    details = structure.sub_table(main, EXIF_IFD)
    own = exif + b"\0" * (len(exif) % 2)
    at = len(own)
    rows = [] if details is None else _rows(exif, structure, details)
    own += _repeated(structure, rows, comment, at, following=0)
    pointer = number_field(structure.order, EXIF_IFD, LONG, at)
    first = len(own)
    own += _repeated(structure, _rows(exif, structure, main), pointer, first, following=main.next_offset)
    return own[:4] + struct.pack(structure.order + "I", first) + own[8:]


def _rows(exif: bytes, structure: Structure, table: Table) -> list[tuple[int, bytes]]:
    """Tag and 12 bytes of each row, unchanged; values stay where they are."""
    rows = [exif[table.at + 2 + 12 * index :][:12] for index in range(table.declared)]
    return [(int(struct.unpack(structure.order + "H", row[:2])[0]), row) for row in rows]


def _repeated(structure: Structure, rows: list[tuple[int, bytes]], field: Field, at: int, *, following: int) -> bytes:
    """A table for offset `at` with `rows` and `field`, padded to an even length."""
    order = structure.order
    kept = [(tag, row) for tag, row in rows if tag != field.tag]
    alone = table_bytes(order, [field], at + 12 * len(kept))  # its value comes after all rows
    kept.append((field.tag, alone[2:14]))
    table = struct.pack(order + "H", len(kept)) + b"".join(row for _, row in sorted(kept, key=lambda one: one[0]))
    whole = table + struct.pack(order + "I", following) + alone[18:]
    return whole + b"\0" * (len(whole) % 2)
