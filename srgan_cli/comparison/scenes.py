"""One scene seen by several pictures: the same place in all of them, whatever their sizes.

A scene has a frame, in px of its largest picture; a view returns any part of the frame as pixels. A view is either a
picture in memory, which is enlarged if it is smaller than the frame, or a network, which is run on the requested part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from PIL import Image

from srgan_cli.errors import SettingsError, shown
from srgan_cli.imaging import resizing
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.metadata.update import profile_fits
from srgan_cli.imaging.reading import read_image
from srgan_cli.imaging.sources import vips_module
from srgan_cli.imaging.vips_lock import shared

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

Enlarging: TypeAlias = Literal["bicubic", "nearest"]

# Pictures are held whole during comparison: at most 1.2 GB each.
MAX_PIXELS = 400_000_000
_WHITE = (255, 255, 255)
_BICUBIC_REACH_PX = 3  # the kernel's, and one for rounding
# A result smaller than its original by up to this fraction was probably made from a picture cropped to a multiple of
# the scale (16 at most); 5 % is less than any useful enlargement.
_CROPPED_PX, _CROPPED_FRACTION = 15, 0.05
# side of the area in the larger picture that is examined to determine whether the smaller one was cropped
_STRIP_PX = 256


class Area(NamedTuple):
    """A part of the frame, in its px."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        return self.left + self.width

    @property
    def bottom(self) -> int:
        return self.top + self.height


class View(Protocol):
    """One picture of a scene. `about` is a short description of its processing."""

    @property
    def label(self) -> str: ...

    @property
    def about(self) -> str: ...

    def crop(self, box: Area) -> Pixels:
        """The given part, (box.height, box.width, 3) uint8, as if cut out of the whole."""


@dataclass(frozen=True)
class Still:
    """A picture in memory, (h, w, 3) uint8, of which one px is `across` × `down` px of the frame."""

    label: str
    about: str
    pixels: Pixels
    across: float = 1.0
    down: float = 1.0
    enlarging: Enlarging = "bicubic"

    def crop(self, box: Area) -> Pixels:
        if self.across == self.down == 1:
            return self.pixels[box.top : box.bottom, box.left : box.right]
        # Only the needed part of a large picture is passed to Pillow, which copies it.
        height, width = self.pixels.shape[:2]
        x0, x1 = _reach(box.left / self.across, box.right / self.across, width)
        y0, y1 = _reach(box.top / self.down, box.bottom / self.down, height)
        part = Image.fromarray(np.ascontiguousarray(self.pixels[y0:y1, x0:x1]))
        inside = (
            box.left / self.across - x0,
            box.top / self.down - y0,
            min(box.right / self.across - x0, x1 - x0),
            min(box.bottom / self.down - y0, y1 - y0),
        )
        how = Image.Resampling.NEAREST if self.enlarging == "nearest" else Image.Resampling.BICUBIC
        return np.asarray(part.resize((box.width, box.height), how, inside))


def _reach(begin: float, end: float, length: int) -> tuple[int, int]:
    return max(0, math.floor(begin) - _BICUBIC_REACH_PX), min(length, math.ceil(end) + _BICUBIC_REACH_PX)


@dataclass(frozen=True)
class Enlarged:
    """A network's result for `low`, (h, w, 3) uint8: for each part, only that part is computed, with its halo."""

    label: str
    about: str
    low: Pixels
    upscaler: Upscaler

    def crop(self, box: Area) -> Pixels:
        scale, halo_px = self.upscaler.scale, self.upscaler.chain.halo_px
        x0, x1 = max(0, box.left // scale - halo_px), -(-box.right // scale) + halo_px
        y0, y1 = max(0, box.top // scale - halo_px), -(-box.bottom // scale) + halo_px
        high = self.upscaler.upscale(self.low[y0:y1, x0:x1], (y0, x0))
        left, top = box.left - x0 * scale, box.top - y0 * scale
        return high[top : top + box.height, left : left + box.width]


@dataclass(frozen=True)
class Scene:
    """Views of one scene, in display order, all of `width` × `height` px."""

    name: str
    width: int
    height: int
    views: tuple[View, ...]

    @property
    def whole(self) -> Area:
        return Area(0, 0, self.width, self.height)

    @property
    def guide(self) -> Still:
        """The most detailed picture available without any computation."""
        return max((view for view in self.views if isinstance(view, Still)), key=lambda still: still.pixels.size)

    def part(self, box: Area) -> Scene:
        """The given part as a scene of its own."""
        views = tuple(Still(view.label, view.about, view.crop(box)) for view in self.views)
        return Scene(f"{self.name} at {box.left}, {box.top}".strip(), box.width, box.height, views)

    def settled(self) -> Scene:
        """The same scene with every network run once on the whole picture."""
        views = tuple(
            view if isinstance(view, Still) else Still(view.label, view.about, view.crop(self.whole))
            for view in self.views
        )
        return replace(self, views=views)


# ------------------------------------------------------------------------------------------------------------- reading


def read_shown(source: Path | bytes, on_note: Callable[[str], None] = lambda _note: None) -> Pixels:
    """A picture as displayed: (H, W, 3) uint8, upright, sRGB, transparency composited over white.
    `on_note` is given what is worth knowing about the file, such as that it has more pages.

    Raises `UnreadablePictureError`, also for one of more than 400 megapixels.
    """
    picture = read_image(source, max_pixels=MAX_PIXELS)
    name = "" if isinstance(source, bytes) else f"{shown(source)}: "
    for note in picture.header.notes:
        on_note(f"{name}{note}")
    pixels, icc = picture.pixels, picture.header.metadata.icc
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3 and icc is None:
        return pixels
    with shared():
        image = resizing.as_depth(resizing.array_to_vips(pixels), 8)
        if image.bands in (2, 4):
            image = resizing.flattened(image, _WHITE)
        image = _in_srgb(image, icc)
        return resizing.vips_to_array(resizing.as_rgb(image))


def _in_srgb(image: Any, icc: bytes | None) -> Any:
    """Convert to sRGB, since the numbers of pictures with different profiles are not comparable. An invalid profile is
    ignored."""
    if not icc or not profile_fits(icc, image.bands) or any(name in icc for name in _SRGB):
        return image
    pyvips = vips_module()
    tagged = image.copy()
    tagged.set_type(pyvips.GValue.blob_type, "icc-profile-data", icc)
    try:
        colour = tagged.icc_transform("srgb", embedded=True, intent="relative", depth=8)
        return colour.copy_memory()  # an error, if any, is raised here
    except pyvips.Error:
        return image


# The description tags of profiles of version 2 and version 4.
_SRGB = (b"sRGB", "sRGB".encode("utf-16-be"))


# ------------------------------------------------------------------------------------------------------ coming together


def together(pictures: Sequence[tuple[str, Pixels]], *, enlarging: Enlarging = "bicubic", name: str = "") -> Scene:
    """A scene of labelled pictures (H, W, 3) uint8, in px of the largest.

    A picture that is an integer factor smaller may either lack up to one px on the right and below (pictures are
    cropped to a multiple before downscaling), or be the whole, downscaled; this is decided by comparing their far
    edges. Others are assumed to show the whole scene. The frame is the area that all of them show. Raises
    `SettingsError` if the proportions differ by more than a px of the smaller picture.
    """
    largest_label, largest = max(pictures, key=lambda one: one[1].shape[0] * one[1].shape[1])
    frame = _size(largest)
    scales = []
    for label, pixels in pictures:
        scale = (1.0, 1.0) if pixels is largest else _scale_between(pixels, largest)
        if scale is None:
            raise SettingsError(
                f"{shown(label)} ({_named(_size(pixels))}) and {shown(largest_label)} ({_named(frame)}) have "
                "different proportions, so they cannot show the same scene; crop them to the same part first"
            )
        scales.append(scale)
    parts = [
        (round(across * pixels.shape[1]), round(down * pixels.shape[0]))
        for (_, pixels), (across, down) in zip(pictures, scales, strict=True)
    ]
    width, height = (min(sides) for sides in zip(frame, *parts, strict=True))
    views = tuple(
        Still(label, _about(_size(pixels), scale, enlarging), pixels, *scale, enlarging)
        for (label, pixels), scale in zip(pictures, scales, strict=True)
    )
    return Scene(name, width, height, views)


def _scale_between(small: Pixels, large: Pixels) -> tuple[float, float] | None:
    """How many px of the larger picture one px of the smaller is, horizontally and vertically; None if they do not
    fit."""
    fitting = _scales_between(_size(small), _size(large))
    return _likeliest(small, large, fitting) if len(fitting) > 1 else next(iter(fitting), None)


def _scales_between(small: tuple[int, int], frame: tuple[int, int]) -> list[tuple[float, float]]:
    """The possible scales for these sizes; the first is used if the pictures do not decide."""
    across, down = frame[0] / small[0], frame[1] / small[1]
    whole = max(1, round(across))
    if across == down == whole:
        return [(across, down)]
    rest = [frame[i] - whole * small[i] for i in (0, 1)]
    if whole > 1:
        is_cropped = all(0 <= one < whole for one in rest)
    else:
        is_cropped = all(abs(one) <= min(_CROPPED_PX, _CROPPED_FRACTION * frame[i]) for i, one in enumerate(rest))
    fitting = [(float(whole), float(whole))] if is_cropped else []
    long = int(small[1] > small[0])  # rounding has changed the longer side's scale the least
    if abs(frame[1 - long] / (across, down)[long] - small[1 - long]) <= 1:
        fitting.append((across, down))
    if not fitting and whole == 1 and all(abs(one) <= _CROPPED_PX for one in rest):
        fitting.append((1.0, 1.0))
    return fitting


def _likeliest(small: Pixels, large: Pixels, scales: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The scale at which the pictures agree on the right and below, where the effect of the scale is largest."""
    (frame_width, frame_height), (width, height) = _size(large), _size(small)
    right = min(frame_width, *(round(across * width) for across, _ in scales))
    bottom = min(frame_height, *(round(down * height) for _, down in scales))
    strip_px = min(_STRIP_PX, right, bottom)
    strips = Area(right - strip_px, 0, strip_px, bottom), Area(0, bottom - strip_px, right, strip_px)

    def apart(scale: tuple[float, float]) -> float:
        views = Still("", "", large), Still("", "", small, *scale)
        lumas = [[view.crop(box).mean(2, dtype=np.float32) for view in views] for box in strips]
        return sum(float((one - other).var()) for one, other in lumas)

    return min(scales, key=apart)


def _size(pixels: Pixels) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]


def _named(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} px"


def _about(size: tuple[int, int], scale: tuple[float, float], enlarging: Enlarging) -> str:
    text = f"{size[0]}×{size[1]} px"
    return text if scale == (1, 1) else f"{text}, ×{scale[0]:.4g} {enlarging}"


def labels_of(paths: Iterable[Path]) -> list[str]:
    """Short names that distinguish files: the stem; if necessary with extension and as many folders as needed."""
    paths = list(paths)
    names = [path.stem for path in paths]
    for depth in range(1, 1 + max(len(path.parts) for path in paths)):
        if len(set(names)) == len(paths):
            break
        twice = {name for name in names if names.count(name) > 1}
        longer = [str(Path(*path.parts[-depth:])) for path in paths]
        names = [long if name in twice else name for name, long in zip(names, longer, strict=True)]
    return names
