"""Whether a low picture is aligned with its high one: a shift of a pixel teaches blur, and lowers scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.wording import are

MIN_SHIFT_PX = 0.75  # in px of the high picture, from which it is reported: a whole px is measured to within a tenth
_SIDE_PX = 384  # side of the area that is examined
_MIN_SIDE_PX = 48
_CLEAR = 9.0  # required height of the peak above the rest, in standard deviations


class Shift(NamedTuple):
    """Shift of the low picture relative to the high one, in px of the high one: to the right, and down."""

    x: float
    y: float

    @property
    def is_large(self) -> bool:
        return max(abs(self.x), abs(self.y)) >= MIN_SHIFT_PX

    def __str__(self) -> str:
        return f"{self.x:+.1f}, {self.y:+.1f} px"


def shift(low: Pixels, high: Pixels) -> Shift | None:
    """The shift at which `low`, enlarged, matches `high`; (H, W, C) of one depth, `high` cropped to a multiple of
    `low`'s size.

    Phase correlation (Kuglin and Hines 1975) of the middle part, in the frequencies that both have. None if it is not
    conclusive: pictures that are too small or too smooth, or that show different things.
    """
    scale = high.shape[0] // low.shape[0]
    side = min(_SIDE_PX, *high.shape[:2]) // (2 * scale) * (2 * scale)
    if side < _MIN_SIDE_PX:
        return None
    top, left = ((full // scale - side // scale) // 2 * scale for full in high.shape[:2])
    part = np.s_[top : top + side, left : left + side]
    small = np.s_[top // scale : (top + side) // scale, left // scale : (left + side) // scale]
    first = _spectrum(_grey(high[part]))
    second = _spectrum(bicubic(_grey(low[small]), side, side))
    cross = second * first.conj()
    size = np.abs(cross)
    floor = np.quantile(size, 0.5) + 1e-12
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    shared = (frequency > 1.5 / side) & (frequency < 0.4 / scale)
    peaks = np.fft.ifft2(np.where(shared, cross / (size + floor), 0)).real
    reach = max(2 * scale + 2, side // 6)
    near = np.fft.fftshift(peaks)[side // 2 - reach : side // 2 + reach + 1, side // 2 - reach : side // 2 + reach + 1]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    if near[y, x] < _CLEAR * peaks.std() or not (0 < y < 2 * reach and 0 < x < 2 * reach):
        return None
    down, across = y + _top_of(near[y - 1 : y + 2, x]), x + _top_of(near[y, x - 1 : x + 2])
    return Shift(float(across - reach), float(down - reach))


def _grey(pixels: Pixels) -> npt.NDArray[np.float64]:
    grey: npt.NDArray[np.float64] = pixels[..., : 3 if pixels.shape[2] >= 3 else 1].mean(axis=2, dtype=np.float64)
    return grey


def _spectrum(grey: npt.NDArray[Any]) -> npt.NDArray[np.complex128]:
    """The spectrum without the borders, which would match at zero shift."""
    window = np.hanning(grey.shape[0])
    spectrum: npt.NDArray[np.complex128] = np.fft.fft2((grey - grey.mean()) * window[:, None] * window[None, :])
    return spectrum


def _top_of(three: npt.NDArray[np.float64]) -> float:
    """The vertex of the parabola through three neighbours, -0.5 … 0.5 from the middle one."""
    before, here, after = three
    bend = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def sentence(shifts: list[tuple[str, Shift]], looked_at: int) -> str | None:
    """The note on some named pairs; None if they are aligned."""
    large = [(name, one) for name, one in shifts if one.is_large]
    if not large:
        return None
    name, worst = max(large, key=lambda pair: max(abs(pair[1].x), abs(pair[1].y)))
    return (
        f"{len(large)} of the {looked_at} pairs checked {are(len(large))} not aligned: the low picture of {name} is "
        f"shifted by {worst} (right, down) of the high one. Such pairs teach blur and lower scores; align them first"
    )
