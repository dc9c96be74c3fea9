"""Contents of an AVIF or HEIC file besides its picture that cannot be carried over: depth maps, gain maps, mattes, and
the frames of an animation.

ISO/IEC 23008-12, section 6.5.8: an auxiliary picture has a property `auxC` with a URN for its kind. A gain map of ISO
21496-1 is an item of type `tmap`. Section 7.2: an animation is a track whose handler is `pict`; its frames are samples
(ISO/IEC 14496-12, 8.7.3), which decoders of still pictures do not see.
"""

from __future__ import annotations

import re

from srgan_cli.imaging.boxes import boxes
from srgan_cli.imaging.sources import Source

_MOST_BOXES, _MOST_BYTES = 64, 1 << 20
_AUXILIARY = re.compile(rb"auxC\0\0\0\0([ -~]{1,200})")
_GAIN_MAP = re.compile(rb"infe[\2\3]\0\0[\0\1]..(?:..)?\0\0tmap", re.S)
_SAMPLES = re.compile(rb"(?:stsz\0\0\0\0....|stz2\0\0\0\0\0\0\0.)(....)", re.S)
_ALPHA = (":alpha", "auxid:1")
_KNOWN = {"depth": "its depth map", "auxid:2": "its depth map", "disparity": "its depth map",
          "gainmap": "its HDR gain map", "matte": "its mattes"}  # fmt: skip


def left_out(source: Source) -> tuple[str, ...]:
    """Sentences on what cannot be carried over."""
    head = _outermost(source, b"meta")
    urns = dict.fromkeys(urn.decode().lower() for urn in _AUXILIARY.findall(head))
    found = {_title(urn): None for urn in urns if not urn.endswith(_ALPHA)}
    if _GAIN_MAP.search(head):
        found["its HDR gain map"] = None
    return tuple(f"{what} cannot be carried over" for what in found)


def _title(urn: str) -> str:
    known = next((title for word, title in _KNOWN.items() if word in urn), None)
    return known or f"an auxiliary picture ({urn.rsplit(':', 1)[-1]})"


def frames(source: Source) -> int:
    """The number of frames of an animation; 1 if the file is not one."""
    tracks = _outermost(source, b"moov").split(b"trak")[1:]
    counts = [_SAMPLES.search(track) for track in tracks if b"pict" in track and b"stbl" in track]
    return max((int.from_bytes(found[1], "big") for found in counts if found), default=1) or 1


def _outermost(source: Source, kind: bytes) -> bytes:
    """The contents of the first such box, as far as they may be read; empty if there is none."""
    for box in boxes(source, _MOST_BOXES):
        if box.kind == kind:
            return source.read_at(box.at + 8, min(box.size or _MOST_BYTES, _MOST_BYTES))
    return b""
