"""Properties that were violated, and checks of results."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from srgan_cli.config import PageRange
from srgan_cli.documents.opening import container_of, read_contents
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.reading import read_header

SCALE = 2
MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class Finding:
    """A property that did not hold: `kind` for counting, and the details."""

    kind: str
    detail: str


def of_results(source: Path, results: Sequence[Path]) -> Iterator[Finding]:
    """Each picture of a file is there, twice as large, and another reader can read it."""
    container = container_of(source)
    high = [(page.width, page.height) for result in results for page in _pages(result, MAX_PIXELS * SCALE**2)]
    expected = []
    for page in _pages(source, MAX_PIXELS):
        scale = 1 if container == "zip" and page.pages > 1 else SCALE  # an animation in an archive stays as it is
        expected.append((page.width * scale, page.height * scale))
    if container == "pdf":  # by the numbers of its objects, which differ in the copy
        expected, high = sorted(expected), sorted(high)
    if expected != high:
        yield Finding("size", f"{high}, where {expected} was expected")
    for result in results:
        yield from _of_another_reader(result)


def _pages(path: Path, max_pixels: int) -> tuple[Header, ...]:
    if container_of(path) is None and (header := read_header(path, max_pixels=max_pixels)).pages == 1:
        return (header,)
    return read_contents(path, PageRange(), max_pixels=max_pixels).pages


def _of_another_reader(result: Path) -> Iterator[Finding]:
    if container_of(result) == "zip":
        with zipfile.ZipFile(result) as file:
            if (bad := file.testzip()) is not None:
                yield Finding("result", f"{bad!r} in it is damaged")
        return
    with contextlib.suppress(UnidentifiedImageError), Pillow.open(result) as opened:
        try:
            for number in range(getattr(opened, "n_frames", 1)):
                opened.seek(number)
                opened.load()
        except (OSError, EOFError, ValueError) as err:
            yield Finding("result", f"another reader cannot read the result: {err}")
