"""One page that shows scenes under a slider: pictures in tiles, at every size down to one tile.

The tiles lie in the page as base64; the script beside this module decodes those that are in view, at the size that the
zoom asks for, so that a picture of 24 megapixels costs the browser no more than its window does.
"""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from PIL import Image

from srgan_cli import __version__
from srgan_cli.comparison.embedding import CODECS, Codec, page
from srgan_cli.comparison.scenes import Box, Scene
from srgan_cli.errors import shown
from srgan_cli.imaging.image import Pixels

_TILE_PX = 1024  # a multiple of JPEG's blocks, so that tiles join as one file's blocks do
# PNG takes a second for each 10 megapixels, and three times the room of a good JPEG.
_LOSSLESS_PIXELS = 12_000_000
# The last of the codecs is for pages where a glimpse is enough: here a picture is rather halved.
_CODECS = CODECS[:-1]
_SAMPLES = 10  # tiles that are encoded to learn what all would weigh
_BASE64 = 4 / 3
_MIN_PX = 256  # pictures are not halved below: then there are too many of them, and the page is as heavy as it is

Levels = list[Pixels]  # the picture, its half, its quarter, … down to one tile


@dataclass(frozen=True)
class Exhibit:
    """A scene, the places in it that the page jumps to, and which two of its views are shown first."""

    scene: Scene
    places: tuple[Box, ...] = ()
    pair: tuple[int, int] = (0, 1)


def build_page(title: str, exhibits: Sequence[Exhibit], *, budget_bytes: int) -> tuple[str, str]:
    """The page's HTML, of about `budget_bytes` at most, and a sentence on what it holds.

    Kept without loss where that is light, else as JPEG; where even that is too heavy, pictures are halved.
    """
    pictures = [[_levels(view.crop(one.scene.whole)) for view in one.scene.views] for one in exhibits]
    shrunk = 1
    codec = _fitting(pictures, budget_bytes)
    while codec is None:
        pictures = [[_without_finest(levels) for levels in views] for views in pictures]
        shrunk *= 2
        codec = _fitting(pictures, budget_bytes)
    kept = "without loss, as PNG" if not codec.quality else f"as JPEG {codec.quality}, colour at full resolution"
    if shrunk > 1:
        kept += f", at 1/{shrunk} of their width and height to keep the page light"
    data = {
        "tile": _TILE_PX,
        "mime": codec.mime,
        "pair": exhibits[0].pair,
        "scenes": [
            _scene(one, views, codec, shrunk) for one, views in zip(exhibits, pictures, strict=True)
        ],
    }  # fmt: skip
    text = page(title, _beside("viewer.css"), _body(title, data, kept), _beside("viewer.js"))
    count = sum(map(len, pictures))
    return text, f"{count} pictures, kept {kept}; {len(text) / 1e6:.1f} MB"


def _beside(name: str) -> str:
    return resources.files("srgan_cli.comparison").joinpath(name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------------- pictures


def _levels(pixels: Pixels) -> Levels:
    levels = [pixels]
    while max(levels[-1].shape[:2]) > _TILE_PX:
        levels.append(np.asarray(Image.fromarray(np.ascontiguousarray(levels[-1])).reduce(2)))
    return levels


def _without_finest(levels: Levels) -> Levels:
    if len(levels) > 1:
        return levels[1:]
    return [np.asarray(Image.fromarray(np.ascontiguousarray(levels[0])).reduce(2))]


def _tiles(pixels: Pixels) -> Iterator[Pixels]:
    """Row by row."""
    height, width = pixels.shape[:2]
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            yield pixels[top : top + _TILE_PX, left : left + _TILE_PX]


def _fitting(pictures: Sequence[Sequence[Levels]], budget_bytes: int) -> Codec | None:
    """The best codec with which the page is about as light as it should be, from a sample; None where none is."""
    finest = [tile for views in pictures for levels in views for tile in _tiles(levels[0])]
    sample = finest[:: -(-len(finest) // _SAMPLES)]
    sampled_px = sum(tile.size for tile in sample)
    total_px = sum(pixels.size for views in pictures for levels in views for pixels in levels)
    for codec in _CODECS:
        if not codec.quality and total_px // 3 > _LOSSLESS_PIXELS:
            continue
        estimate = sum(len(codec.encode(tile)) for tile in sample) / sampled_px * total_px * _BASE64
        if estimate <= budget_bytes:
            return codec
    longest_px = max(max(levels[0].shape) for views in pictures for levels in views)
    return _CODECS[-1] if longest_px <= _MIN_PX else None


def _scene(exhibit: Exhibit, views: Sequence[Levels], codec: Codec, shrunk: int) -> dict[str, object]:
    height, width = views[0][0].shape[:2]
    return {
        "name": shown(exhibit.scene.name),
        "width": width,
        "height": height,
        "shrunk": shrunk,
        "places": [[math.floor(side / shrunk) for side in box] for box in exhibit.places],
        "pictures": [
            {
                "label": shown(view.label),
                "about": shown(view.about),
                "levels": [[_text(codec, tile) for tile in _tiles(pixels)] for pixels in levels],
            }
            for view, levels in zip(exhibit.scene.views, views, strict=True)
        ],
    }


def _text(codec: Codec, tile: Pixels) -> str:
    return base64.b64encode(codec.encode(tile)).decode("ascii")


# ----------------------------------------------------------------------------------------------------------------- page


def _body(title: str, data: object, kept: str) -> str:
    # Inside a script element nothing ends it but `<`, which JSON may write as an escape.
    plain = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f"""<header>
<h1>{html.escape(shown(title))}</h1>
<select id="scene" aria-label="Which scene is shown" hidden></select>
<div class="tools">
<button id="place" title="To the next place where they differ (N; back: P)" hidden><span></span></button>
<span class="group">
<button id="out" title="Smaller (-)" aria-label="Smaller">−</button>
<button id="actual" title="One px of the picture is one px of the screen (A)"><output>100 %</output></button>
<button id="in" title="Larger (+)" aria-label="Larger">+</button>
</span>
<button id="fit" title="All of it (0)">Fit</button>
<button id="help" title="Keys, and what is shown (?)" aria-label="Help">?</button>
</div>
</header>
<main id="stage" tabindex="0" aria-label="The pictures. Arrow keys move them, plus and minus zoom, space flips.">
<canvas></canvas>
<div id="divider" role="slider" tabindex="0" aria-label="Where the left picture ends" aria-valuemin="0"
 aria-valuemax="100" aria-valuenow="50"><span aria-hidden="true">‹ ›</span></div>
<p id="sides"><span><b></b><small></small></span><span><b></b><small></small></span></p>
<noscript>This page needs JavaScript, which it carries itself.</noscript>
</main>
<footer>
<select id="left" aria-label="The left picture"></select>
<span class="group">
<button id="flip" title="One over the other, in turn (space); back to the slider: Esc">Flip</button>
<button id="swap" title="Exchange left and right (X)" aria-label="Exchange left and right">⇄</button>
</span>
<select id="right" aria-label="The right picture"></select>
</footer>
<dialog id="about">
<h2>Keys</h2>
<dl class="keys">
<dt>arrows, drag</dt><dd>move the pictures</dd>
<dt>+ −, wheel, pinch</dt><dd>zoom</dd>
<dt>double click, tap</dt><dd>in to the pixels, and out again</dd>
<dt>0 &nbsp; A</dt><dd>all of it; actual pixels</dd>
<dt>space &nbsp; Esc</dt><dd>flip between the two; back to the slider</dd>
<dt>shift + ← →</dt><dd>move the slider</dd>
<dt>1 … 9</dt><dd>choose the left picture; with shift the right one</dd>
<dt>X</dt><dd>exchange the two</dd>
<dt>N &nbsp; P</dt><dd>next and previous place where they differ</dd>
<dt>[ &nbsp; ]</dt><dd>previous and next scene</dd>
</dl>
<h2>Shown</h2>
<dl id="shown"></dl>
<p>The pictures are kept {html.escape(kept)}. At 100 % and above, pixels are shown as they are.
Written by srgan {__version__}.</p>
<form method="dialog"><button>Close</button></form>
</dialog>
<script type="application/json" id="data">{plain}</script>"""
