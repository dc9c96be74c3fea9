"""Contents of an AVIF or HEIC file besides its picture that cannot be carried over: depth maps, gain maps, mattes.

ISO/IEC 23008-12, section 6.5.8: an auxiliary picture has a property `auxC` with a URN for its kind. A gain map of ISO
21496-1 is an item of type `tmap`.
"""

from __future__ import annotations

import re

from srgan_cli.imaging.boxes import boxes
from srgan_cli.imaging.sources import Source

_MOST_BOXES, _MOST_BYTES = 64, 1 << 20
_AUXILIARY = re.compile(rb"auxC\0\0\0\0([ -~]{1,200})")
_GAIN_MAP = re.compile(rb"infe[\2\3]\0\0[\0\1]..(?:..)?\0\0tmap", re.S)
_ALPHA = (":alpha", "auxid:1")
_KNOWN = {"depth": "its depth map", "auxid:2": "its depth map", "disparity": "its depth map",
          "gainmap": "its HDR gain map", "matte": "its mattes"}  # fmt: skip


def left_out(source: Source) -> tuple[str, ...]:
    """Sentences on what cannot be carried over."""
    head = _meta(source)
    urns = dict.fromkeys(urn.decode().lower() for urn in _AUXILIARY.findall(head))
    found = {_title(urn): None for urn in urns if not urn.endswith(_ALPHA)}
    if _GAIN_MAP.search(head):
        found["its HDR gain map"] = None
    return tuple(f"{what} cannot be carried over" for what in found)


def _title(urn: str) -> str:
    known = next((title for word, title in _KNOWN.items() if word in urn), None)
    return known or f"an auxiliary picture ({urn.rsplit(':', 1)[-1]})"


def _meta(source: Source) -> bytes:
    """The contents of the box that describes the items; empty if there is none."""
    for box in boxes(source, _MOST_BOXES):
        if box.kind == b"meta":
            return source.read_at(box.at + 8, min(box.size or _MOST_BYTES, _MOST_BYTES))
    return b""
