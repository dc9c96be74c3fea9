"""JPEG metadata that libvips does not provide: Extended XMP, comments, additional pictures after the first, and a list
of what cannot be carried over.

XMP specification part 3 (2020), 1.1.3.1 (Extended XMP); CIPA DC-007 (Multi-Picture Format); ISO/TS 21496-1 (gain maps);
JPEG XT part 3 (JUMBF in APP11). The directory that Samsung's cameras append is undocumented; its layout was derived
from files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from srgan_cli.imaging.metadata.ifd import Structure
from srgan_cli.imaging.metadata.markup import elements
from srgan_cli.imaging.sources import Source

_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
_MPF = b"MPF\0"
_IMAGES = 0xB001
_RDF = ("http://www.w3.org/1999/02/22-rdf-syntax-ns#", "RDF")
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1"
_COM = 0xFE
COMMENT = "Comment"  # PNG's keyword for the text of JPEG's comment segments
# Segments that are rewritten, handled elsewhere, or about the file's own coding: by marker, the first bytes of their
# contents.
_KNOWN = {
    0xE0: (b"JFIF\0", b"JFXX\0"),
    0xE1: (b"Exif\0", b"http://ns.adobe.com/xap/1.0/\0", _EXTENSION),
    0xE2: (b"ICC_PROFILE\0", _MPF, _GAIN_MAP),
    0xEC: (b"Ducky",),
    0xED: (b"Photoshop 3.0\0",),
    0xEE: (b"Adobe",),
}
_TITLES = {(0xE3, b"Meta"): "Kodak's", (0xE3, b"META"): "Kodak's", (0xE2, b"FPXR"): "FlashPix",
           (0xEB, b"JP"): "content credentials or other boxes"}  # fmt: skip
_SAMSUNG_MOTION = 0x0A30
_PART_BYTES = 65_000
_MAX_SEGMENTS = 4000
_MAX_BYTES = 16 << 20
_STUB = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="{}"/>'
    "</rdf:RDF></x:xmpmeta>"
)


def _segments(source: Source) -> Iterator[tuple[int, int, int]]:
    """Marker, offset and size of the contents of each segment before the first scan."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        head = source.read_at(at, 4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (0xDA, 0xD9):
            return
        size = int.from_bytes(head[2:], "big")
        yield head[1], at + 4, max(size - 2, 0)
        at += 2 + max(size, 2)


def whole_xmp(source: Source, packet: bytes | None) -> bytes | None:
    """The XMP of a file, merged with its extension if it has a matching one; otherwise `packet` unchanged."""
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
        if guid not in parts:
            room -= total
        if room < 0 or guid not in packet or offset + len(data) > total:
            return packet
        whole = parts.setdefault(guid, bytearray(total))
        if len(whole) == total:
            whole[offset : offset + len(data)] = data
    for guid, whole in parts.items():
        if hashlib.md5(whole, usedforsecurity=False).hexdigest().upper().encode() == guid.upper():
            return _joined(packet, bytes(whole))
    return packet


def _joined(packet: bytes, extension: bytes) -> bytes:
    """The extension's descriptions appended to those of the packet."""
    try:
        text, more = packet.decode(), extension.decode()
        own, other = (next(one for one in elements(part) if one.name == _RDF) for part in (text, more))
    except (ValueError, StopIteration):
        return packet
    return (text[: own.inner_end] + more[other.inner : other.inner_end] + text[own.inner_end :]).encode()


def extended(packet: bytes) -> list[bytes]:
    """Contents of APP1 segments for a packet that is too large for one: a short packet that refers to the rest."""
    guid = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    found = [b"http://ns.adobe.com/xap/1.0/\0" + _STUB.format(guid).encode()]
    for at in range(0, len(packet), _PART_BYTES):
        head = _EXTENSION + guid.encode() + len(packet).to_bytes(4, "big") + at.to_bytes(4, "big")
        found.append(head + packet[at : at + _PART_BYTES])
    return found


def pictures(source: Source) -> int:
    """How many pictures the file claims to hold (a stereo pair, a gain map beside its picture); usually 1."""
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


def comments(source: Source) -> tuple[tuple[str, str], ...]:
    """The texts of the file's comment segments, each with its keyword."""
    found = []
    for marker, at, size in _segments(source):
        if marker == _COM and size and (text := _decoded(source.read_at(at, size)).strip("\0 \r\n")):
            found.append((COMMENT, text))
    return tuple(dict.fromkeys(found))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def left_out(source: Source) -> tuple[str, ...]:
    """Sentences about the contents of unknown segments, or of data after the picture, that cannot be carried over."""
    unknown: dict[str, None] = {}
    notes: tuple[str, ...] = ()
    for marker, at, size in _segments(source):
        start = source.read_at(at, min(size, 40))
        if marker == 0xE2 and start.startswith(_GAIN_MAP):
            notes = ("its HDR gain map cannot be carried over",)
        elif 0xE0 <= marker <= 0xEF and size and not start.startswith(_KNOWN.get(marker, ())):
            unknown[_titled(marker, start)] = None
    if unknown:
        notes += (f"blocks of data from the camera or other programs cannot be carried over: {', '.join(unknown)}",)
    return notes if not _has_samsung_video(source) else (*notes, "the video of a motion photo cannot be carried over")


def _titled(marker: int, start: bytes) -> str:
    name = re.match(rb"[A-Za-z][\w .:/+-]*", start)
    word = "" if name is None else name[0][:20].decode()
    title = next((title for (of, begin), title in _TITLES.items() if of == marker and start.startswith(begin)), word)
    return f"APP{marker & 15}" + (f" ({title})" if title else "")


def _has_samsung_video(source: Source) -> bool:
    """Checks the directory at the file's end: "SEFH", version, count, entries of 12 bytes; its length; "SEFT"."""
    end = source.read_at(source.size - 8, 8)
    if end[4:] != b"SEFT":
        return False
    size = int.from_bytes(end[:4], "little")
    table = source.read_at(source.size - 8 - size, min(size, 12 + 12 * 1000))
    entries = range(12, len(table) - 11, 12) if table[:4] == b"SEFH" else range(0)
    return any(int.from_bytes(table[at + 2 : at + 4], "little") == _SAMSUNG_MOTION for at in entries)
