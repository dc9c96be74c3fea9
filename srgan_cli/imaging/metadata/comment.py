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
    first_table,
    number_field,
    with_table,
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
    own, at = with_table(exif, structure, structure.sub_table(main, EXIF_IFD), comment)
    own, first = with_table(own, structure, main, number_field(structure.order, EXIF_IFD, LONG, at))
    return own[:4] + struct.pack(structure.order + "I", first) + own[8:]
