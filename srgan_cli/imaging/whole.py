"""BMP and HEIC: the formats that Pillow and pillow-heif decode, whole."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging import bounds, sniffing
from srgan_cli.imaging.image import Depth
from srgan_cli.imaging.sources import Source

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


class WholePicture:
    """A picture whose header is read, and that `decode` gives whole. Made inside `decoding.boundary`."""

    def __init__(self, source: Source, format: str, max_pixels: int) -> None:  # noqa: A002
        self._picture = _bmp(source, max_pixels) if format == "bmp" else _heif(source)
        self.width, self.height = self._picture.size
        sniffing.check_pixels(source, self.width, self.height, max_pixels)
        bounds.check_whole(source, self.width, self.height)
        mode = self._picture.mode
        self._as_mode = None if mode in _MODES else "L" if mode == "1" else "RGB"  # 1-bit and palette BMP
        self.channels, self.depth = _MODES[self._as_mode or mode]
        self.info: dict[str, Any] = dict(self._picture.info)
        if format == "bmp" and (profile := _bmp_profile(source)):
            self.info["icc_profile"] = profile

    @property
    def decode(self) -> Callable[[], Any]:
        picture, mode = self._picture, self._as_mode
        return lambda: np.asarray(picture if mode is None else picture.convert(mode))


def _bmp(source: Source, max_pixels: int) -> Any:
    from PIL import BmpImagePlugin

    size = bounds.check_bmp(source)
    if size is not None:
        sniffing.check_pixels(source, *size, max_pixels)
    # The plugin itself and not Image.open, whose own limit on pixels is not the one the person set.
    return BmpImagePlugin.BmpImageFile(io.BytesIO(source.read_all()))


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
            f"{source.name} is a HEIC picture, which needs one more package: pip install 'srgan-cli[heic]'"
        ) from err
    return pillow_heif.open_heif(source.read_all(), convert_hdr_to_8bit=False)
