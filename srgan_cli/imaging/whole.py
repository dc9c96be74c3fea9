"""Pictures decoded whole by Pillow: the formats that libvips does not support, and where libvips is missing, those that
both decode to the same pixels.

libvips (pyvips) is a dependency, but a machine used only for training can work without it. Then a file is either
decoded here to exactly the pixels that libvips gives, or refused: AVIF, CMYK, CIE Lab, rarer kinds of TIFF.
`_refuse_other_pixels` is the only place that decides this, and tests/imaging/test_rgb.py checks it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from srgan_cli.errors import UnreadablePictureError, is_our_fault
from srgan_cli.extras import how_to_install
from srgan_cli.imaging import bounds, jpeg2000, jpeg_scans, sniffing, tiff_kinds
from srgan_cli.imaging.decoding import accepted, damaged
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.imaging.image import Depth, Pixels
from srgan_cli.imaging.metadata.exif import orientation
from srgan_cli.imaging.metadata.gather import bare
from srgan_cli.imaging.sources import Source, reason_given

ALWAYS_WHOLE = frozenset({"bmp", "heic", "ppm", "jp2"})

_MODES: dict[str, tuple[int, Depth]] = {
    "L": (1, 8),
    "LA": (2, 8),
    "RGB": (3, 8),
    "RGBA": (4, 8),
    "I;16": (1, 16),
    "LA;16": (2, 16),
    "RGB;16": (3, 16),
    "RGBA;16": (4, 16),
}
# Uses the plugins directly, not Image.open, whose pixel limit is not the one that the user set.
_PLUGINS = {
    "bmp": ("BmpImagePlugin", "BmpImageFile"),
    "ppm": ("PpmImagePlugin", "PpmImageFile"),
    "jp2": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "png": ("PngImagePlugin", "PngImageFile"),
    "jpeg": ("JpegImagePlugin", "JpegImageFile"),
    "webp": ("WebPImagePlugin", "WebPImageFile"),
    "tiff": ("TiffImagePlugin", "TiffImageFile"),
    "gif": ("GifImagePlugin", "GifImageFile"),
}


class WholePicture:
    """A picture whose header has been read, and that `decode` returns whole, upright. Create it inside
    `decoding.boundary`.

    `shrink` (2, 4 or 8) decodes a JPEG at that fraction of its sides, as libvips does. `lost` describes what is known
    to be missing. With `accept_damaged`, `decode` returns what is left, with a note on what is lost.
    """

    def __init__(
        self,
        source: Source,
        format: str,  # noqa: A002
        max_pixels: int,
        shrink: int = 1,
        *,
        accept_damaged: bool = False,
        lost: str = "",
    ) -> None:
        self._picture = _opened(source, format, max_pixels)
        width, height = self._picture.size
        sniffing.check_pixels(source, width, height, max_pixels)
        _check_bounds(source, format, width, height)
        self._accept = accept_damaged
        self._lost = lost or (jpeg2000.lost(source) if format == "jp2" else "")
        if self._lost and not accept_damaged:
            raise damaged(source.name, f": {self._lost}")
        self.info: dict[str, Any] = dict(self._picture.info)
        self.count = len(self._picture) if format == "heic" else 1  # number of pictures in the file
        if format == "bmp" and (profile := _bmp_profile(source)):
            self.info["icc_profile"] = profile
        self._turn, self._crop = 1, (height, width)
        self._data: bytes | None = None
        self._jpeg = source if format == "jpeg" else None
        if format in ALWAYS_WHOLE:
            self._mode = _usual_mode(self._picture)
        else:
            _refuse_other_pixels(self._picture, format, source.name)
            self._prepare(source, format, shrink)
        self.channels, self.depth = _MODES[self._mode]
        height, width = self._crop
        self.width, self.height = (height, width) if self._turn in (5, 6, 7, 8) else (width, height)

    def _prepare(self, source: Source, format: str, shrink: int) -> None:  # noqa: A002
        """What libvips does automatically and Pillow only on request."""
        picture = self._picture
        self._mode = _usual_mode(picture)
        if format == "tiff":
            self._crop = _tiff_size(picture)
        else:
            self._turn = orientation(bare(self.info.get("exif")))
        if _is_deep(picture, format):
            self._data = source.read_all()
            self._mode = f"{picture.mode};16" if picture.mode in ("LA", "RGB", "RGBA") else "I;16"
        if format == "jpeg" and shrink > 1:
            height, width = self._crop
            picture.draft(None, (width // shrink, height // shrink))
            self._crop = height // shrink, width // shrink  # Pillow rounds up

    def decode(self) -> tuple[Pixels, str | None]:
        """The pixels, and a note on what is lost, if damage is accepted."""
        lost = self._lost or (jpeg_scans.lost(self._jpeg) if self._jpeg is not None else "")
        if lost and not self._accept:
            raise ValueError(lost)
        try:
            return self._decoded(), accepted(f": {lost}") if lost else None
        except Exception as err:
            if not self._accept or is_our_fault(err) or not _keeps_what_is_there(self._picture):
                raise
            return self._decoded(), accepted(f": {lost}" if lost else reason_given(err))

    def _decoded(self) -> Pixels:
        picture, mode, (height, width) = self._picture, self._mode, self._crop
        if self._data is not None and mode != "I;16":
            return _upright(_by_opencv(self._data, mode), self._turn)
        pixels = np.asarray(picture if picture.mode == mode or mode == "I;16" else picture.convert(mode))
        if mode == "I;16":  # PPM's samples have 32 bits in memory
            pixels = pixels.astype(np.uint16)
        return _upright(pixels[:height, :width], self._turn)


def _keeps_what_is_there(picture: Any) -> bool:
    """Let a picture that fails to decode keep what was decoded before, if anything."""
    try:
        picture.tile = []  # nothing is left to decode
        picture.load()
        return picture.getbbox() is not None
    except (OSError, AttributeError):
        return False


def _opened(source: Source, format: str, max_pixels: int) -> Any:  # noqa: A002
    if format == "heic":
        return _heif(source)
    if format == "avif":
        raise _needs_vips(source.name, "an AVIF picture")
    if format == "bmp" and (size := bounds.check_bmp(source)) is not None:
        sniffing.check_pixels(source, *size, max_pixels)
    from importlib import import_module

    module, plugin = _PLUGINS[format]
    return getattr(import_module(f"PIL.{module}"), plugin)(io.BytesIO(source.read_all()))


def _check_bounds(source: Source, format: str, width: int, height: int) -> None:  # noqa: A002
    if format in ("heic", "jp2", "webp"):
        bounds.check_whole(source, width, height)
    if format == "ppm":
        bounds.check_ppm(source, width, height)
    elif format == "jpeg":
        bounds.check_jpeg(source, width, height)
    elif format == "tiff" and (kind := tiff_kinds.examine(source)) is not None:
        bounds.check_tiff(source, *kind.size, kind.bits, kind.compression)


def _bmp_profile(source: Source) -> bytes | None:
    """The ICC profile inside a BMP of version 5 (BITMAPV5HEADER: bV5CSType, bV5ProfileData and bV5ProfileSize)."""
    head = source.read_at(14, 124)
    if len(head) < 124 or head[:4] != (124).to_bytes(4, "little") or head[56:60] != b"DEBM":
        return None
    at, size = (int.from_bytes(head[place : place + 4], "little") for place in (112, 116))
    profile = source.read_at(14 + at, min(size, 16 << 20))
    return profile if len(profile) == size and profile[36:40] == b"acsp" else None


def _heif(source: Source) -> Any:
    try:
        import pillow_heif
    except ImportError as err:
        raise UnreadablePictureError(
            f"{source.name} is a HEIC picture, which needs one more package: {how_to_install('heic')}"
        ) from err
    return pillow_heif.open_heif(source.read_all(), convert_hdr_to_8bit=False)


def _usual_mode(picture: Any) -> str:
    """The mode of `_MODES` that can hold everything in the picture's own mode."""
    mode = str(picture.mode)
    if mode == "P" or "transparency" in picture.info:
        return "RGBA" if "transparency" in picture.info else "RGB"
    if mode in ("I", "I;16B", "I;16L"):
        return "I;16"
    return mode if mode in _MODES else "L" if mode == "1" else "RGB"


# Where libvips is missing


def _needs_vips(name: str, what: str) -> UnreadablePictureError:
    return UnreadablePictureError(
        f"{name} is {what}, which only libvips decodes as `srgan upscale` sees it, and pyvips is not installed here: "
        "pip install 'pyvips[binary]'"
    )


def _refuse_other_pixels(picture: Any, format: str, name: str) -> None:  # noqa: A002
    """Raises `UnreadablePictureError` for pictures that Pillow decodes to other pixels than libvips."""
    title = FORMATS[format].title
    if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"):
        raise _needs_vips(name, f"a {title} of the kind {picture.mode}")
    if format == "png" and "transparency" in picture.info and _is_deep(picture, format):
        raise _needs_vips(name, "a PNG of 16 bits with one transparent colour")
    if format == "gif" and tuple(picture.dispose_extent) != (0, 0, *picture.size):
        raise _needs_vips(name, "a GIF whose first frame is smaller than its canvas")
    if format == "tiff":
        _refuse_rare_tiff(picture, name)


# TIFF 6.0: the tags allowed in a plain picture, each with the values that both decoders treat the same way.
_PLAIN_TIFF = {
    254: (0,),  # a full picture, not a thumbnail or a page
    284: (1,),  # channels interleaved
    338: (2,),  # alpha, not premultiplied
    339: (1,),  # unsigned integers
}


def _refuse_rare_tiff(picture: Any, name: str) -> None:
    tags = picture.tag_v2
    kind, bits = tags.get(262, 1), tags.get(258, (1,))
    plain = all(
        set(value if isinstance(value, tuple) else (value,)) <= set(_PLAIN_TIFF[tag])
        for tag, value in ((tag, tags[tag]) for tag in _PLAIN_TIFF if tag in tags)
    )
    # For 16 bits, Pillow does not invert min-is-white, and OpenCV does not rotate the picture.
    deep = max(bits) > 8 and (kind not in (1, 2) or tags.get(274, 1) != 1)
    jpeg = kind == 6 and tags.get(259) == 7
    if not plain or deep or 330 in tags or (kind > 3 and not jpeg) or not set(bits) <= {1, 8, 16}:
        raise _needs_vips(name, "a TIFF of a rarer kind")


def _is_deep(picture: Any, format: str) -> bool:  # noqa: A002
    """Whether it has 16 bits per channel. Pillow's mode shows this only for grey; it reduces 16-bit colour to 8."""
    if picture.mode.startswith("I;16"):
        return True
    if format == "png":
        return any(str(tile[3]).endswith(";16B") for tile in picture.tile)
    return format == "tiff" and 16 in picture.tag_v2.get(258, ())


def _tiff_size(picture: Any) -> tuple[int, int]:
    """Height and width of a TIFF after loading with Pillow, which makes it upright."""
    width, height = int(picture.tag_v2[256]), int(picture.tag_v2[257])
    return (width, height) if picture.tag_v2.get(274, 1) in (5, 6, 7, 8) else (height, width)


def _by_opencv(data: bytes, mode: str) -> Pixels:
    import cv2

    loaded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if loaded is None or loaded.ndim != 3 or loaded.dtype != np.uint16:
        raise ValueError("its 16-bit samples cannot be decoded")
    order = {"LA;16": [0, 3], "RGB;16": [2, 1, 0], "RGBA;16": [2, 1, 0, 3]}[mode]  # of BGR(A)
    pixels: Pixels = loaded[..., order]
    return pixels


def _upright(pixels: Pixels, turn: int) -> Pixels:
    """Rotated upright, by EXIF's eight orientations."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
