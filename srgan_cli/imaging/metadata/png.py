"""PNG metadata, before or after the pixels, plain or compressed.

PNG specification, third edition (2025), chapter 11; and ImageMagick's and ExifTool's "Raw profile type …": EXIF, XMP
and IPTC as hexadecimal text. libvips reads only the chunks before the pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from srgan_cli.imaging.metadata.iptc import app13
from srgan_cli.imaging.sources import Source

Text = tuple[str, str]  # keyword and text
Colour = tuple[str, bytes]  # chunk name and contents

_COLOUR = (b"cICP", b"sRGB", b"gAMA", b"cHRM")
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_XMP = "XML:com.adobe.xmp"
_RAW = "Raw profile type "
# Keywords that programs add about the file they read, not about the picture.
_OF_THE_FILE = ("date:", "exif:", "png:", "Thumb::", "tiff:", "icc:")
_CHUNKS = 5000  # chunks examined one by one; after that, only the file's end is examined
_TAIL_BYTES = 1 << 20
_DEFLATE = 1032  # maximum number of bytes that one compressed byte may become
_MAX_BYTES = 16 << 20  # of text and blocks together


@dataclass(frozen=True)
class PngMetadata:
    """`exif` and `iptc` are as in `Metadata`. `colour` holds the chunks that describe the colours, in file order."""

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    text: tuple[Text, ...] = ()
    colour: tuple[Colour, ...] = ()


def read(source: Source) -> PngMetadata:
    """Everything that can be parsed; the rest is left out."""
    room = _MAX_BYTES
    exif: list[bytes] = []
    texts: list[Text] = []
    colour: dict[str, bytes] = {}
    for kind, at, size in _chunks(source):
        if kind in _COLOUR and size <= 64:
            colour.setdefault(kind.decode(), source.read_at(at, size))
        elif (kind == b"eXIf" or kind in _TEXT) and size <= room:
            data = source.read_at(at, size)
            room -= size
            if kind == b"eXIf":
                exif.append(data)
            elif (found := _text(kind, data, room)) is not None:
                room -= len(found[1])
                texts.append(found)
            elif kind != b"tEXt":  # decompression may have stopped at the limit
                room -= min(room, _DEFLATE * size)
    profiles = {key.removeprefix(_RAW).lower(): _unhexed(value) for key, value in texts if key.startswith(_RAW)}
    return PngMetadata(
        exif=_exif([*exif, profiles.get("exif"), profiles.get("app1")]),
        xmp=_xmp(texts, profiles),
        iptc=_iptc(profiles),
        text=tuple(one for one in texts if one[0] != _XMP and not one[0].startswith((_RAW, *_OF_THE_FILE))),
        colour=tuple(colour.items()),
    )


def chunks(read: Callable[[int, int], bytes], most: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, offset and size of the contents of each of the first `most` chunks. `read(place, count)` returns bytes."""
    place = 8
    for _ in range(most):
        head = read(place, 8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        size = int.from_bytes(head[:4], "big")
        yield head[4:], place + 8, size
        place += size + 12


def _chunks(source: Source) -> Iterator[tuple[bytes, int, int]]:
    """All chunks but the pixels, within the search limits."""
    found = 0
    for kind, place, size in chunks(source.read_at, _CHUNKS):
        found += 1
        if kind != b"IDAT":
            yield kind, place, size
    if found == _CHUNKS:
        yield from _behind(source, max(place + size + 4, source.size - _TAIL_BYTES))


def _behind(source: Source, start: int) -> Iterator[tuple[bytes, int, int]]:
    """The same for chunks near the end of the file, recognised by name and checksum."""
    data = source.read_at(start, _TAIL_BYTES)
    for kind in (b"eXIf", *_TEXT):
        at = data.find(kind)
        if at < 4:
            continue
        size = int.from_bytes(data[at - 4 : at], "big")
        whole = data[at : at + 4 + size]
        if len(whole) == 4 + size and data[at + 4 + size :][:4] == struct.pack(">I", zlib.crc32(whole)):
            yield kind, start + at + 4, size


def _text(kind: bytes, data: bytes, room: int) -> Text | None:
    keyword, nul, rest = data.partition(b"\0")
    if not nul or not 0 < len(keyword) <= 79:
        return None
    key = keyword.decode("latin-1")
    if kind == b"tEXt":
        return key, rest.decode("latin-1")
    if kind == b"zTXt":
        plain = _inflated(rest[1:], room)
        return None if plain is None else (key, plain.decode("latin-1"))
    parts = rest[2:].split(b"\0", 2)
    if len(rest) < 2 or len(parts) < 3:
        return None
    value = _inflated(parts[2], room) if rest[0] else parts[2]
    return None if value is None else (key, value.decode("utf-8", "replace"))


def _inflated(data: bytes, room: int) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, max(room, 1))  # 0 would mean no limit
    except zlib.error:
        return None
    return plain if stream.eof else None


def _unhexed(text: str) -> bytes:
    """The bytes of a raw profile: its name, its length, then lines of hexadecimal digits."""
    lines = text.strip().split("\n", 2)
    try:
        return bytes.fromhex(lines[2]) if len(lines) == 3 else b""
    except ValueError:
        return b""


def _exif(candidates: list[bytes | None]) -> bytes | None:
    for one in candidates:
        bare = (one or b"").removeprefix(b"Exif\0\0")
        if bare[:2] in (b"II", b"MM"):
            return bare
    return None


def _xmp(texts: list[Text], profiles: dict[str, bytes]) -> bytes | None:
    plain = next((value.encode() for key, value in texts if key == _XMP), None)
    if plain:
        return plain
    packet = profiles.get("xmp") or profiles.get("app1") or b""
    packet = packet.removeprefix(b"http://ns.adobe.com/xap/1.0/\0")
    return packet if packet.lstrip()[:1] == b"<" else None


def _iptc(profiles: dict[str, bytes]) -> bytes | None:
    block = profiles.get("8bim") or profiles.get("iptc") or b""
    return app13(block) if block else None


def chunk(kind: bytes, data: bytes) -> bytes:
    """A whole chunk: length, type, contents, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def text_chunk(key: str, value: str) -> tuple[bytes, bytes]:
    """Type and contents of a chunk that holds `value`, uncompressed so that every program reads it."""
    name = key.encode("latin-1", "replace")[:79]
    try:
        return b"tEXt", name + b"\0" + value.replace("\0", " ").encode("latin-1")
    except UnicodeEncodeError:
        return b"iTXt", name + b"\0\0\0\0\0" + value.replace("\0", " ").encode("utf-8", "replace")


def raw_profile(name: str, data: bytes) -> tuple[bytes, bytes]:
    """Type and contents of a compressed chunk "Raw profile type `name`"."""
    digits = data.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    text = f"\n{name}\n{len(data):8}\n{lines}\n"
    return b"zTXt", f"{_RAW}{name}".encode() + b"\0\0" + zlib.compress(text.encode())


def frames_of(source: Source) -> int:
    """The number of animation frames the file declares; 1 for a still picture."""
    for kind, at, _ in chunks(source.read_at, _CHUNKS):
        if kind == b"IDAT":
            break
        if kind == b"acTL":
            return max(1, int.from_bytes(source.read_at(at, 4), "big"))
    return 1


def has_resolution(source: Source) -> bool:
    """Whether the file gives its resolution in px per metre (pHYs, with unit 1)."""
    for kind, at, _ in chunks(source.read_at, _CHUNKS):
        if kind == b"IDAT":
            break
        if kind == b"pHYs":
            return source.read_at(at + 8, 1) == b"\1"
    return False
