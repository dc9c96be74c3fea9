"""Two folders as one page: a thumbnail for each pair of pictures, sorted by change, each opening a slider.

The page contains the thumbnails and links to the pictures, so it stays small even for a thousand of them. Pictures in
formats that browsers do not show (TIFF, HEIC) are copied into a folder beside it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from srgan_cli.comparison.embedding import Codec, render
from srgan_cli.comparison.scenes import read_shown
from srgan_cli.errors import NothingToDoError, PictureError, shown
from srgan_cli.files import publish_bytes
from srgan_cli.imaging.formats import PICTURE_SUFFIXES
from srgan_cli.imaging.image import Pixels
from srgan_cli.imaging.standards import luma

_THUMB_PX = 176
_THUMB, _COPY = Codec("JPEG", 72), Codec("JPEG", 90)
_COPY_PX = 2048  # longest side of a copy for browsers
_MEASURED_PX = 640  # in the middle of the larger picture: the area where the change is measured
_BROWSERS_SHOW = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".gif", ".bmp"})


@dataclass(frozen=True)
class Pair:
    """Two versions of a picture, and their name: the path below their folders."""

    name: str
    before: Path
    after: Path


def pairs_of(first: Path, second: Path) -> tuple[list[Pair], list[str]]:
    """Pictures with the same path below both folders (apart from extension and `_x4`), and notes on those without a
    counterpart.

    Where several pictures differ in their extension only, the same extension decides, or the one that `srgan upscale`
    adds then (`a.heic` -> `a.heic.png`). Raises `NothingToDoError` if there is no pair.
    """
    left, right = dict.fromkeys(_pictures(first)), dict.fromkeys(_pictures(second))
    matched: list[tuple[Path, Path]] = []
    for key_before, key_after in ((_full, _full), (_full, _short), (_short, _short)):
        waiting: dict[str, list[Path]] = {}
        for before in left:
            waiting.setdefault(key_before(before), []).append(before)
        for after in tuple(right):
            if found := waiting.get(key_after(after)):
                matched.append((found.pop(0), after))
                del left[matched[-1][0]], right[after]
    if not matched:
        raise NothingToDoError(f"no picture in {shown(first)} has the name of one in {shown(second)}")
    alone = [(folder, len(rest)) for folder, rest in ((first, left), (second, right)) if rest]
    many = Counter(_short(before) for before, _ in matched)
    pairs = [
        Pair(_short(before) if many[_short(before)] == 1 else _full(before), first / before, second / after)
        for before, after in matched
    ]
    notes = [f"{count} in {shown(folder)} without a counterpart" for folder, count in alone]
    return sorted(pairs, key=lambda pair: pair.name), notes


def _pictures(folder: Path) -> Iterator[Path]:
    """Paths below the folder."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and path.suffix.lower() in PICTURE_SUFFIXES:
                yield path.relative_to(folder)


def _short(relative: Path) -> str:
    return re.sub(r"_x\d+(\.\d+)?$", "", relative.with_suffix("").as_posix())


def _full(relative: Path) -> str:
    return _short(relative) + relative.suffix.lower()


def build_gallery(
    title: str, pairs: Sequence[Pair], page: Path, *, advance: Callable[[int, int, str], None]
) -> tuple[str, list[str]]:
    """The HTML of a page that will be written to `page`, and sentences on pictures that were left out."""
    entries: list[dict[str, object]] = []
    failures: list[str] = []
    copies = page.with_name(f"{page.stem}_files")
    for number, pair in enumerate(pairs):
        advance(number, len(pairs), pair.name)
        try:
            before, after = read_shown(pair.before), read_shown(pair.after)
        except PictureError as err:
            failures.append(str(err))
            continue
        entries.append(
            {
                "name": shown(pair.name),
                "change": round(change(before, after), 2),
                "sizes": [f"{one.shape[1]}×{one.shape[0]}" for one in (before, after)],
                "width": after.shape[1],
                "height": after.shape[0],
                "thumb": _THUMB.address(_THUMB.encode(_reduced(after, _THUMB_PX))),
                "before": _address(pair.before, before, page, copies / f"{number:05d}-before.jpg"),
                "after": _address(pair.after, after, page, copies / f"{number:05d}-after.jpg"),
            }
        )
    entries.sort(key=lambda entry: -float(str(entry["change"])))
    return render("comparison/gallery.html.jinja", title=title, entries=entries), failures


def change(before: Pixels, after: Pixels) -> float:
    """The difference between two pictures in levels of 255: root mean square in luma, in the middle of the larger one,
    with the smaller one enlarged bicubically. Both are (H, W, 3) uint8."""
    height, width = (max(sides) for sides in zip(before.shape[:2], after.shape[:2], strict=True))
    top, left = max(0, (height - _MEASURED_PX) // 2), max(0, (width - _MEASURED_PX) // 2)
    parts = [luma(_part(one, (width, height), top, left), np.float32) for one in (before, after)]
    return float(np.sqrt(np.square(parts[0] - parts[1]).mean()))


def _part(picture: Pixels, size: tuple[int, int], top: int, left: int) -> Pixels:
    """The middle of a picture enlarged to `size`; only the part that is needed is enlarged."""
    width, height = size
    matrix = np.array([[width / picture.shape[1], 0, -left], [0, height / picture.shape[0], -top]], np.float32)
    # A px is a square: the centre of the first one is at one half.
    matrix[:, 2] += (np.array([width / picture.shape[1], height / picture.shape[0]]) - 1) / 2
    side = min(_MEASURED_PX, width), min(_MEASURED_PX, height)
    plain = np.ascontiguousarray(picture)
    return np.asarray(cv2.warpAffine(plain, matrix, side, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def _reduced(picture: Pixels, longest_px: int) -> Pixels:
    ratio = longest_px / max(picture.shape[:2])
    if ratio >= 1:
        return picture
    size = max(1, round(picture.shape[1] * ratio)), max(1, round(picture.shape[0] * ratio))
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA))


def _address(path: Path, picture: Pixels, page: Path, copy: Path) -> str:
    """The picture's address in the page: the file itself, or a copy that browsers can show."""
    if path.suffix.lower() not in _BROWSERS_SHOW:
        copy.parent.mkdir(exist_ok=True)
        publish_bytes(copy, _COPY.encode(_reduced(picture, _COPY_PX)))
        path = copy
    relative = os.path.relpath(path.resolve(), page.parent.resolve()).replace(os.sep, "/")
    # With a leading dot, a name cannot be mistaken for another kind of address (`a:b.jpg`).
    return f"./{quote(os.fsencode(relative))}"
