"""Where the first frame of a GIF stands on its canvas (GIF89a specification, sections 18 to 23)."""

from __future__ import annotations

import struct
from typing import Any

from srgan_cli.imaging.sources import Source, vips_module

_MAX_BLOCKS = 100_000


def first_frame(source: Source) -> tuple[int, int, int, int] | None:
    """Left, top, width and height in px; None where no frame is found."""
    head = source.read_at(0, 13)
    if len(head) < 13:
        return None
    at = 13 + (3 << ((head[10] & 7) + 1) if head[10] & 0x80 else 0)
    for _ in range(_MAX_BLOCKS):
        block = source.read_at(at, 9)
        if len(block) == 9 and block[0] == 0x2C:
            left, top, width, height = struct.unpack("<4H", block[1:])
            return left, top, width, height
        if block[:1] != b"!":
            return None
        at += 2
        while (size := source.read_at(at, 1)) not in (b"", b"\0"):
            at += 1 + size[0]
        at += 1
    return None


def around_clear(image: Any, frame: tuple[int, int, int, int] | None) -> Any:
    """The libvips image of a canvas, transparent where its opaque first frame does not reach."""
    if frame is None or image.bands in (2, 4):  # it has transparency already, and libvips has used it
        return image
    left, top, width, height = frame
    if left == 0 and top == 0 and width >= image.width and height >= image.height:
        return image
    frame_px = (vips_module().Image.black(max(width, 1), max(height, 1)) + 255).cast("uchar")
    alpha = frame_px.embed(left, top, image.width, image.height)
    return image.bandjoin(alpha).copy(interpretation=image.interpretation)
