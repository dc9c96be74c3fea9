"""JPEG inside a TIFF's tiles: whether each tile is whole. libvips decodes such tiles itself, and gives grey for what is
missing at their end without a word, where its reader of JPEG files would refuse it.

TIFF Technical Note 2 (1995): each tile is a JPEG stream of its own, whose tables may stand in one field for all.
"""

from __future__ import annotations

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.decoding import NOT_FOR_US, with_vips
from srgan_cli.imaging.metadata.ifd import Structure, Table
from srgan_cli.imaging.oddities import HARMLESS
from srgan_cli.imaging.sources import Source, vips_module

_TILE_OFFSETS, _TILE_COUNTS, _TABLES = 324, 325, 347
_MAX_TILE_BYTES = 64 << 20


def lost(source: Source, structure: Structure, table: Table) -> str:
    """What is wrong with the first tile that is not whole; nothing where all are, or where libvips will say it.

    Each tile is decoded once more for it, which takes a small part of the time that a network takes.
    """
    entry = table.find(_TABLES)
    tables = structure.value(entry)[:-2] if entry is not None else b""  # without the marker of its end
    offsets, counts = (structure.numbers(table.find(tag)) for tag in (_TILE_OFFSETS, _TILE_COUNTS))
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=False), start=1):
        if 2 < count <= _MAX_TILE_BYTES:
            data = source.read_at(offset, count)
            if reason := _damage(tables + data[2:] if tables else data):
                return f"tile {number}: {reason}"
    return ""


def _damage(stream: bytes) -> str:
    def decode() -> None:
        vips_module().Image.jpegload_buffer(stream, fail_on="warning", access="sequential").write_to_memory()

    try:
        with_vips("", decode, lambda _, reason: UnreadablePictureError(reason.removeprefix(": ")))
    except UnreadablePictureError as err:
        said = str(err)
        return "" if HARMLESS.search(said) or NOT_FOR_US.search(said) else said
    return ""
