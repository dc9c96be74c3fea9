"""Checks whether each JPEG tile inside a TIFF is complete. libvips decodes such tiles itself and silently fills missing
data with grey, where its JPEG reader would report an error.

TIFF Technical Note 2 (1995): each tile is a JPEG stream; its tables may be in one field shared by all tiles.
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
    """What is wrong with the first incomplete tile; empty if all are complete, or if libvips reports the error itself.

    This decodes each tile once more, which takes a small fraction of the network's time.
    """
    entry = table.find(_TABLES)
    tables = structure.value(entry)[:-2] if entry is not None else b""  # without the end marker
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
