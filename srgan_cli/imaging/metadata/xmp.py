"""Editing an XMP packet as text, without parsing and rewriting it: everything else stays byte for byte.

Properties that count px, or are positions in the picture, are updated when the picture is rotated and enlarged
(`_px_changes`). Properties that announce data which is not carried over (a gain map, a video) are removed. XMP
specification part 1 (2012); the Metadata Working Group's guidelines 2.0 (regions); Google's Photo Sphere, Ultra HDR and
motion photo formats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from srgan_cli.imaging.metadata.geometry import Geometry
from srgan_cli.imaging.metadata.markup import Edits, Element, Name, elements

_TIFF = "http://ns.adobe.com/tiff/1.0/"
_EXIF = "http://ns.adobe.com/exif/1.0/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_NOTE = "http://ns.adobe.com/xmp/note/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_PANO = "http://ns.google.com/photos/1.0/panorama/"
_CAMERA = "http://ns.google.com/photos/1.0/camera/"
_CONTAINER = "http://ns.google.com/photos/1.0/container/"
_GAIN_MAP = "http://ns.adobe.com/hdr-gain-map/1.0/"
_APPLE_GAIN_MAP = "http://ns.apple.com/HDRGainMap/1.0/"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_PEOPLE = "http://ns.microsoft.com/photo/1.2/t/Region#"

MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class _Property:
    """A property in the text, as attribute or as element; its plain value is from `start` to `end`."""

    name: Name
    start: int
    end: int
    whole: tuple[int, int]  # the range to cut in order to remove it
    element: Element | None


def patched(packet: bytes, geometry: Geometry, *, drop_gps: bool = False, dpi: float | None = None) -> bytes | None:
    """The packet for the result, without thumbnails and without what is not carried over; None if it is not well-formed
    XML.

    Only existing properties are changed. `drop_gps` removes every property whose name starts with GPS, in any namespace
    (`exif:GPSLatitude`, `drone-dji:GpsLatitude`). Time is linear in the packet's size.
    """
    encoding = "utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    if len(packet) > MAX_BYTES:
        return None
    try:
        text = packet.decode(encoding)
        tree = elements(text)
    except ValueError:
        return None
    edits = Edits()
    properties = list(_properties(tree))
    for one in properties:
        if _goes(one.name, drop_gps=drop_gps):
            edits.put(*one.whole)
    _px_changes(text, tree, properties, geometry, edits)
    if dpi is not None:
        _resolution(properties, dpi, edits)
    return edits.applied(text).encode(encoding)


def losses(packet: bytes | None) -> tuple[str, ...]:
    """Descriptions of what the packet announces elsewhere in the file and cannot be carried over."""
    if not packet:
        return ()
    found = []
    for word, what in (
        (b"hdrgm:Version", "its HDR gain map"),
        (b"HDRGainMap", "its HDR gain map"),
        (b"MotionPhoto", "the video of a motion photo"),
        (b"MicroVideo", "the video of a motion photo"),
    ):
        if word in packet and what not in found:
            found.append(what)
    return tuple(found)


def _goes(name: Name, *, drop_gps: bool) -> bool:
    namespace, local = name
    if namespace in (_GAIN_MAP, _APPLE_GAIN_MAP, _CONTAINER):
        return True
    if namespace == _CAMERA and local.startswith(("MotionPhoto", "MicroVideo")):
        return True
    # The extension is stored in other segments, and has been merged into the packet if it is carried over.
    if name in ((_NOTE, "HasExtendedXMP"), (_XMP, "Thumbnails")):
        return True
    return drop_gps and local[:3].lower() == "gps"


def _properties(tree: list[Element]) -> Iterable[_Property]:
    for element in tree:
        if element.name[0] != _RDF:
            yield _Property(element.name, element.inner, element.inner_end, (element.start, element.end), element)
        for one in element.attributes:
            yield _Property(one.name, one.value_start, one.value_end, (one.start, one.end), None)


def _resolution(properties: list[_Property], dpi: float, edits: Edits) -> None:
    ratio = f"{round(dpi * 100)}/100"
    values = {(_TIFF, "XResolution"): ratio, (_TIFF, "YResolution"): ratio, (_TIFF, "ResolutionUnit"): "2"}
    for one in properties:
        if one.name in values and (one.element is None or not one.element.children):
            edits.put(one.start, one.end, values[one.name])


# Properties that count px

_PANO_PX = {
    "FullPanoWidthPixels": 0, "CroppedAreaImageWidthPixels": 0, "CroppedAreaLeftPixels": 0,
    "LargestValidInteriorRectLeft": 0, "LargestValidInteriorRectWidth": 0,
    "FullPanoHeightPixels": 1, "CroppedAreaImageHeightPixels": 1, "CroppedAreaTopPixels": 1,
    "LargestValidInteriorRectTop": 1, "LargestValidInteriorRectHeight": 1,
}  # fmt: skip


def _px_changes(text: str, tree: list[Element], properties: list[_Property], geometry: Geometry, edits: Edits) -> None:
    sizes = {
        (_TIFF, "Orientation"): 1, (_TIFF, "ImageWidth"): geometry.width, (_TIFF, "ImageLength"): geometry.height,
        (_EXIF, "PixelXDimension"): geometry.width, (_EXIF, "PixelYDimension"): geometry.height,
    }  # fmt: skip
    for one in properties:
        is_plain = one.element is None or not one.element.children
        if one.name in sizes and is_plain:
            edits.put(one.start, one.end, str(sizes[one.name]))
        elif one.name[0] == _PANO and one.name[1] in _PANO_PX and is_plain:
            factor = (geometry.across, geometry.down)[_PANO_PX[one.name[1]]]
            _put_numbers(text, [one], partial(_times, factor), edits, whole=True)
    _densities(text, properties, geometry, edits)
    for one in properties:
        if one.element is not None and one.name in ((_EXIF, "SubjectArea"), (_EXIF, "SubjectLocation")):
            _subject(text, tree, one, geometry, edits)
        elif one.name == (_PEOPLE, "Rectangle"):
            _rectangle(text, one, geometry, edits)
    _regions(text, tree, geometry, edits)


def _times(factor: float, values: list[float]) -> list[float]:
    return [value * factor for value in values]


Change = Callable[[list[float]], list[float]]


def _number(text: str) -> float:
    """A plain or rational number. Raises `ValueError`."""
    top, slash, bottom = text.strip().partition("/")
    value = float(top) / (float(bottom) if slash else 1.0) if not slash or float(bottom) else math.nan
    if not math.isfinite(value) or abs(value) > 1e12:
        raise ValueError(text)
    return value


def _shown(value: float, *, whole: bool) -> str:
    return str(round(value)) if whole else f"{value:.6f}".rstrip("0").rstrip(".")


def _put_numbers(text: str, places: list[_Property], change: Change, edits: Edits, *, whole: bool) -> None:
    """The numbers at `places`, changed together; unchanged if one of them is not a number."""
    try:
        values = change([_number(text[one.start : one.end]) for one in places])
    except ValueError:
        return
    for one, value in zip(places, values, strict=True):
        edits.put(one.start, one.end, _shown(value, whole=whole))


def _densities(text: str, properties: list[_Property], geometry: Geometry, edits: Edits) -> None:
    across = [one for one in properties if one.name == (_EXIF, "FocalPlaneXResolution")]
    down = [one for one in properties if one.name == (_EXIF, "FocalPlaneYResolution")]
    for one, other in zip(across, down, strict=False):
        try:
            values = [_number(text[place.start : place.end]) for place in (one, other)]
        except ValueError:
            continue
        for place, value in zip((one, other), geometry.densities(*values), strict=True):
            edits.put(place.start, place.end, f"{round(value * 1000)}/1000")


def _subject(text: str, tree: list[Element], one: _Property, geometry: Geometry, edits: Edits) -> None:
    assert one.element is not None
    lists = [tree[index] for index in one.element.children]
    items = [tree[index] for part in lists for index in part.children]
    places = [_Property(item.name, item.inner, item.inner_end, (item.start, item.end), item) for item in items]
    if 2 <= len(places) <= 4:
        _put_numbers(text, places, lambda values: area_px(values, geometry), edits, whole=True)


def area_px(values: list[float], geometry: Geometry) -> list[float]:
    """EXIF's SubjectArea: a point, a circle with a diameter, or a rectangle around a point. In px of the result."""
    centre = list(geometry.point_px(values[0], values[1]))
    if len(values) == 3:
        return [*centre, values[2] * (geometry.across + geometry.down) / 2]
    return centre if len(values) == 2 else [*centre, *geometry.extent_px(values[2], values[3])]


def _regions(text: str, tree: list[Element], geometry: Geometry, edits: Edits) -> None:
    """Face regions of the Metadata Working Group: centre and size of an area, in fractions of the stored picture (or
    px), and the size of the picture in which they were found."""
    for element in tree:
        own = {one.name: one for one in _own(tree, element)}
        area = [own[name] for name in ((_AREA, "x"), (_AREA, "y"), (_AREA, "w"), (_AREA, "h")) if name in own]
        unit = own.get((_AREA, "unit"))
        in_px = unit is not None and text[unit.start : unit.end].strip() == "pixel"
        if len(area) == 4:
            _put_numbers(text, area, partial(_area, geometry, in_px), edits, whole=in_px)
        elif len(area) == 2 and not in_px:
            _put_numbers(text, area, lambda v: list(geometry.point(v[0], v[1])), edits, whole=False)
        across, down = own.get((_DIMENSIONS, "w")), own.get((_DIMENSIONS, "h"))
        if across and down and element.name[1] != "MaxPageSize" and _is_px(text, own.get((_DIMENSIONS, "unit"))):
            edits.put(across.start, across.end, str(geometry.width))
            edits.put(down.start, down.end, str(geometry.height))


def _is_px(text: str, unit: _Property | None) -> bool:
    return unit is None or text[unit.start : unit.end].strip() == "pixel"


def _area(geometry: Geometry, px: bool, values: list[float]) -> list[float]:
    place, extent = (geometry.point_px, geometry.extent_px) if px else (geometry.point, geometry.extent)
    return [*place(values[0], values[1]), *extent(values[2], values[3])]


def _own(tree: list[Element], element: Element) -> Iterable[_Property]:
    """The fields of a structure: its attributes and its plain elements."""
    for one in element.attributes:
        yield _Property(one.name, one.value_start, one.value_end, (one.start, one.end), None)
    for child in (tree[index] for index in element.children):
        if not child.children and child.name[0] != _RDF:
            yield _Property(child.name, child.inner, child.inner_end, (child.start, child.end), child)


def _rectangle(text: str, one: _Property, geometry: Geometry, edits: Edits) -> None:
    """Microsoft's regions: left, top, width and height in fractions of the stored picture, in one text."""
    if geometry.orientation == 1:
        return
    try:
        left, top, width, height = (_number(part) for part in text[one.start : one.end].split(","))
    except ValueError:
        return
    x, y = geometry.point(left + width / 2, top + height / 2)
    width, height = geometry.extent(width, height)
    values = (x - width / 2, y - height / 2, width, height)
    edits.put(one.start, one.end, ", ".join(_shown(value, whole=False) for value in values))
