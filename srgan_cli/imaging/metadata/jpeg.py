"""What a JPEG file carries that libvips does not hand over: Extended XMP, and further pictures behind the first.

XMP specification part 3 (2020), 1.1.3.1 (Extended XMP); CIPA DC-007 (Multi-Picture Format).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from srgan_cli.imaging.metadata.ifd import Structure
from srgan_cli.imaging.metadata.markup import elements
from srgan_cli.imaging.sources import Source

_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_MPF = b"MPF\0"
_IMAGES = 0xB001
_RDF = ("http://www.w3.org/1999/02/22-rdf-syntax-ns#", "RDF")
_PART_BYTES = 65_000
_MAX_SEGMENTS = 4000
_MAX_BYTES = 16 << 20
_STUB = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{}"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def _segments(source: Source) -> Iterator[tuple[int, int, int]]:
    """Marker, place and size of the contents of each segment before the first scan."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        head = source.read_at(at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            return
        size = int.from_bytes(head[2:], "big")
        yield head[1], at + 4, max(size - 2, 0)
        at += 2 + max(size, 2)


def whole_xmp(source: Source, packet: bytes | None) -> bytes | None:
    """The XMP of a file with its extension in it, where it has one that fits; else `packet` as it is."""
    if not packet or b"HasExtendedXMP" not in packet:
        return packet
    parts: dict[bytes, bytearray] = {}
    room = _MAX_BYTES
    for marker, at, size in _segments(source):
        if marker != 0xE1 or source.read_at(at, len(_EXTENSION)) != _EXTENSION:
            continue
        head = source.read_at(at + len(_EXTENSION), 40)
        guid, total, offset = head[:32], int.from_bytes(head[32:36], "big"), int.from_bytes(head[36:40], "big")
        data = source.read_at(at + len(_EXTENSION) + 40, size - len(_EXTENSION) - 40)
        room -= len(data)
        if room < 0 or guid not in packet or total > _MAX_BYTES or offset + len(data) > total:
            return packet
        whole = parts.setdefault(guid, bytearray(total))
        if len(whole) == total:
            whole[offset : offset + len(data)] = data
    for guid, whole in parts.items():
        if hashlib.md5(whole, usedforsecurity=False).hexdigest().upper().encode() == guid.upper():
            return _joined(packet, bytes(whole))
    return packet


def _joined(packet: bytes, extension: bytes) -> bytes:
    """The descriptions of the extension behind those of the packet."""
    try:
        text, more = packet.decode(), extension.decode()
        own, other = (next(one for one in elements(part) if one.name == _RDF) for part in (text, more))
    except (ValueError, StopIteration):
        return packet
    return (text[: own.inner_end] + more[other.inner : other.inner_end] + text[own.inner_end :]).encode()


def extended(packet: bytes) -> list[bytes]:
    """The contents of APP1 segments for a packet that is too large for one: a short one that refers to the rest."""
    guid = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    found = [b"http://ns.adobe.com/xap/1.0/\0" + _STUB.format(guid).encode()]
    for at in range(0, len(packet), _PART_BYTES):
        head = _EXTENSION + guid.encode() + len(packet).to_bytes(4, "big") + at.to_bytes(4, "big")
        found.append(head + packet[at : at + _PART_BYTES])
    return found


def pictures(source: Source) -> int:
    """How many pictures the file says it holds (a stereo pair, a gain map beside its picture); 1 mostly."""
    for marker, at, size in _segments(source):
        if marker == 0xE2 and source.read_at(at, 4) == _MPF:
            return _counted(source.read_at(at + 4, size - 4))
    return 1


def _counted(block: bytes) -> int:
    try:
        structure = Structure(lambda at, count: block[at : at + count], len(block))
    except ValueError:
        return 1
    table = structure.table(structure.first)
    return 1 if table is None else max(1, min(structure.number(table, _IMAGES) or 1, 1000))
