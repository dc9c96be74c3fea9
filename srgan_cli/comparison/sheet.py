"""A contact sheet: a row for each part, a column for each picture, and an overview of where the parts are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from srgan_cli.comparison.scenes import Area, Scene
from srgan_cli.errors import shown
from srgan_cli.imaging.image import Pixels

_GAP_PX = 12
_MAP_PX = 148  # the overview that shows a row's position
_FONT_PX, _LINE_PX = 14, 19
# Greys, so that the surroundings do not influence how colours are seen.
_PAPER, _INK, _FAINT, _EMPTY = (32, 32, 32), (228, 228, 228), (150, 150, 150), (44, 44, 44)
_MARK = (255, 208, 0)

_Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SheetRow:
    """One part: its name, a description, the overview with the part marked, and the pixels for each column."""

    name: str
    about: str
    map: Pixels
    cells: Mapping[str, Pixels]


def row_of(scene: Scene, box: Area) -> SheetRow:
    """The part `box` of every view."""
    return SheetRow(
        scene.name,
        f"{box.width}×{box.height} px at {box.left}, {box.top}",
        _map(scene, box, scene.guide.pixels),
        {view.label: view.crop(box) for view in scene.views},
    )


def _map(scene: Scene, box: Area, guide: Pixels) -> Pixels:
    shrink = min(1.0, _MAP_PX / max(scene.width, scene.height))
    size = max(1, round(scene.width * shrink)), max(1, round(scene.height * shrink))
    step = max(1, int(min(guide.shape[0] / size[1], guide.shape[1] / size[0]) / 4))
    small = Image.fromarray(np.ascontiguousarray(guide[::step, ::step])).resize(size, Image.Resampling.BOX)
    left, top, right, bottom = (round(side * shrink) for side in (box.left, box.top, box.right, box.bottom))
    mark = (left, top, max(left + 2, right - 1), max(top + 2, bottom - 1))
    draw = ImageDraw.Draw(small)
    draw.rectangle([mark[0] - 1, mark[1] - 1, mark[2] + 1, mark[3] + 1], outline=(0, 0, 0))
    draw.rectangle(mark, outline=_MARK)
    return np.asarray(small)


def draw_sheet(
    columns: Mapping[str, str], rows: Sequence[SheetRow], *, zoom_percent: int, smooth: bool = False, footer: str = ""
) -> Pixels:
    """The sheet, (H, W, 3) uint8. `columns` are labels, each with a short description below; an empty cell stays grey.

    Pixels are repeated if `zoom_percent` is a multiple of 100 and `smooth` is not set; otherwise bicubic interpolation
    is used.
    """
    font = ImageFont.load_default(_FONT_PX)
    tiles = [{label: _zoomed(cell, zoom_percent, smooth) for label, cell in row.cells.items()} for row in rows]
    widths = [max((row[label].width for row in tiles if label in row), default=_MAP_PX) for label in columns]
    heights = [max(max(tile.height for tile in row.values()), _map_height(rows[i])) for i, row in enumerate(tiles)]
    lefts = [2 * _GAP_PX + _MAP_PX + sum(widths[:i]) + i * _GAP_PX for i in range(len(widths))]
    head_px = _GAP_PX + 2 * _LINE_PX + 6
    foot_px = _LINE_PX + 2 if footer else 0
    size = lefts[-1] + widths[-1] + _GAP_PX, head_px + sum(heights) + len(rows) * _GAP_PX + foot_px
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    for x, width, (label, about) in zip(lefts, widths, columns.items(), strict=True):
        draw.text((x, _GAP_PX), fitted(shown(label), font, width), fill=_INK, font=font)
        draw.text((x, _GAP_PX + _LINE_PX), fitted(shown(about), font, width), fill=_FAINT, font=font)
    y = head_px
    for row, cells, height in zip(rows, tiles, heights, strict=True):
        _draw_map(picture, draw, font, row, y)
        for x, width, label in zip(lefts, widths, columns, strict=True):
            if label in cells:
                picture.paste(cells[label], (x, y))
            else:
                draw.rectangle([x, y, x + width - 1, y + height - 1], fill=_EMPTY)
        y += height + _GAP_PX
    if footer:
        draw.text((_GAP_PX, y - 4), fitted(shown(footer), font, size[0] - 2 * _GAP_PX), fill=_FAINT, font=font)
    return np.asarray(picture)


def _draw_map(picture: Image.Image, draw: ImageDraw.ImageDraw, font: _Font, row: SheetRow, y: int) -> None:
    picture.paste(Image.fromarray(row.map), (_GAP_PX, y))
    y += row.map.shape[0] + 5
    for text, ink in ((row.name, _INK), (row.about, _FAINT)):
        if text:
            draw.text((_GAP_PX, y), fitted(shown(text), font, _MAP_PX), fill=ink, font=font)
            y += _LINE_PX


def _map_height(row: SheetRow) -> int:
    height: int = row.map.shape[0]
    return height + 5 + _LINE_PX * (bool(row.name) + bool(row.about))


def _zoomed(pixels: Pixels, percent: int, smooth: bool) -> Image.Image:
    height, width = pixels.shape[:2]
    if percent % 100 == 0 and not smooth:
        times = percent // 100
        return Image.fromarray(pixels.repeat(times, 0).repeat(times, 1))
    size = round(width * percent / 100), round(height * percent / 100)
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)


def fitted(text: str, font: _Font, max_px: float) -> str:
    """The text, shortened to fit. Pillow's own font has no ×."""
    text = text.replace("×", "x")
    if font.getlength(text) <= max_px:
        return text
    while text and font.getlength(text + "…") > max_px:
        text = text[:-1]
    return text + "…"
