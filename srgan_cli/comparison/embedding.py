"""A page that needs no other file and no network: its frame, and pictures inside it as `data:` addresses."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from srgan_cli.errors import shown
from srgan_cli.imaging.image import Pixels


@dataclass(frozen=True)
class Codec:
    """How to write pictures of one kind: (H, W, 3) uint8. `quality` 0: lossless."""

    format: str
    quality: int = 0

    @property
    def mime(self) -> str:
        return f"image/{self.format.lower()}"

    def encode(self, pixels: Pixels) -> bytes:
        file = io.BytesIO()
        # Not `optimize` for JPEG: Pillow's buffer for it is too small for noisy pictures.
        options: dict[str, Any] = {"quality": self.quality, "subsampling": 0} if self.quality else {}
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, self.format, **options)
        return file.getvalue()

    def address(self, data: bytes) -> str:
        return f"data:{self.mime};base64,{base64.b64encode(data).decode('ascii')}"


# Lossless while a page stays light, else as little lossy as it may be.
CODECS = (Codec("PNG"), Codec("JPEG", 95), Codec("JPEG", 88), Codec("JPEG", 75))


def page(title: str, style: str, body: str, script: str) -> str:
    """The whole HTML of a page. Its own policy forbids it to load anything; `body` must be escaped already."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(shown(title))}</title>
<style>
{style}</style>
</head>
<body>
{body}
<script>
{script}</script>
</body>
</html>
"""
