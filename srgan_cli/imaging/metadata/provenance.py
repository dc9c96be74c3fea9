"""Recording in a result how it was made: in XMP for programs, in EXIF's Software for people; and reading such records.

The record is a single empty element in the XMP packet, so the rest of the packet is unchanged. It is also found after
other programs have rewritten it as attributes elsewhere or as elements. It contains no names and no paths: the input is
identified by a digest of its name, its size, and a digest of its bytes.
"""

from __future__ import annotations

import hashlib
import html
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

from srgan_cli.errors import shown
from srgan_cli.files import file_sha256
from srgan_cli.imaging.image import Metadata
from srgan_cli.imaging.metadata.ifd import Field, first_table, table_bytes, with_table
from srgan_cli.stores.paths import StorePath

NAMESPACE = "urn:srgan:result:1#"
_SOFTWARE = 0x0131
_ASCII = 2
_SEGMENT_BYTES = 65_000  # slightly below the capacity of a JPEG segment
_NAMES = ("Program", "Model", "Weights", "Scale", "Settings", "SourceName", "SourceSize", "SourceDigest")
_WRAP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">{}</rdf:RDF></x:xmpmeta>\n<?xpacket end="w"?>'
)
_MAX_VALUE = 200  # characters of a value
_MAX_ESCAPED = 6 * _MAX_VALUE + 1  # with `&quot;` for each, and the mark that follows
DIGEST_DIGITS = 32
_MAX_PREFIXES = 4


@dataclass(frozen=True)
class Record:
    """`program` with its version; `model` by its name; `weights`: the shortened SHA-256s of its files; `settings`: the
    key of everything but the input that determines the result; and the input: digest of its name, `WxH`, digest of its
    bytes."""

    program: str
    model: str
    weights: str
    scale: str
    settings: str
    source_name: str
    source_size: str
    source_digest: str


def name_digest(path: Path) -> str:
    """Digest of a file's name without folder and extension, so that a copy in another format or place has the same
    digest."""
    path = path.plain if isinstance(path, StorePath) else path
    return hashlib.sha256(path.stem.casefold().encode("utf-8", "surrogatepass")).hexdigest()[:16]


def bytes_digest(source: Path | bytes) -> str:
    """Digest of an input's bytes. Raises `OSError`."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()[:DIGEST_DIGITS]
    return file_sha256(source)[:DIGEST_DIGITS]


def added(metadata: Metadata, record: Record) -> Metadata:
    """The metadata with the record, replacing an older one. A block that would no longer fit into a JPEG segment is
    left unchanged: the original metadata has priority."""
    exif = _with_software(metadata.exif, record.program)
    xmp = _with_record(metadata.xmp, record)
    return replace(metadata, exif=_fitting(exif, metadata.exif), xmp=_fitting(xmp, metadata.xmp))


def _fitting(new: bytes | None, old: bytes | None) -> bytes | None:
    return old if new is None or len(new) > _SEGMENT_BYTES >= len(old or b"") else new


# ----------------------------------------------------------------------------------------------------------------- XMP


def read(metadata: Metadata) -> Record | None:
    """The record in a packet, if srgan wrote one. The packet may be hostile; anything invalid is not a record."""
    text = _text(metadata.xmp or b"")
    for prefix in [] if text is None else _prefixes(text):
        assert text is not None
        places = [next(_places(text, f"{prefix}:{name}"), None) for name in _NAMES]
        values = [html.unescape(text[place[1] : place[2]]) for place in places if place is not None]
        if len(values) == len(_NAMES) and all(0 < len(value) <= _MAX_VALUE for value in values):
            return Record(*values)
    return None


def _with_record(packet: bytes | None, record: Record) -> bytes | None:
    values = [getattr(record, field.name) for field in fields(record)]
    properties = " ".join(
        f'srgan:{name}="{html.escape(shown(value)[:_MAX_VALUE])}"' for name, value in zip(_NAMES, values, strict=True)
    )
    element = f'<rdf:Description rdf:about="" xmlns:srgan="{NAMESPACE}" {properties}/>'
    if not packet:
        return _WRAP.format(element).encode()
    text = _text(packet)
    if text is None:
        return None
    for name in [f"{prefix}:{name}" for prefix in _prefixes(text) for name in _NAMES]:
        text = _without(text, name)
    text = text.replace(f'<rdf:Description rdf:about="" xmlns:srgan="{NAMESPACE}"/>', "")
    end = text.rfind("</rdf:RDF>")
    if end < 0:  # an empty packet, or one with another prefix for RDF
        return None
    return (text[:end] + element + text[end:]).encode(_encoding(packet))


def _encoding(packet: bytes) -> str:
    return "utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"


def _text(packet: bytes) -> str | None:
    try:
        return packet.decode(_encoding(packet))
    except UnicodeDecodeError:
        return None


def _prefixes(text: str) -> list[str]:
    """The packet's prefixes for srgan's namespace: one, or several if several programs have written to it."""
    found: dict[str, None] = {}
    at = text.find(NAMESPACE)
    while at >= 0 and len(found) < _MAX_PREFIXES:
        before = text[max(0, at - 100) : at - 1].rstrip()
        name = before.removesuffix("=").rstrip().rpartition("xmlns:")[2]
        if before.endswith("=") and name.isidentifier():
            found[name] = None
        at = text.find(NAMESPACE, at + 1)
    return list(found)


def _without(text: str, name: str) -> str:
    parts, at = [], 0
    for start, _, _, end in _places(text, name):
        parts.append(text[at:start].rstrip() if text[start] != "<" else text[at:start])
        at = end
    return "".join(parts) + text[at:]


def _places(text: str, name: str) -> Iterator[tuple[int, int, int, int]]:
    """Locations of a property, as an attribute or an element: its start, its value's start and end, and its end.

    Each character is examined a bounded number of times, for any packet.
    """
    at = 0
    while (found := text.find(name, at)) >= 0:
        at = found + len(name)
        rest = text[at : at + 16].lstrip()
        if text[found - 1 : found] == "<" and rest.startswith(">"):
            start = text.index(">", at) + 1
            end = text.find("</", start, start + _MAX_ESCAPED)
            close = text.find(">", end, end + len(name) + 16) if end >= 0 else -1
            if close >= 0 and text[end + 2 : close].rstrip() == name:
                yield found - 1, start, end, close + 1
                at = close + 1
        elif rest.startswith("=") and rest[1:].lstrip()[:1] in ('"', "'"):
            quote = rest[1:].lstrip()[0]
            start = text.index(quote, at) + 1
            end = text.find(quote, start, start + _MAX_ESCAPED)
            if end >= 0:
                yield found, start, end, end + 1
                at = end + 1


# ---------------------------------------------------------------------------------------------------------------- EXIF


def _with_software(exif: bytes | None, program: str) -> bytes | None:
    """The block with Software set. No byte of it moves: the first table is repeated after its end with the entry added
    or replaced, and the old table is no longer referenced. None if the block is not valid."""
    if not exif:
        return b"II*\0" + struct.pack("<I", 8) + table_bytes("<", [_software(program)], 8)
    found = first_table(exif)
    if found is None:
        return None
    structure, table = found
    software = _software(program)
    before = table.find(_SOFTWARE)
    if before is not None and structure.value(before) == software.value:
        return exif
    own, first = with_table(exif, structure, table, software)
    return own[:4] + struct.pack(structure.order + "I", first) + own[8:]


def _software(program: str) -> Field:
    text = program.encode("ascii", "replace") + b"\0"
    return Field(_SOFTWARE, _ASCII, len(text), text)
