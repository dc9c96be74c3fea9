"""Makes the README's picture: `python docs/images/make.py`, from any folder, with srgan installed.

Left: the example enlarged by bicubic interpolation; right: by `srgan upscale`; the same part of both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
CAT = HERE.parent.parent / "examples" / "cat.jpg"
SCALE = 4
PART = (96, 42, 212, 137)  # left, top, right, bottom in px of the example
GAP_PX, LABEL_PX = 8, 34


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        large = Path(folder) / "large.png"
        command = [sys.executable, "-m", "srgan_cli", "upscale", str(CAT), "-o", str(large), "--scale", str(SCALE)]
        subprocess.run([*command, "--quiet"], check=True)
        ours = Image.open(large).convert("RGB")
    low = Image.open(CAT).convert("RGB")
    bicubic = low.resize((low.width * SCALE, low.height * SCALE), Image.Resampling.BICUBIC)
    pair(bicubic, ours).save(HERE / "cat.jpg", quality=90, subsampling=0, optimize=True)
    return 0


def pair(left: Image.Image, right: Image.Image) -> Image.Image:
    """The part of both pictures, side by side under their labels."""
    box = tuple(SCALE * side for side in PART)
    width, height = box[2] - box[0], box[3] - box[1]
    sheet = Image.new("RGB", (2 * width + GAP_PX, height + LABEL_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(20)
    for picture, label, x in ((left, "bicubic, x4", 0), (right, "srgan, x4", width + GAP_PX)):
        draw.text((x + 4, 5), label, fill="black", font=font)
        sheet.paste(picture.crop(box), (x, LABEL_PX))  # type: ignore[arg-type]
    return sheet


if __name__ == "__main__":
    raise SystemExit(main())
