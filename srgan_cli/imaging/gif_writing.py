"""GIF frame by frame: 256 colours per frame, binary transparency, and only the changed pixels.

Unchanged pixels are written as transparent, so they keep their colour on the screen whatever the frame's palette. This
includes changes of a few levels, since noise would make pixels flip between neighbouring colours of the palette.
"""

from __future__ import annotations

import io
import struct
from typing import Any, BinaryIO

import numpy as np

from srgan_cli.imaging.changes import Box, box_of, whole
from srgan_cli.imaging.image import Pixels

GIF_NOTE = "GIF has 256 colours a frame, and pixels are transparent or not"
_COLOURS = 255  # plus one that is transparent
_CLEAR = 255
_OPAQUE_FROM = 128  # of 255
_SAME = 4  # how far a pixel's colour may drift, in levels of 255, before it is drawn again
# a new palette is made when the colour error exceeds that of the frame it was made from by this much
_WORSE = 1.25, 2.0
_KEEP, _TO_CLEAR = 1, 2  # disposals

Colours = np.ndarray[Any, np.dtype[np.uint8]]


class GifWriter:
    """Writes a GIF into `file` with a delay of one frame, since the next frame decides how a frame is disposed of.

    `plays`: how often the animation is played; 0 means endlessly.
    """

    def __init__(self, file: BinaryIO, width: int, height: int, plays: int) -> None:
        self._file, self._size = file, (width, height)
        self._palette: Any = None
        self._palette_error = 0.0
        self._shown: Colours | None = None  # (H, W, 3), the colours drawn, before reduction to the palette
        self._opaque = np.zeros((height, width), bool)  # pixels of the screen that are not transparent
        self._waiting: tuple[Colours, np.ndarray[Any, np.dtype[np.bool_]], int] | None = None
        self._rest_ms = 0.0
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
        if plays != 1:
            again = 0 if plays == 0 else plays - 1
            file.write(b"!\xff\x0bNETSCAPE2.0\3\1" + struct.pack("<H", min(again, 65535)) + b"\0")

    def add(self, pixels: Pixels, delay_ms: int) -> None:
        """Add a frame: (H, W, 3 or 4) uint8 with straight alpha."""
        opaque = np.ones(pixels.shape[:2], bool) if pixels.shape[2] == 3 else pixels[:, :, 3] >= _OPAQUE_FROM
        coming: Colours = np.ascontiguousarray(pixels[:, :, :3])
        if self._waiting is not None:
            self._write(*self._waiting, clears=bool((self._waiting[1] & ~opaque).any()))
        self._waiting = coming, opaque, delay_ms

    def flush(self) -> None:
        """Write the pending frame, without clearing anything for a next one."""
        if self._waiting is not None:
            self._write(*self._waiting, clears=False)
            self._waiting = None

    def finish(self) -> None:
        self.flush()
        self._file.write(b";")

    def _write(
        self, colours: Colours, opaque: np.ndarray[Any, np.dtype[np.bool_]], delay_ms: int, *, clears: bool
    ) -> None:
        drawn = opaque
        if self._shown is not None:
            drift = np.abs(colours.astype(np.int16) - self._shown).max(2)
            drawn = opaque & (~self._opaque | (drift > _SAME))
        box = whole(colours) if clears or self._shown is None else box_of(drawn)
        if self._shown is None:
            self._shown = np.zeros_like(colours)
        self._shown[drawn] = colours[drawn]
        self._opaque |= drawn
        self._draw(colours, drawn, box, delay_ms, _TO_CLEAR if clears else _KEEP)
        if clears:
            self._opaque[:] = False

    def _draw(
        self, colours: Colours, drawn: np.ndarray[Any, np.dtype[np.bool_]], box: Box, delay_ms: int, disposal: int
    ) -> None:
        part, mask = box.of(colours), box.of(drawn)
        palette, indices = self._indices(part, mask)
        indices[~mask] = _CLEAR
        self._rest_ms += delay_ms
        hundredths = round(self._rest_ms / 10)
        self._rest_ms -= hundredths * 10
        control = struct.pack("<BHB", disposal << 2 | (not mask.all()), min(hundredths, 65535), _CLEAR)
        place = struct.pack("<4HB", box.left, box.top, box.width, box.height, 0x87)
        self._file.write(b"!\xf9\4" + control + b"\0," + place + palette + _packed(indices))

    def _indices(self, part: Colours, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[bytes, Colours]:
        """The palette of 256 colours, and the palette index of each px."""
        from PIL import Image as Pillow

        picture = Pillow.fromarray(part)
        if self._palette is not None:
            indices, error = self._mapped(picture, part, mask)
            if error <= self._palette_error * _WORSE[0] + _WORSE[1]:
                return self._palette_bytes(), indices
        # Only pixels that are drawn determine the colours.
        seen = part[mask] if mask.any() else part.reshape(-1, 3)
        side = max(1, int(len(seen) ** 0.5))
        sample = Pillow.fromarray(np.ascontiguousarray(seen[: side * (len(seen) // side)].reshape(side, -1, 3)))
        self._palette = sample.quantize(_COLOURS, method=Pillow.Quantize.MEDIANCUT, kmeans=2)
        indices, self._palette_error = self._mapped(picture, part, mask)
        return self._palette_bytes(), indices

    def _mapped(self, picture: Any, part: Colours, mask: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[Colours, float]:
        from PIL import Image as Pillow

        mapped = picture.quantize(palette=self._palette, dither=Pillow.Dither.FLOYDSTEINBERG)
        indices: Colours = np.asarray(mapped).copy()
        if not mask.any():
            return indices, 0.0
        plain = picture.quantize(palette=self._palette, dither=Pillow.Dither.NONE)
        table = np.frombuffer(self._palette_bytes(), np.uint8).reshape(256, 3)
        error = np.abs(table[np.asarray(plain)].astype(np.int16) - part)[mask].mean()
        return indices, float(error)

    def _palette_bytes(self) -> bytes:
        data: bytes = bytes(self._palette.getpalette("RGB"))[: 3 * _COLOURS]
        return data.ljust(3 * 256, b"\0")


def _packed(indices: Colours) -> bytes:
    """LZW data of (H, W) from Pillow: the code size, the blocks, and their end."""
    from PIL import Image as Pillow

    picture = Pillow.fromarray(indices)
    picture.putpalette([level for level in range(256) for _ in range(3)])
    stream = io.BytesIO()
    picture.save(stream, "GIF", optimize=False, interlace=False)
    data = stream.getvalue()
    at = 13 + 3 * 256  # the header and its table
    while data[at : at + 1] == b"!":
        at += 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    at += 10 + (3 << ((data[at + 9] & 7) + 1) if data[at + 9] & 0x80 else 0)
    end = at + 1
    while data[end]:
        end += 1 + data[end]
    return data[at : end + 1]
