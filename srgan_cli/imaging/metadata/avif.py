"""Putting EXIF and XMP into an AVIF file written by libvips (libheif): two more items in its `meta` box.

ISO/IEC 14496-12 (boxes, `iloc`, `iinf`, `iref`) and 23008-12 annex A (EXIF and XMP items).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from srgan_cli.imaging.image import Metadata

_Box = tuple[bytes, bytes]  # type and contents


@dataclass(frozen=True)
class _Item:
    """A row of `iloc`: the location of an item's bytes. With `method` 0, offsets count from the start of the file."""

    number: int
    method: int
    reference: int
    extents: tuple[tuple[int, int], ...]  # offset, length


def avif_file(bare: bytes, metadata: Metadata) -> bytes:
    """`bare` with the EXIF and XMP of `metadata` and its numeric colour description (PNG's `cICP`); `bare` itself if
    there are none."""
    payloads: list[tuple[bytes, bytes]] = []
    if metadata.exif:
        # Four bytes give the distance from their end to the TIFF structure.
        payloads.append((b"Exif", b"\0\0\0\0" + metadata.exif))
    if metadata.xmp:
        payloads.append((b"mime", metadata.xmp))
    numbers = dict(metadata.colour).get("cICP", b"")
    if not payloads and len(numbers) != 4:
        return bare
    boxes = _boxes(bare)
    old = next(contents for kind, contents in boxes if kind == b"meta")
    # The boxes' sizes do not depend on the offsets in them, so a first pass gives the distance by which everything
    # moves.
    grown = len(_meta(old, payloads, numbers, 0, 0)) - len(old)
    new = _meta(old, payloads, numbers, grown, len(bare) + grown + 8)
    body = [(kind, new if kind == b"meta" else contents) for kind, contents in boxes]
    return _joined([*body, (b"mdat", b"".join(data for _, data in payloads))] if payloads else body)


def _boxes(data: bytes) -> list[_Box]:
    found = []
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", data[at + 8 : at + 16])[0], 16
        end = at + size if size else len(data)
        # A 64-bit header would become shorter when rewritten, and move everything after it.
        assert head == 8, "libheif wrote a box of more than 4 GiB"
        found.append((kind, data[at + head : end]))
        at = end
    return found


def _joined(boxes: list[_Box]) -> bytes:
    return b"".join(struct.pack(">I", len(contents) + 8) + kind + contents for kind, contents in boxes)


def _meta(old: bytes, payloads: list[tuple[bytes, bytes]], numbers: bytes, grown: int, data_at: int) -> bytes:
    """The contents of `meta` with the new items. Offsets after it move by `grown`; the new data starts at `data_at`."""
    parts = dict(_boxes(old[4:]))
    items = [
        _Item(item.number, item.method, item.reference, _moved(item, grown)) for item in _locations(parts[b"iloc"])
    ]
    primary = struct.unpack(">H" if parts[b"pitm"][0] == 0 else ">I", parts[b"pitm"][4:])[0]
    names, references = parts[b"iinf"], parts.get(b"iref", b"\0\0\0\0")
    number = max(item.number for item in items)
    for kind, data in payloads:
        number += 1
        items.append(_Item(number, 0, 0, ((data_at, len(data)),)))
        data_at += len(data)
        names = _named(names, number, kind)
        references = _described(references, number, primary)
    if len(numbers) == 4:
        parts[b"iprp"] = _coloured(parts[b"iprp"], primary, numbers)
    parts |= {b"iloc": _location_box(items), b"iinf": names, b"iref": references}
    return old[:4] + _joined(list(parts.items()))


def _moved(item: _Item, by: int) -> tuple[tuple[int, int], ...]:
    return tuple((at + (by if item.method == 0 else 0), size) for at, size in item.extents)


def _locations(iloc: bytes) -> list[_Item]:
    version = iloc[0]
    offset_bytes, length_bytes = iloc[4] >> 4, iloc[4] & 15
    base_bytes, index_bytes = iloc[5] >> 4, iloc[5] & 15 if version else 0
    at = 6

    def take(count: int) -> int:
        nonlocal at
        at += count
        return int.from_bytes(iloc[at - count : at], "big")

    items = []
    for _ in range(take(4 if version == 2 else 2)):
        number = take(4 if version == 2 else 2)
        method = take(2) & 15 if version else 0
        reference = take(2)
        base = take(base_bytes)
        extents = []
        for _ in range(take(2)):
            take(index_bytes)
            start = base + take(offset_bytes)
            extents.append((start, take(length_bytes)))
        items.append(_Item(number, method, reference, tuple(extents)))
    return items


def _location_box(items: list[_Item]) -> bytes:
    rows = [struct.pack(">BxxxBBH", 1, 0x44, 0x00, len(items))]
    for item in items:
        rows.append(struct.pack(">HHHH", item.number, item.method, item.reference, len(item.extents)))
        rows += [struct.pack(">II", at, size) for at, size in item.extents]
    return b"".join(rows)


def _named(iinf: bytes, number: int, kind: bytes) -> bytes:
    """`iinf` with one more entry."""
    entry = b"\2\0\0\0" + struct.pack(">HH4s", number, 0, kind) + b"\0"
    if kind == b"mime":
        entry += b"application/rdf+xml\0"
    code = ">H" if iinf[0] == 0 else ">I"
    width = struct.calcsize(code)
    count = struct.unpack(code, iinf[4 : 4 + width])[0]
    return iinf[:4] + struct.pack(code, count + 1) + iinf[4 + width :] + _joined([(b"infe", entry)])


def _described(iref: bytes, number: int, primary: int) -> bytes:
    """`iref` with one more reference: item `number` describes (`cdsc`) the primary picture."""
    code = ">HHH" if iref[0] == 0 else ">IHI"
    return iref + _joined([(b"cdsc", struct.pack(code, number, 1, primary))])


# What libheif uses by default: BT.601's matrix, full range.
_MATRIX, _FULL_RANGE = 6, 0x80


def _coloured(iprp: bytes, primary: int, numbers: bytes) -> bytes:
    """`iprp` with a `colr` property of type `nclx` for the primary picture: added, or its existing one changed."""
    nclx = b"nclx" + struct.pack(">HHHB", numbers[0], numbers[1], _MATRIX, _FULL_RANGE)
    (_, properties), (_, associations), *rest = _boxes(iprp)
    boxes = _boxes(properties)
    has_one = any(kind == b"colr" and data[:4] == b"nclx" for kind, data in boxes)
    if has_one:
        boxes = [(kind, nclx if kind == b"colr" and data[:4] == b"nclx" else data) for kind, data in boxes]
    else:
        boxes.append((b"colr", nclx))
        associations = _associated(associations, primary, len(boxes))
    return _joined([(b"ipco", _joined(boxes)), (b"ipma", associations), *rest])


def _associated(ipma: bytes, item: int, index: int) -> bytes:
    """`ipma` with property `index`, counted from 1, added to those of `item`, as not essential."""
    id_bytes, wide = 2 if ipma[0] == 0 else 4, ipma[3] & 1
    at = 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        count_at = at + id_bytes
        end = count_at + 1 + ipma[count_at] * (1 + wide)
        if int.from_bytes(ipma[at:count_at], "big") == item:
            return ipma[:count_at] + bytes([ipma[count_at] + 1]) + ipma[count_at + 1 : end] + index.to_bytes(
                1 + wide, "big") + ipma[end:]  # fmt: skip
        at = end
    return ipma
