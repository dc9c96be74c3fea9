"""A page that shows scenes under a slider: pictures in tiles, at several sizes down to a single tile.

The tiles are in the page as base64. The script beside this module decodes the visible tiles at the size that the zoom
requires, so a picture of 24 megapixels needs no more browser memory than the window's px.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from srgan_cli.comparison.embedding import CODECS, Codec, render
from srgan_cli.comparison.scenes import Area, Scene
from srgan_cli.errors import shown
from srgan_cli.imaging.image import Pixels
from srgan_cli.wording import counted, size

_TILE_PX = 1024  # a multiple of JPEG's blocks, so that tiles join like the blocks of one file
# PNG takes a second per 10 megapixels, and three times the size of a good JPEG.
_LOSSLESS_PIXELS = 12_000_000
# The last codec is for galleries; here, pictures are halved instead.
_CODECS = CODECS[:-1]
_SAMPLES = 10  # number of tiles encoded to estimate the total size
_BASE64 = 4 / 3
_MIN_PX = 256  # pictures are not halved below this size; with that many pictures, the page may exceed its budget

Levels = list[Pixels]  # the picture, its half, its quarter, … down to one tile


@dataclass(frozen=True)
class Exhibit:
    """A scene, the places in it that the page offers to jump to, and the two views shown first."""

    scene: Scene
    places: tuple[Area, ...] = ()
    pair: tuple[int, int] = (0, 1)


def build_page(title: str, exhibits: Sequence[Exhibit], *, budget_bytes: int) -> tuple[str, str]:
    """The page's HTML, of about `budget_bytes` at most, and a sentence on its contents.

    Pictures are stored losslessly if the page stays small enough, else as JPEG; if that is still too large, they are
    halved.
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
        kept += f", at 1/{shrunk} of their width and height to keep the page small"
    data = {
        "tile": _TILE_PX,
        "mime": codec.mime,
        "pair": exhibits[0].pair,
        "scenes": [
            _scene(one, views, codec, shrunk) for one, views in zip(exhibits, pictures, strict=True)
        ],
    }  # fmt: skip
    text = render("comparison/viewer.html.jinja", title=title, data=data, kept=kept)
    count = sum(map(len, pictures))
    return text, f"{counted(count, 'picture')}, stored {kept}; {size(len(text))}"


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
    """The best codec that keeps the page within its budget, estimated from a sample; None if there is none."""
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
