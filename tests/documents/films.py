"""Animations made by Pillow, with known frames."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

DELAYS = [40, 50, 60, 70, 80, 90]
WIDTH, HEIGHT = 40, 24


def frames(*, clear: bool = False) -> list[Pillow.Image]:
    """A disc that wanders over a gradient, or over nothing."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    base = np.stack([columns * 6, rows * 10, (rows + columns) * 4], -1).astype(np.uint8)
    made = []
    for number in range(len(DELAYS)):
        picture = Pillow.fromarray(base).convert("RGBA")
        if clear:
            picture = Pillow.new("RGBA", (WIDTH, HEIGHT))
        left = 2 + 5 * number
        ImageDraw.Draw(picture).ellipse((left, 6, left + 10, 16), fill=(255, 40, 40, 255))
        made.append(picture if clear else picture.convert("RGB"))
    return made


def film(format: str, *, clear: bool = False, plays: int = 3, **options: Any) -> bytes:  # noqa: A002
    """`plays` 0: without end."""
    settings: dict[str, Any] = {"save_all": True, "append_images": frames(clear=clear)[1:], "duration": DELAYS}
    if format == "GIF":
        settings |= {"disposal": 2 if clear else 1}
        settings |= {} if plays == 1 else {"loop": plays - 1 if plays else 0}
    else:
        settings |= {"loop": plays}
    if format == "WEBP":
        settings |= {"lossless": True, "exact": True}
    stream = io.BytesIO()
    frames(clear=clear)[0].save(stream, format, **(settings | options))
    return stream.getvalue()
