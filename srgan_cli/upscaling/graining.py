"""`--grain`: which grain a picture gets. It is added to each band as soon as the band is final.

The amount is the input's grain minus what remains after enlarging. How much grain a network keeps varies between
pictures, so the flattest parts of each picture are enlarged first and measured.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np

from srgan_cli.config import UpscaleOptions
from srgan_cli.engine.rows import Unchanged
from srgan_cli.imaging.grain import BLOCK, Grain, Measured, Place, block_at, film, left_fraction, measure
from srgan_cli.imaging.grain_field import GrainField
from srgan_cli.imaging.image import Header, Pixels
from srgan_cli.imaging.reading import OpenPicture
from srgan_cli.upscaling.plan import Job

Open: TypeAlias = "Callable[[], contextlib.AbstractContextManager[OpenPicture]]"

# Of larger pictures, strips of this many px are examined.
_LOOKED_AT_PX, _STRIP_ROWS = 12_000_000, 64
_AROUND_PX = 12  # around a block, as context for the network


class Enlarger(Protocol):
    """The methods of an `Upscaler` that are needed here."""

    @property
    def scale(self) -> int: ...

    def upscale(self, low: Pixels) -> Pixels: ...


class Graining:
    """The grain of one picture, or of all frames of an animation."""

    def __init__(self, fields: GrainField, scale: int) -> None:
        self._fields, self._scale = fields, scale

    def put(self, out: Pixels, first: int, stop: int) -> None:
        """Add grain to the rows of the finished picture `out` that correspond to rows [first, stop) of the input."""
        self._fields.put(out[first * self._scale : stop * self._scale], first * self._scale)


def graining_of(
    job: Job,
    options: UpscaleOptions,
    upscaler: Enlarger | Unchanged,
    again: Open,
    report: Callable[[str], None],
    *,
    page: int = 0,
) -> Graining | None:
    """The grain for a job (for a document: for one of its pages); None if no grain is to be added.

    `again` opens the picture once more, for measuring; `report` is called with the findings. `page` selects a different
    grain pattern for each page. Raises what reading and enlarging raise.
    """
    if not options.has_grain or isinstance(upscaler, Unchanged) or not job.scales:
        return None
    colours, seed = 1 if job.header.channels <= 2 else 3, job.seed(options.seed)
    if options.grain != "auto":
        assert options.grain is not None
        # In the result's own px: the network's result is resampled to its size.
        across = max(1, round(upscaler.scale * job.header.width / job.output.width))
        return Graining(GrainField(film(options.grain, colours), across, seed=seed, page=page), upscaler.scale)
    with again() as picture:
        strips = _strips(picture)
    found = measure(strips)
    if found is None:
        report(f"{job.source}: no grain was found")
        return None
    left = _left(strips, found, upscaler)
    report(f"{job.source}: {_described(found.grain, left)}")
    return Graining(GrainField(found.grain, upscaler.scale, seed=seed, page=page, fraction=1 - left), upscaler.scale)


def _described(grain: Grain, left: float) -> str:
    colour = f", {round(100 * (1 - grain.shared))} % of it colour" if len(grain.strength) > 1 else ""
    return (
        f"grain of {grain.levels:.1f} levels{colour}, of which the enlargement has {round(100 * math.sqrt(left))} %; "
        "the rest is added"
    )


def _strips(picture: OpenPicture) -> list[Pixels]:
    """The picture, or for a large one, strips from top to bottom."""
    header: Header = picture.header
    if header.width * header.height <= _LOOKED_AT_PX:
        return [picture.read_rows(header.height)]
    rows = min(_STRIP_ROWS, header.height)
    every = max(1, math.ceil(header.width * header.height / _LOOKED_AT_PX))
    strips = []
    for number in range(header.height // rows):
        strip = picture.read_rows(rows)
        if number % every == every // 2:
            strips.append(strip)
    return strips


def _left(strips: Sequence[Pixels], found: Measured, upscaler: Enlarger) -> float:
    """The fraction of the grain's variance that the networks keep, in the flattest blocks, enlarged together as one
    picture."""
    strips = [strip[..., : len(found.grain.strength)] for strip in strips]
    side = BLOCK + 2 * _AROUND_PX
    blocks = [place for place in found.flat if block_at(strips, place, _AROUND_PX).shape[:2] == (side, side)]
    if not blocks:  # a narrow picture
        return _left_of_one(strips[0], [place for place in found.flat if place[0] == 0], upscaler)
    across = math.ceil(math.sqrt(len(blocks)))
    mosaic = np.zeros((-(-len(blocks) // across) * side, across * side, strips[0].shape[2]), strips[0].dtype)
    corners = [(number // across * side, number % across * side) for number in range(len(blocks))]
    for place, (top, left) in zip(blocks, corners, strict=True):
        mosaic[top : top + side, left : left + side] = block_at(strips, place, _AROUND_PX)
    inside = [(0, top + _AROUND_PX, left + _AROUND_PX) for top, left in corners]
    return _left_of_one(mosaic, inside, upscaler)


def _left_of_one(low: Pixels, places: Sequence[Place], upscaler: Enlarger) -> float:
    scale = upscaler.scale
    high = upscaler.upscale(np.ascontiguousarray(low))
    enlarged = [
        high[top * scale : (top + BLOCK) * scale, left * scale : (left + BLOCK) * scale] for _, top, left in places
    ]
    return left_fraction([block_at([low], place) for place in places], enlarged)
