"""Changing an XMP packet as text. It is not parsed and written anew: everything that is not meant stays as it was."""

from __future__ import annotations

import re

_NAMESPACES = {
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "note": "http://ns.adobe.com/xmp/note/",
}


def patched(
    packet: bytes, width: int, height: int, *, drop_gps: bool = False, dpi: float | None = None
) -> bytes | None:
    """The packet for an upright picture of `width` × `height` px, without thumbnails; None when it is not text.

    Properties are changed only where they are there, as attributes or as elements. `drop_gps` takes out every property
    whose name starts with GPS, whatever its namespace (`exif:GPSLatitude`, `drone-dji:GpsLatitude`).
    """
    encoding = "utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    try:
        text = packet.decode(encoding)
    except UnicodeDecodeError:
        return None
    for prefix in _prefixes(text, "tiff"):
        text = _set(text, f"{prefix}:Orientation", "1")
        text = _set(text, f"{prefix}:ImageWidth", str(width))
        text = _set(text, f"{prefix}:ImageLength", str(height))
        if dpi is not None:
            text = _set(text, f"{prefix}:XResolution", f"{round(dpi * 100)}/100")
            text = _set(text, f"{prefix}:YResolution", f"{round(dpi * 100)}/100")
            text = _set(text, f"{prefix}:ResolutionUnit", "2")
    for prefix in _prefixes(text, "exif"):
        text = _set(text, f"{prefix}:PixelXDimension", str(width))
        text = _set(text, f"{prefix}:PixelYDimension", str(height))
    for prefix in _prefixes(text, "xmp"):
        text = _drop(text, f"{prefix}:Thumbnails")
    for prefix in _prefixes(text, "note"):
        # The extension it announces stands in other segments, which do not travel.
        text = _drop(text, f"{prefix}:HasExtendedXMP")
    if drop_gps:
        for name in sorted(set(re.findall(r"[\w.-]+:gps[\w.-]*", text, re.IGNORECASE))):
            text = _drop(text, name)
    return text.encode(encoding)


def _prefixes(text: str, namespace: str) -> list[str]:
    """What the packet calls a namespace; nearly always its usual name."""
    return sorted(set(re.findall(rf"""xmlns:([\w.-]+)\s*=\s*["']{re.escape(_NAMESPACES[namespace])}["']""", text)))


def _set(text: str, name: str, value: str) -> str:
    name = re.escape(name)
    text = re.sub(rf"""(?<=\s)({name}\s*=\s*)(["'])[^"'<]*\2""", rf"\g<1>\g<2>{value}\g<2>", text)
    return re.sub(rf"(<{name}\s*>)[^<]*(</{name}\s*>)", rf"\g<1>{value}\g<2>", text)


def _drop(text: str, name: str) -> str:
    """Take out a property: its attribute, its empty element, or its element with everything inside."""
    text = re.sub(rf"""\s{re.escape(name)}\s*=\s*(?:"[^"<]*"|'[^'<]*')""", "", text)
    opening = re.compile(rf"<{re.escape(name)}(?=[\s/>])[^>]*>")
    closing = re.compile(rf"</{re.escape(name)}\s*>")
    parts = []
    at = 0
    while found := opening.search(text, at):
        end = found.end()
        if not found[0].endswith("/>"):
            close = closing.search(text, end)
            if close is None:  # damaged: leave the rest alone
                break
            end = close.end()
        parts.append(text[at : found.start()])
        at = end
    return "".join(parts) + text[at:]
