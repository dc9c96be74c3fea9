"""Animations: frames composited on their canvas, as in browsers.

Each rectangle is decoded as a separate picture, by the usual reader. Memory holds the canvas, and the area under the
last frame if the file wants it restored.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from srgan_cli.documents import apng, gif, webp
from srgan_cli.documents.document import MAX_PAGES, Closing, Kind, Timing, check_count
from srgan_cli.documents.reel import Frame, Reel
from srgan_cli.errors import UnreadablePictureError
from srgan_cli.imaging.decoding import WholeRows, boundary, damaged
from srgan_cli.imaging.image import Header, Metadata, Pixels
from srgan_cli.imaging.reading import OpenPicture, open_picture
from srgan_cli.imaging.sources import Source

_READERS: dict[str, Callable[[Source, int], Reel]] = {
    "gif": gif.read_reel,
    "webp": webp.read_reel,
    "png": apng.read_reel,
}


class Animation(Closing):
    """An open animation. Closes `source`. Frames are composited in order: going back starts again from the first."""

    kind: Kind = "frames"
    notes: tuple[str, ...] = ()

    def __init__(
        self,
        source: Source,
        format: str,  # noqa: A002
        metadata: Metadata,
        max_pixels: int,
        *,
        accept_damaged: bool = False,
    ) -> None:
        self._source, self._max_pixels, self._accept = source, max_pixels, accept_damaged
        with boundary(source.name):
            self._reel = _READERS[format](source, MAX_PAGES + 1)
        check_count(source, self.count)
        reel = self._reel
        if not reel.width or not reel.height:
            raise damaged(source.name, f": its canvas is {reel.width}x{reel.height} px")
        self._header = Header(reel.width, reel.height, reel.channels, reel.depth, format, metadata, (), 1, self.count)
        self._canvas = self._blank()
        self._next = 0
        self._leave: Callable[[], None] = lambda: None  # disposal of the last frame
        self._damage: str | None = None

    @property
    def count(self) -> int:
        return len(self._reel.frames)

    @property
    def timing(self) -> Timing:
        return Timing(self._reel.plays, tuple(frame.delay_ms for frame in self._reel.frames))

    def header(self, number: int) -> Header:
        return self._header if number == 0 else replace(self._header, metadata=Metadata())

    def open(self, number: int) -> OpenPicture:
        if number < self._next:
            self._canvas, self._next, self._leave = self._blank(), 0, lambda: None
        while self._next <= number:
            self._leave()
            self._draw(self._next)
            self._next += 1
        damage = self._damage
        rows = WholeRows(lambda: (self._canvas.copy(), damage))
        return OpenPicture(_Canvas(f"frame {number + 1} of {self._source.name}"), self.header(number), rows)

    def close(self) -> None:
        self._source.close()

    def _blank(self) -> Pixels:
        reel = self._reel
        return np.zeros((reel.height, reel.width, reel.channels), np.uint8 if reel.depth == 8 else np.uint16)

    def _draw(self, number: int) -> None:
        frame = self._reel.frames[number]
        pixels = self._decoded(frame, number)
        top, left = frame.top, frame.left
        under = self._canvas[top : top + len(pixels), left : left + pixels.shape[1]]
        pixels = pixels[: under.shape[0], : under.shape[1]]
        before = under.copy() if frame.disposal == "restore" else None
        under[:] = _over(pixels, under) if frame.blends else pixels[:, :, : under.shape[2]]

        def leave() -> None:
            if frame.disposal != "keep":
                under[:] = 0 if before is None else before

        self._leave = leave

    def _decoded(self, frame: Frame, number: int) -> Pixels:
        source = Source(frame.picture() or b"\0")
        source.name = f"frame {number + 1} of {self._source.name}"
        with open_picture(source, max_pixels=self._max_pixels, accept_damaged=self._accept) as picture:
            header = picture.header
            if (header.width, header.height) != (frame.width, frame.height) or header.depth != self._reel.depth:
                raise UnreadablePictureError(
                    f"{source.name} is damaged: it does not have the size that its header promises"
                )
            pixels = picture.read_rows(header.height)
            self._damage = picture.damage
        return _as_rgba(pixels, 1 if self._reel.channels <= 2 else 3)


class _Canvas(Source):
    """A name for data that is not in a separate file."""

    def __init__(self, name: str) -> None:
        self.name, self.suffix, self.size = name, "", 0

    def close(self) -> None:
        pass


def _as_rgba(pixels: Pixels, colours: int) -> Pixels:
    """(H, W, C) with the canvas' number of `colours` (1 or 3) and alpha."""
    own, alpha = (pixels, None) if pixels.shape[2] in (1, 3) else (pixels[:, :, :-1], pixels[:, :, -1:])
    if own.shape[2] != colours:
        own = own.repeat(3, 2) if colours == 3 else own[:, :, :1]
    if alpha is None:
        alpha = np.full((*own.shape[:2], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.concatenate((own, alpha), 2)


def _over(pixels: Pixels, under: Pixels) -> Pixels:
    """`pixels`, (H, W, C) with straight alpha, composited over `under`, which has alpha or is opaque."""
    top = np.iinfo(pixels.dtype).max
    alpha = pixels[:, :, -1:]
    colours = pixels[:, :, : under.shape[2]]  # opaque, or without alpha
    result: Pixels = np.where(alpha == 0, under, colours)
    if not ((alpha > 0) & (alpha < top)).any():
        return result
    has_alpha = under.shape[2] in (2, 4)
    mine = alpha / top
    other = under[:, :, -1:] / top if has_alpha else np.ones_like(mine)
    whole = mine + other * (1 - mine)
    count = under.shape[2] - has_alpha
    mixed = pixels[:, :, :count] * mine + under[:, :, :count] * other * (1 - mine)
    mixed = mixed / np.maximum(whole, 1e-9)
    if has_alpha:
        mixed = np.concatenate((mixed, whole * top), 2)
    soft: Pixels = np.where((alpha > 0) & (alpha < top), mixed.round().astype(pixels.dtype), result)
    return soft
