"""Result size: a factor, px, or paper size at a resolution. Standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from srgan_cli.checking import check_option, option_error

CopyLarge: TypeAlias = Literal["skip", "copy", "reduce"]

MAX_SCALE = 16.0
MM_PER_INCH = 25.4
# ISO 216 and the North American sizes, in mm.
PAPERS: dict[str, tuple[float, float]] = {
    "a0": (841, 1189), "a1": (594, 841), "a2": (420, 594), "a3": (297, 420), "a4": (210, 297), "a5": (148, 210),
    "a6": (105, 148), "letter": (215.9, 279.4), "legal": (215.9, 355.6), "tabloid": (279.4, 431.8),
}  # fmt: skip
_PRINT_DPI = 300.0  # common print shop sizes


class Aim(NamedTuple):
    """The size that one picture is enlarged to. `ratio` is the enlargement; `note` is for the user."""

    width: int
    height: int
    ratio: float
    note: str = ""


@dataclass(frozen=True)
class Size:
    """Size of the result: at most one of the first six fields is set (`scale` 4 if none is).

    `fit` is a box (width, height) in px that the result fits into, keeping its proportions. `paper` is the same in mm
    at `dpi` (300 by default), rotated to match the picture. `dpi` is also written into the result. With `only_enlarge`,
    a picture that is already large enough is not an error; `copy_large` says what happens to it.
    """

    scale: float | None = None
    width: int | None = None
    height: int | None = None
    long_side: int | None = None
    fit: tuple[int, int] | None = None
    paper: tuple[float, float] | None = None
    dpi: float | None = None
    only_enlarge: bool = False
    copy_large: CopyLarge = "skip"

    def __post_init__(self) -> None:
        names = ("scale", "width", "height", "long_side", "fit", "paper")
        given = [name for name in names if getattr(self, name) is not None]
        check_option(
            len(given) <= 1,
            f"give only one of --scale, --width, --height, --long-side, --fit and --print (got {', '.join(given)})",
        )
        if not given:
            object.__setattr__(self, "scale", 4.0)
        if self.scale is not None:
            check_option(1.0 < self.scale <= MAX_SCALE, f"--scale must be above 1 and at most 16, not {self.scale:g}")
            check_option(
                not self.only_enlarge,
                "--only-enlarge needs a size in px or on paper, such as --long-side 4000; --scale always enlarges",
            )
        for name in ("width", "height", "long_side"):
            value = getattr(self, name)
            check_option(value is None or value >= 1, f"--{name.replace('_', '-')} must be at least 1 px")
        check_option(self.fit is None or min(self.fit) >= 1, "--fit must be at least 1x1 px")
        check_option(
            not isinstance(self.paper, str),
            f"paper is a width and a height in mm, as Size.parse_paper({self.paper!r}) gives",
        )
        check_option(self.paper is None or min(self.paper) >= 1, "--print must be at least 1x1 mm")
        if self.dpi is not None:
            check_option(1 <= self.dpi <= 65_535, f"--dpi must be between 1 and 65535, not {self.dpi:g}")
        check_option(
            self.copy_large in get_args(CopyLarge),
            f"--copy-large must be skip, copy or reduce, not {self.copy_large!r}",
        )
        check_option(self.copy_large == "skip" or self.only_enlarge, "--copy-large is for --only-enlarge")

    @property
    def resolution(self) -> float | None:
        """The resolution to write, in px per inch; None: the input's."""
        return _PRINT_DPI if self.paper is not None and self.dpi is None else self.dpi

    def target(self, width: int, height: int) -> Aim:
        """The size for an input of `width` × `height` px: at most 16 times as large, with a note if that is less than
        requested. With `only_enlarge` the ratio may be 1 or less.

        Raises `SettingsError` if the result would be smaller than the input without `only_enlarge`.
        """
        ratio = self._ratio(width, height)
        result = _times(width, height, ratio)
        if ratio < 1.0 and not self.only_enlarge:
            raise option_error(
                f"{result[0]}x{result[1]} px is smaller than the picture itself ({width}x{height} px), "
                "and srgan only enlarges; --only-enlarge leaves such pictures out, or copies or reduces them"
            )
        if ratio <= MAX_SCALE:
            return Aim(*result, ratio)
        capped = _times(width, height, MAX_SCALE)
        note = (
            f"{result[0]}x{result[1]} px is more than 16 times its size: it becomes {capped[0]}x{capped[1]} px, "
            "16 times as large"
        )
        return Aim(*capped, MAX_SCALE, note)

    def _ratio(self, width: int, height: int) -> float:
        if self.scale is not None:
            return self.scale
        if self.width is not None:
            return self.width / width
        if self.height is not None:
            return self.height / height
        if self.long_side is not None:
            return self.long_side / max(width, height)
        box = self.fit if self.fit is not None else self._sheet(width, height)
        return min(box[0] / width, box[1] / height)

    def _sheet(self, width: int, height: int) -> tuple[int, int]:
        """The paper's size in px, rotated to match the picture."""
        assert self.paper is not None
        assert self.resolution is not None
        short, long = sorted(max(1, round(side / MM_PER_INCH * self.resolution)) for side in self.paper)
        return (long, short) if width >= height else (short, long)

    @staticmethod
    def parse_side(text: str) -> tuple[int, bool]:
        """`'4000'` -> `(4000, False)`; `'4000<'` -> `(4000, True)`: enlarge only pictures that are smaller."""
        match = re.fullmatch(r"(\d+)\s*(<?)", text.strip(), re.ASCII)
        if match is None:
            raise option_error(f"expects a number of px, for example 4000 (or '4000<': only enlarge), not {text!r}")
        return int(match[1]), match[2] == "<"

    @staticmethod
    def parse_box(text: str) -> tuple[int, int]:
        """`'1920x1080'` -> `(1920, 1080)`."""
        match = re.fullmatch(r"(\d+)\s*[x×]\s*(\d+)", text.strip().lower(), re.ASCII)
        if match is None:
            raise option_error(f"--fit expects WIDTHxHEIGHT in px, for example 3840x2160, not {text!r}")
        return int(match[1]), int(match[2])

    @staticmethod
    def parse_paper(text: str) -> tuple[float, float]:
        """`'A3'` or `'30x40cm'` -> width and height in mm. Raises `SettingsError`."""
        wanted = text.strip().lower()
        if wanted in PAPERS:
            return PAPERS[wanted]
        number = r"(\d+(?:\.\d+)?)"
        match = re.fullmatch(rf"{number}\s*(?:mm|cm|in)?\s*[x×]\s*{number}\s*(mm|cm|in|\")", wanted, re.ASCII)
        if match is None:
            raise option_error(
                f"--print expects a paper size ({', '.join(PAPERS)}) or WIDTHxHEIGHT with a unit, for example 30x40cm "
                f"or 8x10in, not {text!r}"
            )
        mm = {"mm": 1.0, "cm": 10.0}.get(match[3], MM_PER_INCH)
        return float(match[1]) * mm, float(match[2]) * mm


def _times(width: int, height: int, ratio: float) -> tuple[int, int]:
    return max(1, round(width * ratio)), max(1, round(height * ratio))
