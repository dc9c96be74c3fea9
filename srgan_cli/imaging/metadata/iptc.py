"""IPTC captions and keywords (IIM 4.2) in Photoshop's resource blocks in JPEG files (APP13)."""

from __future__ import annotations

_START = b"Photoshop 3.0\0"
_RESOURCE = b"8BIM"
_IIM = 0x0404


def app13(block: bytes) -> bytes | None:
    """An APP13 block made from `block` (resource blocks, or bare IIM records); None if it is neither."""
    block = block.removeprefix(_START)
    if block[:4] == _RESOURCE:
        return _START + block
    if block[:1] != b"\x1c":
        return None
    size = len(block).to_bytes(4, "big")
    return _START + _RESOURCE + _IIM.to_bytes(2, "big") + b"\0\0" + size + block + b"\0" * (len(block) % 2)


def records(block: bytes) -> bytes | None:
    """The bare IIM records in an APP13 block; None if it has none."""
    data = block.removeprefix(_START)
    at = 0
    while data[at : at + 4] == _RESOURCE and at + 12 <= len(data):
        name = data[at + 6] + 1
        start = at + 6 + name + name % 2
        size = int.from_bytes(data[start : start + 4], "big")
        if int.from_bytes(data[at + 4 : at + 6], "big") == _IIM:
            return data[start + 4 : start + 4 + size] or None
        at = start + 4 + size + size % 2
    return None
