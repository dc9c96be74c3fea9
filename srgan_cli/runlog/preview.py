"""A contact sheet of a run's training crops: `srgan train --preview sheet.png`.

Training fails silently if the low pictures are unlike those to be enlarged. The sheet makes this visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from srgan_cli.comparison.sheet import fitted
from srgan_cli.dataset.codecs import Compression
from srgan_cli.dataset.crops import Picture, scan
from srgan_cli.dataset.degradation import Degradation, Round, SensorNoise, apply, rng_for, sample, sharpened
from srgan_cli.dataset.kernels import Blur, Ringing
from srgan_cli.dataset.low_pictures import to_tensor
from srgan_cli.dataset.pictures import read_pixels, without_colours
from srgan_cli.errors import SettingsError, TrainingError, shown
from srgan_cli.files import publishing, reason
from srgan_cli.imaging.image import Pixels
from srgan_cli.training_config import TrainConfig

_MARK = "srgan train --preview"  # key in the PNG: marks sheets that may be overwritten
_ROWS = 6
_DRAWS = 4  # low pictures shown per high one, for random degradations
_MAX_CROP_PX = 256  # larger than most training crops, so that the content is recognisable
_TILE_PX = 256  # approximate: pixels are enlarged by integer factors
_GAP_PX = 12
_FONT_PX = 12
_LINE_PX = 16
_PAPER, _INK, _FAINT = (24, 24, 27), (228, 228, 231), (161, 161, 170)


@dataclass(frozen=True)
class PreviewRow:
    """One crop: high (S, S, 3), and its low versions (S/scale, S/scale, 3), each with a label of some lines."""

    name: str
    high: Pixels
    lows: tuple[tuple[Pixels, tuple[str, ...]], ...]


def preview(config: TrainConfig, target: Path) -> None:
    """Draw crops of some pictures into the file `target`, as a run with these settings and seed would use them.

    With `init`, `config` must already contain the sizes of that file (`run.with_sizes_of_init`). Raises what `scan` and
    reading the pictures raise, and `TrainingError` if the file cannot be written.
    """
    check_target(target)
    scale = config.generator.scale
    crop_px = max(config.of(phase).crop_px for phase in config.phases)
    pictures = evenly_chosen(scan(config.data, scale=scale, crop_px=crop_px).train, _ROWS)
    side_px = min(_MAX_CROP_PX, *(min(one.width, one.height) for one in pictures)) // scale * scale
    save_sheet(contact_sheet([_row(config, picture, i, side_px) for i, picture in enumerate(pictures)]), target)


def check_target(target: Path) -> None:
    """Raises `SettingsError` if the sheet would replace another kind of file."""
    if target.exists() and not _is_a_sheet(target):
        raise SettingsError(f"{shown(target)} exists and is not a sheet of an earlier preview; choose another name")


def save_sheet(sheet: Image.Image, target: Path) -> None:
    """Write a sheet as a picture file, marked as a sheet. Raises `TrainingError` if it cannot be written."""
    kind = Image.registered_extensions().get(target.suffix.lower())
    if kind not in Image.SAVE:
        raise TrainingError(
            f"{shown(target)} cannot be written: its extension is not that of a picture format; use .png"
        )
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", _MARK)
    try:
        with publishing(target) as file:
            sheet.save(file, kind, pnginfo=about)
    except OSError as err:
        raise TrainingError(f"{shown(target)} cannot be written: {reason(err)}") from err


def _is_a_sheet(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return picture.info.get("Software") == _MARK
    except Exception:  # noqa: BLE001 - whatever a decoder raises (for its size, for example): it is no sheet
        return False


def evenly_chosen(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """At most `count` of them, evenly spaced."""
    count = min(count, len(pictures))
    return [pictures[(2 * i + 1) * len(pictures) // (2 * count)] for i in range(count)]


def _row(config: TrainConfig, picture: Picture, index: int, side_px: int) -> PreviewRow:
    scale = config.generator.scale
    seen = without_colours if config.data.grey else np.asarray
    high = _middle(seen(read_pixels(picture.path)), side_px, scale)
    if picture.low is not None:
        low = _middle(seen(read_pixels(picture.low)), side_px // scale, 1)
        return PreviewRow(picture.path.name, high, ((low, (picture.low.name,)),))
    batch = to_tensor(high)
    rngs = [rng_for(config.seed, index, draw) for draw in range(_DRAWS)]
    values = list(
        dict.fromkeys(sample(config.degradation, rng) for rng in rngs)
    )  # only once: bicubic is always the same
    lows = apply(batch.expand(len(values), -1, -1, -1), values, scale)
    labels = [described(value) for value in values]
    aim = sharpened(batch, config.degradation.sharpen_target)
    shown = [seen(_to_pixels(low)) for low in lows]
    return PreviewRow(picture.path.name, _to_pixels(aim[0]), tuple(zip(shown, labels, strict=True)))


def _middle(pixels: Pixels, side_px: int, multiple: int) -> Pixels:
    """The middle (S, S, 3), starting at a multiple, so that the middles of a pair match."""
    top, left = ((length // multiple - side_px // multiple) // 2 * multiple for length in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + side_px, left : left + side_px])


def _to_pixels(picture: torch.Tensor) -> Pixels:
    """(3, H, W) in [0, 1] -> (H, W, 3)."""
    pixels: Pixels = (picture * 255 + 0.5).byte().permute(1, 2, 0).numpy()
    return pixels


# ---------------------------------------------------------------------------------------------------------------- words


def described(value: Degradation) -> tuple[str, ...]:
    """The drawn parameters, in two short lines per round."""
    if value.worn is not None:
        codec = value.worn.compression
        return ("learned wear", "   " + ("not compressed" if codec is None else _compression_in_words(codec)))
    if not value.rounds:
        return ("bicubic only",)
    return tuple(line for one in value.rounds for line in _round_in_words(one))


def _round_in_words(one: Round) -> tuple[str, str]:
    size = f"{one.filter} to the low size" if one.factor is None else f"{one.filter} to {one.factor:.2f}"
    first = f"{_blur_in_words(one.blur)}, {size}" if one.blur else size
    rest = [_noise_in_words(one.noise)] if one.noise else []
    files = [_compression_in_words(one.compression)] if one.compression else []
    ringing = [_blur_in_words(one.ringing)] if one.ringing else []
    rest += files + ringing if one.rings_after else ringing + files
    return first, "   " + (", ".join(rest) or "no noise, not compressed")


def _blur_in_words(blur: Blur | Ringing) -> str:
    if isinstance(blur, Ringing):
        return f"ringing above {blur.cutoff:.2f}"
    name = "oval" if blur.narrow != 1 and blur.kind == "gaussian" else {"gaussian": "round"}.get(blur.kind, blur.kind)
    return f"{name} blur {blur.sigma_px:.1f} px"


def _noise_in_words(noise: SensorNoise) -> str:
    colour = "grey" if noise.grey else "colour"
    return f"{colour} shot noise {noise.shot:.2f}" if noise.shot else f"{colour} noise {noise.sigma:.1f}"


def _compression_in_words(compression: Compression) -> str:
    chroma = "" if compression.codec == "WEBP" else " 4:2:0" if compression.halved_chroma else " 4:4:4"
    return f"{compression.codec} {compression.quality}{chroma}"


# ---------------------------------------------------------------------------------------------------------------- sheet


def contact_sheet(rows: Sequence[PreviewRow]) -> Image.Image:
    """All crops in one RGB picture, a row each: high, then its low versions enlarged to the same size without
    smoothing."""
    side_px = rows[0].high.shape[0]
    tile_px = side_px * max(1, _TILE_PX // side_px)
    columns = 1 + max(len(row.lows) for row in rows)
    lines = max(len(label) for row in rows for _, label in row.lows)
    step_x, step_y = tile_px + _GAP_PX, tile_px + lines * _LINE_PX + 2 * _GAP_PX
    sheet = Image.new("RGB", (columns * step_x + _GAP_PX, len(rows) * step_y + _GAP_PX), _PAPER)
    for y, row in enumerate(rows):
        cells = [(row.high, (shown(row.name),), _INK), *((low, label, _FAINT) for low, label in row.lows)]
        for x, (pixels, label, ink) in enumerate(cells):
            _draw_cell(sheet, (_GAP_PX + x * step_x, _GAP_PX + y * step_y), tile_px, pixels, label, ink)
    return sheet


def _draw_cell(
    sheet: Image.Image,
    corner: tuple[int, int],
    tile_px: int,
    pixels: Pixels,
    label: Sequence[str],
    ink: tuple[int, int, int],
) -> None:
    sheet.paste(Image.fromarray(pixels).resize((tile_px, tile_px), Image.Resampling.NEAREST), corner)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PX)
    for i, line in enumerate(label):
        draw.text((corner[0], corner[1] + tile_px + 4 + i * _LINE_PX), fitted(line, font, tile_px), fill=ink, font=font)
