"""What a picture is: its pixels, and everything needed to write it back as faithfully as it was read.

Arrays are HWC, RGB order, `uint8` or `uint16`, full range, in the picture's own colour space (its ICC profile says
which). C is 1 (grey), 2 (grey + alpha), 3 (RGB) or 4 (RGBA); alpha is straight, never premultiplied.
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
    """What travels beside the pixels.

    `exif` is the bare TIFF structure (it starts with `II*\\0` or `MM\\0*`; no `Exif\\0\\0` in front), as in the file.
    `xmp` is the packet's bytes, `icc` the profile's bytes, `dpi` pixels per inch (horizontal, vertical). `iptc` is a
    JPEG file's APP13 block (captions and keywords of older programs); other containers hold it in other forms. `text`
    are PNG's keywords with what they say. `colour` tells what the colours are in the words of PNG's chunks (`cICP`,
    `sRGB`, `gAMA`, `cHRM`), where a file does so beside or in the place of a profile.
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
    """Everything known of a picture before its pixels are decoded.

    `width` and `height` are in px and upright: the EXIF orientation is already taken into account. `format` is a key
    of `srgan_cli.imaging.formats.FORMATS`. `notes` are sentences a person should hear ("first of 12 frames");
    `left_out` are those on what stands beside the pixels and cannot travel, for people who want it to.
    `orientation` (1 to 8) is how the picture was stored. `pages` is how many pages or frames the file has, of which
    this is the first.
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
