"""The parts of an animation, for all containers: rectangles drawn one after the other on a canvas."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from srgan_cli.imaging.image import Depth
from srgan_cli.imaging.sources import Source

Disposal: TypeAlias = Literal["keep", "clear", "restore"]
_BLOCK_BYTES = 1 << 18


@dataclass(frozen=True)
class Frame:
    """A rectangle in px of the canvas, drawn over earlier frames (`blends`) or replacing them; how it is disposed of
    before the next one; and `picture`, which returns it as a separate file. `delay_ms` is as in the file."""

    left: int
    top: int
    width: int
    height: int
    delay_ms: int
    blends: bool
    disposal: Disposal
    picture: Callable[[], bytes]


@dataclass(frozen=True)
class Reel:
    """`plays` is how often the animation is played (0: endlessly). `channels` and `depth` are those of the canvas."""

    width: int
    height: int
    channels: int
    depth: Depth
    plays: int
    frames: tuple[Frame, ...]

    def covers(self, frame: Frame) -> bool:
        """Whether a frame covers the whole canvas."""
        right, bottom = frame.left + frame.width, frame.top + frame.height
        return frame.left <= 0 and frame.top <= 0 and right >= self.width and bottom >= self.height

    def with_alpha(self, alpha: bool) -> Reel:
        """The same with an additional channel for transparency, if `alpha` is set or frames leave some of the canvas
        empty."""
        has_holes = any(frame.disposal == "clear" for frame in self.frames)
        if not alpha and not has_holes and (not self.frames or self.covers(self.frames[0])):
            return self
        return replace(self, channels=self.channels + 1)


class Blocks:
    """The bytes of a file that is parsed sequentially, read in large blocks."""

    def __init__(self, source: Source) -> None:
        self._source, self._at, self._data = source, 0, b""

    def read(self, at: int, count: int) -> bytes:
        if not self._at <= at <= at + count <= self._at + len(self._data):
            self._at, self._data = at, self._source.read_at(at, max(count, _BLOCK_BYTES))
        return self._data[at - self._at : at - self._at + count]

    def number(self, at: int, code: str) -> int:
        """Little-endian unless `code` says otherwise; 0 past the end."""
        size = struct.calcsize(code)
        data = self.read(at, size)
        return int(struct.unpack(code, data)[0]) if len(data) == size else 0
