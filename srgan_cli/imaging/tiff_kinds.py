"""What a TIFF file's tags say about its samples, and how to read them with libvips.

TIFF 6.0 (Adobe 1992), its Technical Notes (Photoshop 2002), and the DNG specification. libvips and libtiff sometimes go
by the number of channels where the tags say more, and refuse some layouts that are easily converted into one they
support. In these cases they are given the same file with another table at its end (`_Overlay`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging import tiff_jpeg
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.metadata.ifd import (
    LONG,
    LONG8,
    SHORT,
    Field,
    Structure,
    Table,
    number_field,
    opened,
    table_bytes,
)
from srgan_cli.imaging.sources import Source, vips_module, vips_source

_SUBFILE, _OLD_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 255, 256, 257, 258, 259, 262
_SAMPLES, _STRIP_COUNTS, _PLANAR, _PREDICTOR = 277, 279, 284, 317
_TILE_WIDTH, _TILE_OFFSETS, _TILE_COUNTS, _SUB_IFDS, _EXTRA, _SAMPLE_FORMAT = 322, 324, 325, 330, 338, 339
_SUBSAMPLING, _DNG_VERSION, _LAYERS = 530, 0xC612, 37724
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB, _ITULAB = 0, 1, 2, 3, 5, 6, 8, 9, 10
# Also FillOrder, fax options, colour maps, inks, tables of old and new JPEG, YCbCr, and profiles.
_OF_PIXELS = frozenset({*range(256, 260), 262, 266, 273, *range(277, 280), 284, 292, 293, 301, 317, 318, 319, 320,
                        *range(322, 326), 332, 338, 339, 347, *range(512, 522), *range(529, 533), 34675})  # fmt: skip
_SENSOR = {32803: "CFA", 34892: "LinearRaw"}
_COLOURS = {_RGB: 3, _CMYK: 4, _YCBCR: 3, _CIELAB: 3, _ICCLAB: 3, _ITULAB: 3}
_JPEG = 7

_COMPRESSIONS = {
    6: "old-style JPEG",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
    34933: "PNG",
    34934: "JPEG XR",
    32809: "ThunderScan",
    32766: "NeXT",
}
_OFTEN = (34925, 50000, 50001)  # their errors mean damage, unless libtiff says that it lacks the codec
_MAX_PAGES = 10_000
_SHARED = 4  # how often a file's bytes may be used by pages: a blank page may be stored once for several


@dataclass(frozen=True)
class TiffKind:
    """How to read one file. `options` are those of libvips' loader.

    `colours` is the number of colour channels; `alpha` is the index of the transparency channel. `bits` is per px as
    stored. `packed` is the bit depth of samples that do not fill whole bytes: libvips reads their rows as bytes.
    `sources` replace the file for libvips if needed, one for each plane. `tidied` is the file without what libtiff may
    warn about in its table. `orientation` is that of the chosen page. `lost()` reports what is missing from the picture
    and libvips would not notice.
    """

    options: dict[str, int]
    colours: int
    alpha: int | None
    samples: int
    photometric: int
    compression: int
    orientation: int
    size: tuple[int, int]
    bits: int
    frames: int
    notes: tuple[str, ...] = ()
    packed: int | None = None
    premultiplied: bool = False
    sources: tuple[Callable[[], Any], ...] = field(default=())
    tidied: Callable[[], Any] = field(default=lambda: None)
    lost: Callable[[], str] = field(default=lambda: "")

    @property
    def is_lab(self) -> bool:
        """Whether its colours are CIE Lab, which are converted to sRGB: a profile in the file no longer applies."""
        return self.photometric in (_CIELAB, _ICCLAB)

    def refusal(self, name: str, reason: str) -> UnreadablePictureError | None:
        """A sentence that does not call an intact file damaged, if its compression is a rare one."""
        title = _COMPRESSIONS.get(self.compression)
        if title is None and self.compression not in (1, 2, 3, 4, 5, 7, 8, 32773, 32946):
            title = f"method {self.compression}"
        if title is None or (self.compression in _OFTEN and "configured" not in reason):
            return None
        return UnreadablePictureError(
            f"{name} is a TIFF compressed with {title}, which cannot be read here{reason}. It does not seem to be "
            "damaged: save it with deflate or LZW in the program that made it, or with vips or ImageMagick"
        )


def examine(source: Source) -> TiffKind | None:
    """The kind of a file; None if there is no usable table. Raises `UnreadablePictureError` for files that must not be
    treated as pictures: raw files and unsupported kinds of samples."""
    found = opened(source.read_at, source.size)
    if found is None:
        return None
    structure, main = found
    pages = list(_chain(structure, main))
    subs = _subs(structure, main)
    if len(pages) > _MAX_PAGES:  # before libtiff walks along them
        raise UnreadablePictureError(
            f"{source.name} has more than {_MAX_PAGES} pages, the limit for one file: split it first"
        )
    _refuse_raw(source, structure, [*pages, *subs])
    chosen, options, notes = _chosen(structure, pages, subs)
    frames = len(_full(structure, pages))
    if any(structure.number(page, _LAYERS) is not None or page.find(_LAYERS) for page in pages[:1]):
        notes += ("its Photoshop layers are left out; the flattened picture is used",)
    return _kind(source, structure, chosen, options, max(frames, 1), notes)


# Which of the file's pictures


def page_tables(structure: Structure, name: str) -> list[Table]:
    """The tables of the file's pages: those in its chain that are neither smaller copies nor masks of others.

    Raises `UnreadablePictureError` if their data overlap: decoding must not exceed the size of the file's data.
    """
    main = structure.table(structure.first)
    pages = [] if main is None else _full(structure, _chain(structure, main))
    counts = (page.find(tag) for page in pages for tag in (_STRIP_COUNTS, _TILE_COUNTS))
    if sum(sum(structure.numbers(each)) for each in counts) > _SHARED * structure.size:
        raise UnreadablePictureError(f"{name} is refused: its pages share their data, as in a decompression bomb")
    return pages


def _full(structure: Structure, pages: Iterable[Table]) -> list[Table]:
    return [page for page in pages if not _is_reduced(structure, page) and not _is_mask(structure, page)]


def _chain(structure: Structure, first: Table) -> Iterable[Table]:
    seen: set[int] = set()
    page: Table | None = first
    while page is not None and page.at not in seen and len(seen) <= _MAX_PAGES:
        seen.add(page.at)
        yield page
        page = structure.table(page.next_offset) if page.next_offset else None


def _subs(structure: Structure, main: Table) -> list[Table]:
    offsets = structure.numbers(main.find(_SUB_IFDS))[:100]
    return [table for offset in dict.fromkeys(offsets) if (table := structure.table(offset)) is not None]


def _refuse_raw(source: Source, structure: Structure, tables: list[Table]) -> None:
    title = None
    if any(table.find(_DNG_VERSION) for table in tables[:1]):
        title = "DNG"
    elif source.read_at(8, 3) == b"CR\2":
        title = "Canon CR2"
    else:
        found = (structure.number(table, _PHOTOMETRIC) for table in tables)
        title = next((f"{_SENSOR[value]} data" for value in found if value in _SENSOR), None)
    if title is not None:
        raise UnreadablePictureError(
            f"{source.name} is a camera raw file ({title}): it holds the sensor's values and a small preview. "
            "Develop it with a raw converter, and enlarge the result"
        )


def _is_reduced(structure: Structure, table: Table) -> bool:
    kind = structure.number(table, _SUBFILE)
    return bool(kind & 1) if kind is not None else structure.number(table, _OLD_SUBFILE) == 2


def _is_mask(structure: Structure, table: Table) -> bool:
    return bool((structure.number(table, _SUBFILE) or 0) & 4)


def _area(structure: Structure, table: Table) -> int:
    return (structure.number(table, _WIDTH) or 0) * (structure.number(table, _HEIGHT) or 0)


def _chosen(
    structure: Structure, pages: list[Table], subs: list[Table]
) -> tuple[Table, dict[str, int], tuple[str, ...]]:
    """The full picture, never a preview that precedes it, and how libvips finds it."""
    main = pages[0]
    others = [({"subifd": index}, sub) for index, sub in enumerate(subs)]  # parts of the first page, for all tags
    if _is_reduced(structure, main) or _is_mask(structure, main):
        others = [({"page": index}, page) for index, page in enumerate(pages[1:], start=1)] + others
    full = [
        (options, table)
        for options, table in others
        if not _is_reduced(structure, table) and not _is_mask(structure, table)
        and _area(structure, table) > _area(structure, main)
    ]  # fmt: skip
    if not full:
        return main, {}, ()
    options, table = max(full, key=lambda one: _area(structure, one[1]))
    return table, options, ("its first picture is a preview; the full-size one behind it is used",)


# What its samples are


def _kind(
    source: Source, structure: Structure, table: Table, options: dict[str, int], frames: int, notes: tuple[str, ...]
) -> TiffKind:
    def number(tag: int, default: int) -> int:
        value = structure.number(table, tag)
        return default if value is None else value

    photometric = number(_PHOTOMETRIC, _MIN_IS_BLACK)
    compression = number(_COMPRESSION, 1)
    samples = number(_SAMPLES, 1)
    bits = set(structure.numbers(table.find(_BITS))[:samples]) or {1}
    _refuse_kind(source.name, photometric, bits, set(structure.numbers(table.find(_SAMPLE_FORMAT))))
    colours = min(_COLOURS.get(photometric, 1), samples)
    extras = structure.numbers(table.find(_EXTRA))[: samples - colours]
    at = next((index for index, what in enumerate(extras) if what in (1, 2)), None)
    alpha = None if at is None else colours + at
    data = samples - colours - (alpha is not None)
    if data:
        which = "1 channel" if data == 1 else f"{data} channels"
        notes += (f"{which} of other data (near-infrared, a saved selection) beside the colours: left out",)
    if photometric in (_CIELAB, _ICCLAB):
        notes += ("the picture is in a CIE colour space; it is converted to sRGB",)
    view = _View(source, structure, table)
    orientation = number(0x0112, 1)
    kind = TiffKind(
        options, colours, alpha, samples, photometric, compression, orientation if 1 <= orientation <= 8 else 1,
        (number(_WIDTH, 0), number(_HEIGHT, 0)), _stored_bits(structure, table, photometric, max(bits) * samples),
        frames, notes,
        tidied=view.changed({} if extras or samples == colours else {_EXTRA: (0,) * (samples - colours)}),
        lost=partial(tiff_jpeg.lost, source, structure, table) if compression == _JPEG else lambda: "",
    )  # fmt: skip
    return _viewed(kind, view, bits, number(_PLANAR, 1) == 2, extras)


def _stored_bits(structure: Structure, table: Table, photometric: int, bits: int) -> int:
    """Per px. In YCbCr, colour samples are shared by several px (TIFF 6.0 section 21: by 2 × 2 by default)."""
    across, down = (*structure.numbers(table.find(_SUBSAMPLING))[:2], 2, 2)[:2]
    return bits if photometric != _YCBCR or across * down <= 1 else (bits + 2 * bits // (across * down)) // 3


def _refuse_kind(name: str, photometric: int, bits: set[int], formats: set[int]) -> None:
    if photometric == _ITULAB:
        raise UnreadablePictureError(f"{name} is a TIFF in ITULAB colours (of fax machines), which srgan cannot read")
    if photometric in (32844, 32845):
        raise UnreadablePictureError(f"{name} is a TIFF in LogLuv (of high dynamic range), which srgan cannot read")
    if photometric == _PALETTE and max(bits) > 8:
        raise UnreadablePictureError(
            f"{name} is a TIFF with a palette of {max(bits)} bits, which srgan cannot read: save it as RGB"
        )
    if max(bits) > 32 or formats & {5, 6}:
        what = "complex numbers" if formats & {5, 6} else f"{max(bits)} bits"
        raise UnreadablePictureError(
            f"{name} holds samples of {what}; srgan reads 8- and 16-bit unsigned integers. Convert it to a 16-bit "
            "picture first"
        )
    if len(bits) > 1:
        listed = ", ".join(map(str, sorted(bits)))
        raise UnreadablePictureError(
            f"{name} is a TIFF whose channels differ in depth ({listed} bits), which cannot be read"
        )


def _viewed(kind: TiffKind, view: _View, bits: set[int], planar: bool, extras: tuple[int, ...]) -> TiffKind:
    """The same kind, with a replacement for the file if libvips could not read it unchanged."""
    depth = max(bits)
    if depth not in (1, 2, 4, 8, 16, 32) or (depth < 8 and kind.samples > 1):
        return replace(kind, packed=depth, sources=(view.of_bytes(depth, kind.samples, planar),), options={})
    if planar and kind.samples > 1 and view.table.find(_TILE_OFFSETS):
        sources = tuple(view.of_plane(index, kind.samples, depth) for index in range(kind.samples))
        return replace(kind, sources=sources, options={}, premultiplied=_is_premultiplied(kind, extras))
    if kind.photometric == _CIELAB and depth == 8:
        return replace(kind, sources=(view.changed({_PHOTOMETRIC: _ICCLAB}),), options={})
    if _is_premultiplied(kind, extras) and len(extras) > 1:
        # libvips would take the last channel as the alpha to divide by.
        plain = view.changed({_EXTRA: tuple(0 for _ in extras)})
        return replace(kind, sources=(plain,), options={}, premultiplied=True)
    return kind


def _is_premultiplied(kind: TiffKind, extras: tuple[int, ...]) -> bool:
    return kind.alpha is not None and extras[kind.alpha - kind.colours] == 1


class _View:
    """The file as libvips should see it: all its bytes, followed by another first table."""

    def __init__(self, source: Source, structure: Structure, table: Table) -> None:
        self.table = table
        self._source, self._structure = source, structure

    def changed(self, changes: dict[int, int | tuple[int, ...] | None]) -> Callable[[], Any]:
        """With these fields in place of the file's own; None removes a field. Fields that do not concern the pixels are
        left out, and so is the next page."""
        structure = self._structure
        fields = {one.tag: one for one in structure.fields(self.table) if one.tag in _OF_PIXELS}
        for tag, value in changes.items():
            fields.pop(tag, None)
            if value is not None:
                values = value if isinstance(value, tuple) else (value,)
                wide = LONG8 if structure.big and max(values, default=0) >= 2**32 else LONG
                kind = SHORT if max(values, default=0) < 2**16 else wide
                fields[tag] = number_field(structure.order, tag, kind, *values)
        return lambda: _Overlay(self._source, structure, list(fields.values()))

    def of_plane(self, index: int, samples: int, depth: int) -> Callable[[], Any]:
        """One channel of tiles that are stored channel by channel, as a grey picture."""
        offsets = self._structure.numbers(self.table.find(_TILE_OFFSETS))
        counts = self._structure.numbers(self.table.find(_TILE_COUNTS))
        each = len(offsets) // samples
        own = slice(index * each, (index + 1) * each)
        single = {_BITS: depth, _PHOTOMETRIC: _MIN_IS_BLACK, _SAMPLES: 1, _PLANAR: 1, _EXTRA: None}
        return self.changed(
            {**single, _TILE_OFFSETS: offsets[own], _TILE_COUNTS: counts[own], _SAMPLE_FORMAT: 1, _SUBSAMPLING: None}
        )

    def of_bytes(self, depth: int, samples: int, planar: bool) -> Callable[[], Any]:
        """Rows of packed samples as rows of bytes."""
        structure, table, name = self._structure, self.table, self._source.name
        photometric = structure.number(table, _PHOTOMETRIC)
        tile = structure.number(table, _TILE_WIDTH)
        format_ = structure.number(table, _SAMPLE_FORMAT) or 1
        regular = photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB) and not (planar and samples > 1)
        whole = tile is None or tile * samples * depth % 8 == 0
        plain = (structure.number(table, _PREDICTOR) or 1) == 1 and structure.number(table, _COMPRESSION) != _JPEG
        if not (regular and whole and plain and format_ == 1 and depth < 16):
            raise UnreadablePictureError(
                f"{name} is a TIFF of {depth} bits per channel in a layout that srgan cannot read; it does not "
                "seem to be damaged. Save it with 8 or 16 bits"
            )
        row = -(-(structure.number(table, _WIDTH) or 0) * samples * depth // 8)
        changes: dict[int, int | tuple[int, ...] | None] = {
            _WIDTH: row, _BITS: 8, _SAMPLES: 1, _PHOTOMETRIC: _MIN_IS_BLACK, _PLANAR: 1, _EXTRA: None,
        }  # fmt: skip
        if tile is not None:
            changes[_TILE_WIDTH] = tile * samples * depth // 8
        return self.changed(changes)


class _Overlay:
    """A source for libvips: the file with its first table replaced. Slow (Python), so only for rare kinds."""

    def __init__(self, source: Source, structure: Structure, fields: list[Field]) -> None:
        at = source.size + source.size % 2
        head = bytearray(source.read_at(0, 16 if structure.big else 8))
        order = "little" if structure.order == "<" else "big"
        head[8 if structure.big else 4 :] = at.to_bytes(8 if structure.big else 4, order)  # type: ignore[arg-type]
        self._head, self._at, self._source = bytes(head), at, source
        self._tail = table_bytes(structure.order, fields, at, big=structure.big)
        self.vips = vips_source(self._read_at, at + len(self._tail))

    def _read_at(self, at: int, count: int) -> bytes:
        if at < len(self._head):
            return self._head[at : at + count]
        if at < self._source.size:
            return self._source.read_quietly(at, count)
        if at < self._at:
            return b"\0"
        return self._tail[at - self._at : at - self._at + count]


# From what libvips gives to colours and alpha


def assembled(kind: TiffKind, images: list[Any]) -> Any:
    """One image of plain colours (or CMYK, or libvips' own CIE Lab), with alpha last if there is one."""
    image = images[0] if len(images) == 1 else images[0].bandjoin(images[1:])
    converted = image.bands > kind.samples  # converted by libtiff, from a palette or from YCbCr
    alpha = image.extract_band(kind.alpha) if kind.alpha is not None and not converted else None
    colour = _colour(kind, image.extract_band(0, n=3) if converted else image, converted=converted)
    if alpha is None:
        return colour
    joined = colour.bandjoin(alpha).copy(interpretation=colour.interpretation)
    if not kind.premultiplied:
        return joined
    top = 65535 if joined.format == "ushort" else 255
    return joined.unpremultiply(max_alpha=top).rint().cast(alpha.format).copy(interpretation=colour.interpretation)


def _colour(kind: TiffKind, image: Any, *, converted: bool) -> Any:
    wide = image.format == "ushort"
    if not converted:
        image = image.extract_band(0, n=min(kind.colours, image.bands)).copy(interpretation=image.interpretation)
    if kind.is_lab:
        if image.interpretation in ("labs", "lab", "labq"):
            return image.colourspace("rgb16" if image.interpretation == "labs" else "srgb")
        return _from_lab(image, icc=kind.photometric == _ICCLAB, wide=wide)
    if kind.photometric == _YCBCR and not converted and kind.compression != _JPEG and not wide:
        return _from_ycbcr(image)
    if kind.sources and image.bands in (1, 3, 4):
        plain = {1: "grey16" if wide else "b-w", 3: "rgb16" if wide else "srgb", 4: "cmyk"}[image.bands]
        return image.copy(interpretation=plain)
    return image


def _from_lab(image: Any, *, icc: bool, wide: bool) -> Any:
    """CIE L*a*b* of Adobe's technical notes (a, b signed), or ICCLab (a, b offset by half the range), as libvips'
    Lab."""
    light = image.extract_band(0) * (100 / ((65280 if icc else 65535) if wide else 255))
    unit = 256 if wide else 1
    signs = image.extract_band(1, n=2)
    signs = (signs - 128 * unit) if icc else signs.copy(format="short" if wide else "char").cast("float")
    lab = light.bandjoin(signs / unit).cast("float").copy(interpretation="lab")
    return lab.colourspace("rgb16" if wide else "srgb")


def _from_ycbcr(image: Any) -> Any:
    """Full-range YCbCr of BT.601 (TIFF 6.0 section 21, its defaults), 8 bits, as RGB."""
    centred = image.cast("float") - [0, 128, 128]
    matrix = vips_module().Image.new_from_array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]])
    return centred.recomb(matrix).rint().cast("uchar").copy(interpretation="srgb")


def unpacked(kind: TiffKind, data: Pixels) -> Pixels:
    """Rows of bytes (H, B) as samples (H, W, samples) of uint16, full range."""
    assert kind.packed is not None
    width, samples, bits = kind.size[0], kind.samples, kind.packed
    result = np.empty((len(data), width, samples), np.uint16)
    weights = (1 << np.arange(bits - 1, -1, -1)).astype(np.uint32)
    top = (1 << bits) - 1
    for row, packed in enumerate(data):
        flat = np.unpackbits(packed)[: width * samples * bits].reshape(width, samples, bits)  # (W, samples, bits)
        values = flat @ weights
        if kind.photometric == _MIN_IS_WHITE:
            values = top - values
        result[row] = (values * 65535 + top // 2) // top
    keep = [*range(kind.colours), *([kind.alpha] if kind.alpha is not None else [])]
    return result[:, :, keep]
