"""Intact pictures of every format, depth and layout that can be generated here. Files of many pictures: `documents`."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import PngImagePlugin

from tests.imaging import samples

WIDTH, HEIGHT = 23, 17


@dataclass(frozen=True)
class Seed:
    """One sound file. `suffix` with its dot."""

    name: str
    suffix: str
    data: bytes


def pictures() -> Iterator[Seed]:
    """Files of one picture, and a few animations; without data where a codec is missing."""
    for make in (_png, _jpeg, _webp, _gif, _bmp, _tiff, _tiff_of_vips, _avif, _heic, _jpeg2000):
        yield from make()


def picture(mode: str) -> Pillow.Image:
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
    if mode in channels:
        pixels = samples.pixels(HEIGHT, WIDTH, channels[mode])
        return Pillow.fromarray(pixels[:, :, 0] if mode == "L" else pixels)
    if mode.startswith("I;16") or mode == "I":
        return Pillow.fromarray(samples.pixels(HEIGHT, WIDTH, 1, 16)[:, :, 0])
    return picture("RGB").convert(mode)


def saved(image: Pillow.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    """As a file; nothing where Pillow cannot write that here."""
    stream = io.BytesIO()
    with suppress(OSError, ValueError, KeyError, TypeError):  # a codec that is not there, or cannot do this
        image.save(stream, format, **options)
        return stream.getvalue()
    return b""


def _png() -> Iterator[Seed]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield Seed(f"png {mode}", ".png", saved(picture(mode), "PNG"))
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a", zip=True)
    text.add_itxt("XML:com.adobe.xmp", samples.XMP.decode())
    about = {"icc_profile": samples.srgb(), "exif": samples.exif(), "dpi": (300, 300), "pnginfo": text}
    yield Seed("png with everything", ".png", saved(picture("RGB"), "PNG", **about))
    yield Seed("png palette with alpha", ".png", saved(picture("P"), "PNG", transparency=bytes(range(200))))
    for depth, colour in ((1, 0), (2, 0), (4, 0), (2, 3), (4, 3), (16, 0), (16, 2), (16, 4), (16, 6)):
        yield Seed(f"png {depth} bit, colour {colour}", ".png", _plain_png(depth, colour))
    for chunk, value in ((b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0"), (b"cICP", bytes([9, 16, 0, 1])),
                         (b"tEXt", b"K\xf6ln\0text"), (b"zTXt", b"a\0\0" + zlib.compress(b"b" * 99))):  # fmt: skip
        yield Seed(f"png {chunk.decode()}", ".png", _plain_png(8, 2, chunk, value))


def _plain_png(depth: int, colour: int, extra: bytes = b"", value: bytes = b"") -> bytes:
    """By hand: Pillow writes few of the depths that the format has."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row_bytes = -(-WIDTH * channels * depth // 8)
    dice = np.random.default_rng([depth, colour])
    rows = b"".join(b"\0" + dice.integers(0, 256, row_bytes, np.uint8).tobytes() for _ in range(HEIGHT))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0))]
    chunks += [(extra, value)] if extra else []
    chunks += [(b"PLTE", dice.integers(0, 256, 3 << depth, np.uint8).tobytes())] if colour == 3 else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _jpeg() -> Iterator[Seed]:
    for mode in ("L", "RGB", "CMYK"):
        yield Seed(f"jpeg {mode}", ".jpg", saved(picture(mode), "JPEG"))
    for options in ({"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 1}, {"optimize": True},
                    {"quality": 5}, {"keep_rgb": True}):  # fmt: skip
        yield Seed(f"jpeg {options}", ".jpg", saved(picture("RGB"), "JPEG", **options))
    about = {"icc_profile": samples.srgb(), "exif": samples.exif(), "dpi": (300, 300), "xmp": samples.XMP}
    yield Seed("jpeg with everything", ".jpg", saved(picture("RGB"), "JPEG", **about))
    yield Seed("jpeg exif, big endian", ".jpg", saved(picture("RGB"), "JPEG", exif=samples.exif(">")))


def _webp() -> Iterator[Seed]:
    for options in ({}, {"lossless": True}, {"exact": True, "lossless": True}):
        for mode in ("RGB", "RGBA"):
            yield Seed(f"webp {mode} {options}", ".webp", saved(picture(mode), "WEBP", **options))
    about = {"icc_profile": samples.srgb(), "exif": samples.exif(), "xmp": samples.XMP}
    yield Seed("webp with everything", ".webp", saved(picture("RGBA"), "WEBP", **about))
    frames = [picture("RGB").rotate(90 * n) for n in range(3)]
    yield Seed("webp animation", ".webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:]))


def _gif() -> Iterator[Seed]:
    yield Seed("gif", ".gif", saved(picture("P"), "GIF"))
    yield Seed("gif transparent", ".gif", saved(picture("P"), "GIF", transparency=3))
    frames = [picture("RGB").rotate(20 * n).convert("P") for n in range(3)]
    yield Seed("gif animation", ".gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    yield Seed("gif interlaced", ".gif", saved(picture("L"), "GIF", interlace=True))


def _bmp() -> Iterator[Seed]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield Seed(f"bmp {mode}", ".bmp", saved(picture(mode), "BMP"))
    yield Seed("bmp rle", ".bmp", _rle_bmp())


def _rle_bmp() -> bytes:
    rows = b"".join(bytes([WIDTH, y % 4, 0, 0]) for y in range(HEIGHT)) + b"\0\1"
    palette = b"".join(bytes([n * 60, n * 40, n * 20, 0]) for n in range(4))
    head = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(rows), 0, 0, 4, 4)
    start = 14 + len(head) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + head + palette + rows


def _tiff() -> Iterator[Seed]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "YCbCr", "LAB"):
        yield Seed(f"tiff {mode}", ".tif", saved(picture(mode), "TIFF"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group4", "webp", "zstd", "tiff_ccitt"):
        mode = "1" if compression in ("group4", "tiff_ccitt") else "RGB"
        yield Seed(f"tiff {compression}", ".tif", saved(picture(mode), "TIFF", compression=compression))
    frames = [picture("RGB"), picture("RGB").rotate(90)]
    yield Seed("tiff pages", ".tif", saved(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    yield Seed("tiff exif", ".tif", saved(picture("RGB"), "TIFF", icc_profile=samples.srgb(), dpi=(300, 300)))


def _tiff_of_vips() -> Iterator[Seed]:
    import pyvips

    for depth in (8, 16):
        for channels in (1, 3, 4):
            array = samples.pixels(HEIGHT, WIDTH, channels, depth)
            image = pyvips.Image.new_from_array(array)
            for options in ({"tile": True, "tile_width": 16, "tile_height": 16}, {"bigtiff": True},
                            {"tile": True, "pyramid": True, "tile_width": 16, "tile_height": 16},
                            {"compression": "deflate", "predictor": "horizontal"}):  # fmt: skip
                with suppress(pyvips.Error):
                    yield Seed(f"tiff {depth}x{channels} {options}", ".tif", image.tiffsave_buffer(**options))


def _avif() -> Iterator[Seed]:
    import pyvips

    for depth, channels, bits in ((8, 3, 8), (8, 4, 8), (8, 1, 8), (16, 3, 10), (16, 3, 12)):
        image = pyvips.Image.new_from_array(samples.pixels(HEIGHT * 2, WIDTH * 2, channels, depth))
        with suppress(pyvips.Error):
            yield Seed(f"avif {bits}x{channels}", ".avif", image.heifsave_buffer(compression="av1", bitdepth=bits))


def _heic() -> Iterator[Seed]:
    """Where pillow-heif is installed."""
    with suppress(ImportError):
        import pillow_heif

        about = {"icc_profile": samples.srgb(), "exif": samples.exif(), "xmp": samples.XMP}
        for title, modes, options in (("L", ("L",), {}), ("RGB", ("RGB",), {}), ("RGBA", ("RGBA",), {}),
                                      ("16 bits", ("I;16",), {}), ("of two", ("RGB", "L"), {}),
                                      ("with everything", ("RGB",), about)):  # fmt: skip
            file = pillow_heif.HeifFile()
            for mode in modes:
                file.add_from_pillow(picture(mode))
            stream = io.BytesIO()
            with suppress(RuntimeError, ValueError, OSError):  # no encoder for HEVC
                file.save(stream, quality=60, **options)
            yield Seed(f"heic {title}", ".heic", stream.getvalue())


def _jpeg2000() -> Iterator[Seed]:
    for mode in ("L", "LA", "RGB", "RGBA", "I;16", "YCbCr"):
        yield Seed(f"jpeg2000 {mode}", ".jp2", saved(picture(mode), "JPEG2000"))
    for options in ({"irreversible": True}, {"tile_size": (16, 16)}, {"num_resolutions": 2}, {"no_jp2": True},
                    {"progression": "RPCL"}, {"quality_layers": [20, 4], "quality_mode": "rates"}):  # fmt: skip
        yield Seed(f"jpeg2000 {options}", ".jp2", saved(picture("RGB"), "JPEG2000", **options))
