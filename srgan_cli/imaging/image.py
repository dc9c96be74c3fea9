"""A picture: its pixels, and everything needed to write it back as faithfully as it was read.

Arrays are HWC, RGB order, `uint8` or `uint16`, full range, in the picture's own colour space (given by its ICC
profile). C is 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA). Alpha is straight, never premultiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[Any]  # uint8 or uint16, (H, W, C)
Depth: TypeAlias = Literal[8, 16]


@dataclass(frozen=True)
class Metadata:
    """Everything in a file besides the pixels.

    `exif` is the bare TIFF structure (it starts with `II*\\0` or `MM\\0*`, without a leading `Exif\\0\\0`), as
    in the file. `xmp` is the packet's bytes, `icc` the profile's bytes, `dpi` pixels per inch (horizontal, vertical).
    `iptc` is a JPEG file's APP13 block (captions and keywords of older programs); other containers hold it in other
    forms. `text` holds PNG's keywords and their texts. `colour` describes the colour space by PNG's chunks (`cICP`,
    `sRGB`, `gAMA`, `cHRM`), if the file does so besides a profile or instead of one.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    iptc: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    colour: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Header:
    """Everything known about a picture before its pixels are decoded.

    `width` and `height` are in px after applying the EXIF orientation (upright). `format` is a key of
    `srgan_cli.imaging.formats.FORMATS`. `notes` are sentences for the user ("first of 12 frames"). `left_out` are
    sentences about metadata that cannot be carried over, shown on request. `orientation` (1 to 8) is how the picture
    was stored. `pages` is the number of pages or frames in the file; this is the first.
    """

    width: int
    height: int
    channels: int
    depth: Depth
    format: str
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()
    orientation: int = 1
    pages: int = 1
    left_out: tuple[str, ...] = ()

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8 if self.depth == 8 else np.uint16)

    @property
    def decoded_bytes(self) -> int:
        return self.width * self.height * self.channels * self.depth // 8


@dataclass(frozen=True)
class Image:
    """A whole decoded picture."""

    pixels: Pixels
    header: Header
