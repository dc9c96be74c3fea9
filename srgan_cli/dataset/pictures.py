"""Files into pixels to learn from: 8-bit RGB, upright, by Pillow (OpenCV where Pillow would cut 16 bits to 8).

What a network meets when it enlarges is the numbers in the file, whatever colour space they are in, since `upscale`
keeps the profile and converts nothing. So nothing is converted here either, except what is not RGB at all: CMYK goes
through its profile. Grey becomes three equal channels. What is transparent is laid on white.

libvips is not needed, so that a training machine can do without it.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from PIL import ImageCms, UnidentifiedImageError

from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.formats import PICTURE_SUFFIXES

T = TypeVar("T")
R = TypeVar("R")

Bytes: TypeAlias = npt.NDArray[np.uint8]  # (H, W, 3), RGB

SUFFIXES = PICTURE_SUFFIXES | {".ppm", ".pgm", ".pnm", ".jp2", ".j2k"}
"""Lower-case suffixes of the files that a walk through a folder takes for pictures."""

# Named, so that no file reaches a decoder that runs programs (EPS) or that nobody means (icons, fonts).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM", "JPEG2000")
_GLANCE_PX = 256  # the shorter side to which a JPEG may be decoded smaller when it is only looked at

# ITU-T T.81, annex K, table K.1: luminance at quality 50 of libjpeg's scale, row by row.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)


@dataclass(frozen=True)
class Facts:
    """What one look at a picture tells.

    `width` and `height` are of the whole picture, upright. `digest` (hex) is equal for equal pictures: of its size and
    its pixels as they were looked at. `spread` is the standard deviation of its grey levels (of 255), without the
    finest grain. `jpeg_quality` is on libjpeg's scale of 1 to 100, None for other formats.
    """

    width: int
    height: int
    digest: str
    spread: float
    jpeg_quality: int | None


def read_pixels(path: Path) -> Bytes:
    """The whole picture, (H, W, 3) uint8.

    Raises `UnreadablePictureError`: missing, damaged, cut short, of an unknown format, above Pillow's limit of pixels.
    Its message is a reason, without the file's name.
    """
    return _decode(path, glance=False)[0]


def look_at(path: Path) -> Facts:
    """Facts of a picture; JPEGs are decoded smaller, which takes a fraction of the time. Raises as `read_pixels`."""
    pixels, (width, height), tables = _decode(path, glance=True)
    digest = hashlib.blake2b(f"{width}x{height};".encode(), digest_size=16)
    digest.update(pixels.data)
    quality = jpeg_quality(tables[min(tables)]) if tables else None  # luminance is mostly, not always, table 0
    return Facts(width, height, digest.hexdigest(), _spread(pixels), quality)


def jpeg_quality(luminance: npt.ArrayLike) -> int:
    """The quality on libjpeg's scale (1 to 100) whose luminance table is nearest to this one of 64 values.

    Exact for files by libjpeg; for cameras and Photoshop, which have tables of their own, what is most like them.
    """
    table = np.asarray(luminance).reshape(1, 64)
    return int(np.abs(_tables() - table).sum(axis=1).argmin()) + 1


@functools.cache
def _tables() -> npt.NDArray[np.int64]:
    """libjpeg's luminance tables of quality 1 to 100 (`jpeg_quality_scaling` and `jpeg_add_quant_table`)."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables: npt.NDArray[np.int64] = np.clip((_LUMINANCE.reshape(1, 64) * percent + 50) // 100, 1, 255)
    return tables


def in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`work` of each item, in the items' order, by threads that are only a few items ahead, so that memory stays small.

    Threads will do: Pillow and OpenCV let go of Python's lock while they decode and resize.
    """
    threads = cores()
    waiting: deque[Future[R]] = deque()
    rest = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="srgan-pictures")
    with _patient_pillow():
        try:
            waiting.extend(pool.submit(work, item) for item in islice(rest, threads + 2))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _patient_pillow() -> Iterator[None]:
    """Without Pillow's warnings (odd EXIF, more than 89 megapixels), which are nobody's concern here.

    The filters belong to the whole process and not to a thread, so they are set once around all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif")
        yield


def _decode(path: Path, *, glance: bool) -> tuple[Bytes, tuple[int, int], dict[int, list[int]]]:
    """Pixels, the whole picture's upright width and height, and a JPEG's quantisation tables."""
    try:
        data = path.read_bytes()
        if not data:
            raise UnreadablePictureError("the file is empty")
        with Pillow.open(io.BytesIO(data), formats=_formats()) as picture:
            tables = getattr(picture, "quantization", None) or {}
            width, height = picture.size
            deep = _is_deep(picture)
            if glance:
                _shrink_on_load(picture)
            picture.load()
            orientation = picture.getexif().get(0x0112, 1)  # now, since a TIFF is upright once it is loaded
            pixels = _upright(_as_rgb(picture, data if deep else None), orientation)
    except UnreadablePictureError:
        raise
    except Exception as err:  # decoders raise whatever they stumble over, and it is one picture's trouble
        raise UnreadablePictureError(_reason(path, err)) from err
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    return np.ascontiguousarray(pixels), (width, height), tables


@functools.cache
def _formats() -> tuple[str, ...]:
    Pillow.init()
    known = tuple(name for name in _FORMATS if name in Pillow.OPEN)  # AVIF is not in every build
    try:
        import pillow_heif
    except ImportError:
        return known
    pillow_heif.register_heif_opener()
    return (*known, "HEIF")


def _reason(path: Path, err: Exception) -> str:
    if isinstance(err, Pillow.DecompressionBombError):
        return f"more than {2 * (Pillow.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} megapixels; cut it into parts"
    if isinstance(err, UnidentifiedImageError):
        if path.suffix.lower() in (".heic", ".heif", ".hif") and "HEIF" not in _formats():
            return "HEIC needs one more package: pip install 'srgan-cli[heic]'"
        return "not a picture, or damaged at its very start"
    if isinstance(err, OSError) and err.strerror:
        return f"cannot be opened: {err.strerror.lower()}"
    return f"damaged or incomplete: {str(err).strip().lower() or type(err).__name__}"


def _shrink_on_load(picture: Pillow.Image) -> None:
    """JPEG can be decoded to a half, a quarter or an eighth; the whole of its data is read, and checked, all the
    same."""
    shorter = min(picture.size)
    if shorter > _GLANCE_PX:
        factor = _GLANCE_PX / shorter
        picture.draft(None, (int(picture.width * factor), int(picture.height * factor)))


# Modes


def _as_rgb(picture: Pillow.Image, deep_data: bytes | None) -> Bytes:
    """A loaded picture's pixels. `deep_data`: the file, where it has 16 bits a channel."""
    if deep_data is not None:
        return _flattened(_rounded(picture, deep_data))
    if picture.mode in ("CMYK", "LAB"):
        return np.asarray(_through_profile(picture))
    if picture.mode in ("I", "F"):
        raise UnreadablePictureError("its samples are of 32 bits; convert it to 8 or 16 bits first")
    clear = picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info
    if clear:
        return _flattened(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _is_deep(picture: Pillow.Image) -> bool:
    """Whether it has 16 bits a channel. Pillow's mode tells only for grey; it cuts 16-bit colour to 8."""
    if picture.mode.startswith("I;16") or (picture.format == "PPM" and picture.mode == "I"):
        return True
    if picture.mode not in ("RGB", "RGBA", "LA"):
        return False
    if picture.format == "PNG":
        return any(raw.endswith(";16B") for raw in (str(tile[3]) for tile in picture.tile))  # type: ignore[attr-defined]
    if picture.format != "TIFF":
        return False
    tags = picture.tag_v2  # type: ignore[attr-defined]
    # OpenCV cannot turn such a file on its side; Pillow's 8 bits, half a level too dark, are better than none.
    return 16 in tags.get(258, ()) and tags.get(274, 1) < 5


def _rounded(picture: Pillow.Image, data: bytes) -> npt.NDArray[Any]:
    """16-bit pixels as 8-bit ones, rounded: (H, W), (H, W, 3) or (H, W, 4)."""
    if picture.mode.startswith("I"):
        wide = np.asarray(picture)
    else:
        loaded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if loaded is None or loaded.ndim != 3 or loaded.dtype != np.uint16:
            raise UnreadablePictureError("its 16-bit samples cannot be decoded here; convert it to 8 bits first")
        wide = loaded[..., [2, 1, 0, 3][: loaded.shape[2]]]  # BGR(A) -> RGB(A)
    # 65535 = 255 × 257, so this is the nearest 8-bit value.
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _flattened(pixels: npt.NDArray[Any]) -> Bytes:
    """Grey, RGB or RGBA of 8 bits as RGB, laid on white where it is transparent."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    if pixels.shape[2] == 3 or pixels[..., 3].min() == 255:
        return pixels[..., :3]
    colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:].astype(np.uint16)
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _through_profile(picture: Pillow.Image) -> Pillow.Image:
    srgb = ImageCms.createProfile("sRGB")
    if picture.mode == "LAB":
        source: Any = ImageCms.createProfile("LAB")
    elif picture.info.get("icc_profile"):
        source = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
    else:
        raise UnreadablePictureError("CMYK without a colour profile: nobody knows its colours; convert it to RGB first")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    result = ImageCms.profileToProfile(picture, source, srgb, renderingIntent=intent, outputMode="RGB")
    assert result is not None
    return result


def _upright(pixels: Bytes, orientation: int) -> Bytes:
    """By the eight orientations of the EXIF standard."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _spread(pixels: Bytes) -> float:
    height, width = pixels.shape[:2]
    factor = min(1.0, _GLANCE_PX / min(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if factor < 1 else pixels
    return float(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).std())
