"""How positions and lengths in a picture change when it is rotated upright and enlarged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """The mapping from a stored picture to its result.

    `width` and `height` are the result's in px, upright; `old_width` and `old_height` the input's, upright too.
    `orientation` (1 to 8, as in EXIF) is how the input was stored.
    """

    width: int
    height: int
    old_width: int
    old_height: int
    orientation: int = 1

    @property
    def is_turned(self) -> bool:
        """Whether width and height are swapped."""
        return self.orientation >= 5

    @property
    def across(self) -> float:
        """Horizontal px of the result per px of the upright input."""
        return self.width / self.old_width

    @property
    def down(self) -> float:
        return self.height / self.old_height

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the input as stored in the file."""
        size = self.old_width, self.old_height
        return size[::-1] if self.is_turned else size

    def point(self, x: float, y: float) -> tuple[float, float]:
        """A position in fractions of the stored picture, as fractions of the upright one."""
        return {
            2: (1 - x, y), 3: (1 - x, 1 - y), 4: (x, 1 - y),
            5: (y, x), 6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x),
        }.get(self.orientation, (x, y))  # fmt: skip

    def extent(self, width: float, height: float) -> tuple[float, float]:
        """Lengths in fractions of the stored picture, as fractions of the upright one."""
        return (height, width) if self.is_turned else (width, height)

    def point_px(self, x: float, y: float) -> tuple[float, float]:
        """A position in px of the stored picture, in px of the result."""
        across, down = self.point(x / self.stored[0], y / self.stored[1])
        return across * self.width, down * self.height

    def extent_px(self, width: float, height: float) -> tuple[float, float]:
        across, down = self.extent(width / self.stored[0], height / self.stored[1])
        return across * self.width, down * self.height

    def densities(self, across: float, down: float) -> tuple[float, float]:
        """Px per unit of length, along and across the rows of the stored picture, for the result."""
        if self.is_turned:
            across, down = down, across
        return across * self.across, down * self.down
