"""Makes the pictures of text and shapes that the bundled `srgan` models learned from, beside photographs.

    python -m benchmarks.drawings OUT [--count 80] [--seed 1] [--side-px 640]

Photographs hold little text and few drawings, and a network that never saw a black letter on white paper puts specks of
colour around it. Each picture is a page: lines of text in several sizes, turned a little or not, or a drawing of
polygons, circles and strokes, or both, in a few inks on plain or softly graded paper. Letters are those of Pillow's own
font (Aileron, CC0) and of OpenCV's strokes (Hershey's, public domain).
"""

from __future__ import annotations

import argparse
import string
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_OVERSAMPLING = 2  # drawn larger and reduced, so that edges are smooth


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drawings", description="Pictures of text and shapes.")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side-px", type=int, default=640)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.count):
        rng = np.random.default_rng((arguments.seed, number))
        drawn(rng, arguments.side_px).save(arguments.out / f"drawing-{number:03}.png")
    return 0


def drawn(rng: np.random.Generator, side_px: int) -> Image.Image:
    """One square page, RGB."""
    side = side_px * _OVERSAMPLING
    dark = rng.random() < 0.2
    page = _paper(rng, side, dark=dark)
    draw = ImageDraw.Draw(page)
    kind = rng.choice(["text", "shapes", "both"])
    if kind != "text":
        for _ in range(int(rng.integers(4, 14))):
            _shape(draw, rng, side, dark=dark)
    if kind != "shapes":
        _lines(page, rng, side, dark=dark)
    return page.resize((side_px, side_px), Image.Resampling.BOX)


def _paper(rng: np.random.Generator, side: int, *, dark: bool) -> Image.Image:
    level = rng.integers(0, 60) if dark else rng.integers(200, 256)
    base = np.clip(level + (rng.normal(0, 6, 3) if rng.random() < 0.5 else 0), 0, 255)
    ramp = np.linspace(0, rng.uniform(-20, 20) if rng.random() < 0.3 else 0, side)
    shade = ramp[:, None, None] + base  # a page in the light of a lamp
    pixels = np.broadcast_to(np.clip(shade, 0, 255), (side, side, 3))
    return Image.fromarray(pixels.round().astype(np.uint8))


def _ink(rng: np.random.Generator, *, dark: bool) -> tuple[int, int, int]:
    if rng.random() < 0.6:  # black, or white on dark paper, and greys
        grey = int(rng.integers(0, 70))
        grey = 255 - grey if dark else grey
        return grey, grey, grey
    red, green, blue = (int(v) for v in rng.integers(0, 256, 3))
    return red, green, blue


def _shape(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int, *, dark: bool) -> None:
    ink, width = _ink(rng, dark=dark), int(rng.integers(1, 14)) * _OVERSAMPLING
    x, y = (int(v) for v in rng.integers(0, side, 2))
    size = int(rng.integers(side // 20, side // 3))
    kind = rng.choice(["line", "circle", "ring", "polygon", "grid"])
    if kind == "line":
        points = np.array([x, y]) + rng.integers(-size, size, (int(rng.integers(2, 6)), 2))
        draw.line([(int(a), int(b)) for a, b in points], fill=ink, width=width, joint="curve")
    elif kind in ("circle", "ring"):
        box = (x - size, y - size, x + size, y + size)
        draw.ellipse(box, fill=ink if kind == "circle" else None, outline=ink, width=width)
    elif kind == "polygon":
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
        draw.polygon([(int(x + size * np.cos(a)), int(y + size * np.sin(a))) for a in angles], fill=ink)
    else:
        step = max(4 * width, size // 8)
        for at in range(0, size, step):
            draw.line([(x + at, y), (x + at, y + size)], fill=ink, width=width)
            draw.line([(x, y + at), (x + size, y + at)], fill=ink, width=width)


def _lines(page: Image.Image, rng: np.random.Generator, side: int, *, dark: bool) -> None:
    mask = Image.new("L", page.size)
    y = int(rng.integers(0, side // 8))
    while y < side:
        size = int(rng.choice([9, 11, 13, 16, 20, 28, 40, 64])) * _OVERSAMPLING
        if rng.random() < 0.7:
            ImageDraw.Draw(mask).text(
                (int(rng.integers(0, 40)), y), _words(rng), 255, font=ImageFont.load_default(size)
            )
        else:
            mask = Image.fromarray(_stroked(np.array(mask), _words(rng), y, size, rng))
        y += int(size * rng.uniform(1.2, 2.2))
    if rng.random() < 0.5:
        mask = mask.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BICUBIC)
    page.paste(_ink(rng, dark=dark), (0, 0), mask)


def _stroked(
    mask: npt.NDArray[np.uint8], words: str, y: int, size: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    import cv2

    thickness = max(1, int(size * rng.uniform(0.03, 0.1)))
    face = int(rng.choice([cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX]))
    cv2.putText(mask, words, (0, y + size), face, size / 30, 255, thickness, cv2.LINE_AA)
    return mask


def _words(rng: np.random.Generator) -> str:
    letters = string.ascii_lowercase * 3 + string.ascii_uppercase + string.digits
    return " ".join(
        "".join(rng.choice(list(letters), int(rng.integers(1, 11)))) + str(rng.choice(["", "", ",", ".", "!"]))
        for _ in range(24)
    )


if __name__ == "__main__":
    raise SystemExit(main())
