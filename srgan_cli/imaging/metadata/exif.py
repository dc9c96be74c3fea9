"""Editing an EXIF block without moving a byte of it.

Maker notes are full of undocumented offsets that count from the start of the block. So values are changed in place,
removed data is overwritten with zeros, and everything else stays where it was.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable

from srgan_cli.imaging.metadata.geometry import Geometry
from srgan_cli.imaging.metadata.ifd import (
    EXIF_IFD,
    GPS_IFD,
    INTEROP_IFD,
    LONG,
    RATIONAL,
    SHORT,
    Field,
    IfdEntry,
    Structure,
    Table,
    number_field,
    table_bytes,
)
from srgan_cli.imaging.metadata.xmp import area_px

_ORIENTATION = 0x0112
_IMAGE_SIZE = (0x0100, 0x0101)  # ImageWidth, ImageLength
_PIXEL_DIMENSIONS = (0xA002, 0xA003)
_RESOLUTION = (0x011A, 0x011B)  # XResolution, YResolution
_RESOLUTION_UNIT, _INCH = 0x0128, 2
_THUMBNAIL = (0x0201, 0x0202)  # JPEGInterchangeFormat and its length
_STRIPS = (0x0111, 0x0117)  # StripOffsets, StripByteCounts: an uncompressed thumbnail

# Tags on how the pixels of one particular file are stored. They must not be carried into another file; resolution,
# profile and XMP travel separately in `Metadata`.
STRUCTURAL_TAGS = frozenset(
    {0x00FE, 0x00FF, 0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0107, 0x0108, 0x0109, 0x010A, 0x0111, 0x0112, 0x0115}
    | {0x0116, 0x0117, 0x0118, 0x0119, 0x011A, 0x011B, 0x011C, 0x0120, 0x0121, 0x0122, 0x0123, 0x0124, 0x0125, 0x0128}
    | {0x012D, 0x013D, 0x0140, 0x0141, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A, 0x014C, 0x014D, 0x014E, 0x0150, 0x0152}
    | {0x0153, 0x0154, 0x0155, 0x0156, 0x015B, 0x0200, 0x0201, 0x0202, 0x0203, 0x0205, 0x0206, 0x0207, 0x0208, 0x0209}
    | {0x0211, 0x0212, 0x0213, 0x0214, 0x02BC, 0x8773, 0x935C, 0x8649, 0x83BB}
)

_MAX_PLAIN_BYTES = 60_000
_MAX_BLOCK_BYTES = 4 << 20

# Values in px, see `_follow`.
_SUBJECT = (0x9214, 0xA214)  # SubjectArea, SubjectLocation
_FOCAL_PLANE = (0xA20E, 0xA20F)  # FocalPlaneXResolution, FocalPlaneYResolution
_GEO_SCALE, _GEO_POINTS, _GEO_MATRIX = 33550, 33922, 34264
_NUMBERS = {3: "H", 4: "I", 5: "II", 9: "i", 11: "f", 12: "d"}
_MAX_NUMBERS = 6 * 4096

_Range = tuple[int, int]


def _as_rational(value: float) -> tuple[int, int]:
    bottom = next((bottom for bottom in (10_000, 100, 1) if value * bottom < 2**32 - 1), 1)
    return round(value * bottom), bottom


class _Patch:
    """The block being edited: the only mutable state of this module."""

    def __init__(self, exif: bytes) -> None:
        self.data = bytearray(exif)
        self.structure = Structure(lambda at, count: bytes(self.data[at : at + count]), len(exif))

    def set_number(self, entry: IfdEntry | None, value: int) -> None:
        """Set `entry` to one SHORT or LONG of `value`; both fit into the four bytes of the entry itself."""
        if entry is None:
            return
        kind = LONG if value > 0xFFFF or entry.kind != SHORT else SHORT
        order = self.structure.order
        number = struct.pack(order + ("I" if kind == LONG else "H"), value).ljust(4, b"\0")
        self.data[entry.at : entry.at + 12] = struct.pack(order + "HHI", entry.tag, kind, 1) + number

    def set_ratio(self, entry: IfdEntry | None, value: float) -> None:
        """Write `value`, to a hundredth, over an unsigned RATIONAL, whose eight bytes are elsewhere in the block."""
        if entry is None or entry.kind != RATIONAL or entry.count != 1 or entry.value_at + 8 > len(self.data):
            return
        ratio = struct.pack(self.structure.order + "II", round(value * 100), 100)
        self.data[entry.value_at : entry.value_at + 8] = ratio

    def value(self, entry: IfdEntry) -> float:
        """The first number of a field; 0 if there is none."""
        values = self.values(entry)
        return values[0] if values else 0.0

    def values(self, entry: IfdEntry) -> list[float]:
        code = _NUMBERS.get(entry.kind)
        if code is None or entry.count > _MAX_NUMBERS:
            return []
        data = self.structure.value(entry)
        if len(data) != entry.size:
            return []
        if entry.kind == RATIONAL:
            parts = struct.unpack(f"{self.structure.order}{2 * entry.count}I", data)
            return [top / bottom if bottom else 0.0 for top, bottom in zip(parts[::2], parts[1::2], strict=True)]
        return list(map(float, struct.unpack(f"{self.structure.order}{entry.count}{code}", data)))

    def set_values(self, entry: IfdEntry | None, change: Callable[[list[float]], list[float] | None]) -> None:
        """Replace the numbers of `entry` by the result of `change`.

        If there is no result (None), or it does not fit into the type, zeros are written: no position is better than a
        wrong one.
        """
        values = [] if entry is None else self.values(entry)
        if entry is None or not values:
            return
        changed = change(values) or [0.0] * len(values)
        order, code = self.structure.order, _NUMBERS[entry.kind]
        try:
            if entry.kind == RATIONAL:
                data = b"".join(struct.pack(order + "II", *_as_rational(value)) for value in changed)
            elif code in "fd":
                data = struct.pack(f"{order}{entry.count}{code}", *changed)
            else:
                data = struct.pack(f"{order}{entry.count}{code}", *map(round, changed))
        except (struct.error, OverflowError, ValueError):
            data = bytes(entry.size)
        self.data[entry.value_at : entry.value_at + entry.size] = data

    def ranges(self, table: Table) -> list[_Range]:
        """The bytes that belong to `table`: its rows, and its values elsewhere."""
        own = [(table.at, table.next_at + 4)]
        return own + [(e.value_at, e.value_at + e.size) for e in table.entries if e.size > 4]

    def zero(self, ranges: list[_Range], keep: list[_Range]) -> None:
        """Overwrite `ranges`, except those that overlap what is kept, so that a damaged block is not damaged
        further."""
        kept = _merged(keep)
        starts = [low for low, _ in kept]
        free = []
        for start, end in ranges:
            after = bisect_right(starts, end - 1)  # the last kept range that begins before the end
            if after == 0 or kept[after - 1][1] <= start:
                free.append((start, end))
        for start, end in _merged(free):  # each byte only once
            self.data[start:end] = bytes(len(self.data[start:end]))

    def remove(self, table: Table, entry: IfdEntry) -> Table:
        """Remove `entry` from `table`: the rows after it move up, and so does the link to the next table."""
        end = min(table.next_at + 4, len(self.data))
        rest = bytes(self.data[entry.at + 12 : end])
        self.data[entry.at : end] = rest.ljust(end - entry.at, b"\0")
        self.data[table.at : table.at + 2] = struct.pack(self.structure.order + "H", table.declared - 1)
        changed = self.structure.table(table.at)
        assert changed is not None
        return changed

    def thumbnail_ranges(self, table: Table) -> list[_Range]:
        found = []
        for starts_tag, sizes_tag in (_THUMBNAIL, _STRIPS):
            starts = self.structure.numbers(table.find(starts_tag))
            sizes = self.structure.numbers(table.find(sizes_tag))
            found += [
                (start, min(start + size, len(self.data)))
                for start, size in zip(starts, sizes, strict=False)
                if 8 <= start < len(self.data)
            ]
        return found


def _merged(ranges: Iterable[_Range]) -> list[_Range]:
    """The same bytes as sorted ranges that do not touch."""
    merged: list[_Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif start < end:
            merged.append((start, end))
    return merged


def patched(exif: bytes, geometry: Geometry, *, drop_gps: bool = False, dpi: float | None = None) -> bytes | None:
    """The block for the upright result, without a thumbnail; None if the block is not valid.

    Orientation becomes 1. The sizes, the resolution (if `dpi` is given) and other values in px (see `_follow`) are
    updated if the block has them; nothing is added. All offsets stay valid. The result is shorter only if the thumbnail
    was at the block's end.
    """
    try:
        patch = _Patch(exif)
    except ValueError:
        return None
    structure = patch.structure
    main = None if structure.big else structure.table(structure.first)
    if main is None:
        return None
    patch.set_number(main.find(_ORIENTATION), 1)
    details = structure.sub_table(main, EXIF_IFD)
    for table, tags in ((main, _IMAGE_SIZE), (details, _PIXEL_DIMENSIONS)):
        if table is not None:
            patch.set_number(table.find(tags[0]), geometry.width)
            patch.set_number(table.find(tags[1]), geometry.height)
            _follow(patch, table, geometry)
    if dpi is not None:
        for tag in _RESOLUTION:
            patch.set_ratio(main.find(tag), dpi)
        patch.set_number(main.find(_RESOLUTION_UNIT), _INCH)
    if drop_gps:
        main = _without_gps(patch, main, details)
    _drop_thumbnail(patch, main, details)
    return bytes(patch.data)


def _follow(patch: _Patch, table: Table, geometry: Geometry) -> None:
    """Positions and densities in px: of the subject and the sensor (EXIF 2.32), and on the ground (GeoTIFF 1.1)."""
    for tag in _SUBJECT:
        patch.set_values(table.find(tag), lambda values: area_px(values, geometry) if 2 <= len(values) <= 4 else None)
    across, down = (table.find(tag) for tag in _FOCAL_PLANE)
    if across is not None and down is not None:
        both = geometry.densities(patch.value(across), patch.value(down))
        patch.set_values(across, lambda _: [both[0]])
        patch.set_values(down, lambda _: [both[1]])
    upright = geometry.orientation == 1
    a, d = geometry.across, geometry.down
    # Maps are not normally stored rotated. If one is, its scale tag cannot express that, and is cleared.
    patch.set_values(
        table.find(_GEO_SCALE), lambda v: [v[0] / a, v[1] / d, *v[2:]] if upright and len(v) == 3 else None
    )
    patch.set_values(
        table.find(_GEO_POINTS),
        lambda v: [x * (a, d)[i % 6] if i % 6 < 2 else x for i, x in enumerate(v)] if upright else None,
    )
    patch.set_values(
        table.find(_GEO_MATRIX),
        lambda v: (
            [x / (a, d)[i % 4] if i % 4 < 2 else x for i, x in enumerate(v)] if upright and len(v) == 16 else None
        ),
    )


def _kept(patch: _Patch, *tables: Table | None) -> list[_Range]:
    kept: list[_Range] = [(0, 8)]
    for table in tables:
        if table is not None:
            kept += patch.ranges(table)
    return kept


def _without_gps(patch: _Patch, main: Table, details: Table | None) -> Table:
    entry = main.find(GPS_IFD)
    if entry is None:
        return main
    gps = patch.structure.sub_table(main, GPS_IFD)
    if gps is not None and gps.at != main.at:
        patch.zero(patch.ranges(gps), _kept(patch, main, details))
    return patch.remove(main, entry)


def _drop_thumbnail(patch: _Patch, main: Table, details: Table | None) -> None:
    """Unlink IFD1 and overwrite it and its picture, which shows the old picture and takes up to 64 KB."""
    small = patch.structure.table(main.next_offset) if main.next_offset else None
    if not main.next_offset:
        return
    patch.data[main.next_at : main.next_at + 4] = bytes(4)
    if small is None or small.at == main.at:
        return
    gps = patch.structure.sub_table(main, GPS_IFD)
    interop = patch.structure.sub_table(details, INTEROP_IFD) if details is not None else None
    keep = _kept(patch, main, details, gps, interop)
    pictures = patch.thumbnail_ranges(small)
    patch.zero([*pictures, *patch.ranges(small)], keep)
    last = max((high for _, high in keep), default=8)
    for start, end in pictures:
        if end == len(patch.data) and start >= last and not any(patch.data[start:end]):
            del patch.data[start:]
            break


def orientation(exif: bytes | None) -> int:
    """1 to 8 as in the EXIF standard; 1 if missing or invalid."""
    try:
        structure = Structure(lambda at, count: (exif or b"")[at : at + count], len(exif or b""))
    except ValueError:
        return 1
    main = structure.table(structure.first)
    value = structure.number(main, _ORIENTATION) if main is not None else None
    return value if value is not None and 1 <= value <= 8 else 1


def classic(fields: list[Field]) -> list[Field]:
    """The fields whose types exist in classic TIFF: all but BigTIFF's 64-bit integers."""
    return [field for field in fields if field.kind not in (16, 17, 18)]


def from_tiff(structure: Structure) -> bytes | None:
    """The metadata in IFD0 of a TIFF file as a bare EXIF block; None if there is none.

    The values move, so maker notes whose offsets count from the start of the file break. TIFF files with such notes are
    rare (cameras write them into JPEG and raw files).
    """
    main = structure.table(structure.first)
    if main is None:
        return None
    plain = [
        field
        # Large private fields (a Photoshop layer tree, GeoTIFF grids) describe the old pixels.
        for field in classic(structure.fields(main, max_bytes=_MAX_PLAIN_BYTES))
        if field.tag not in STRUCTURAL_TAGS | {EXIF_IFD, GPS_IFD}
    ]
    plain = _within(plain)
    details = structure.sub_table(main, EXIF_IFD)
    gps = structure.sub_table(main, GPS_IFD)
    if not plain and details is None and gps is None:
        return None
    tables: list[tuple[int, list[Field]]] = []
    for pointer, table in ((EXIF_IFD, details), (GPS_IFD, gps)):
        if table is not None:
            fields = _within(classic(structure.fields(table, max_bytes=_MAX_BLOCK_BYTES)))
            tables.append((pointer, [field for field in fields if field.tag != INTEROP_IFD]))
    return block(structure, plain, tables)


def _within(fields: list[Field]) -> list[Field]:
    """As many of the fields as fit into the bytes of a valid file: overlapping values could be listed again and
    again."""
    kept, room = [], _MAX_BLOCK_BYTES
    for field in fields:
        room -= len(field.value)
        if room < 0:
            break
        kept.append(field)
    return kept


def block(structure: Structure, plain: list[Field], tables: list[tuple[int, list[Field]]]) -> bytes:
    """A TIFF structure of IFD0 (`plain`) and the tables it points to, in the byte order of `structure`."""
    order = structure.order
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    body = bytearray()
    room = len(table_bytes(order, [*plain, *(number_field(order, tag, LONG, 0) for tag, _ in tables)], 8))
    room += room % 2
    links = []
    for pointer, fields in tables:
        at = 8 + room + len(body)
        links.append(number_field(order, pointer, LONG, at))
        body += table_bytes(order, fields, at)
        body += b"\0" * (len(body) % 2)
    first = table_bytes(order, [*plain, *links], 8)
    return head + first.ljust(room, b"\0") + bytes(body)
