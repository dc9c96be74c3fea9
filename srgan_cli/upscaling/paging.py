"""Files of many pages: enlarged into one file, or into a file for each page."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from srgan_cli.config import UpscaleOptions
from srgan_cli.documents.document import Contents
from srgan_cli.documents.pdf import check_inside
from srgan_cli.engine.tiles import choose_scales
from srgan_cli.errors import SettingsError, UnreadablePictureError
from srgan_cli.imaging.formats import CONTAINERS, FORMATS, container_of_suffix
from srgan_cli.imaging.image import Header
from srgan_cli.imaging.output import Output, decide, output_format
from srgan_cli.sizes import Aim
from srgan_cli.upscaling.inputs import STREAM

# digits of a page number in a name: most documents have fewer than 1000 pages, and names then sort correctly
_MIN_DIGITS = 3


class SeveralResultsError(SettingsError):
    """The pages of a document would become several results, but there is only one target."""


@dataclass(frozen=True)
class PageJob:
    """One page of a document: `number` counts from 1. The rest is as in `Job`."""

    number: int
    header: Header
    scales: tuple[int, ...]
    output: Output

    @property
    def network_pixels(self) -> int:
        return 0 if not self.scales else self.header.width * self.header.height * math.prod(self.scales) ** 2

    @property
    def raw_bytes(self) -> int:
        return self.output.raw_bytes(self.header.channels)


def aim_of(header: Header, options: UpscaleOptions) -> Aim:
    """The size that a picture is enlarged to; one that is large enough and copied keeps its size."""
    aim = options.size.target(header.width, header.height)
    if aim.ratio <= 1 and options.size.copy_large == "copy":
        return Aim(header.width, header.height, 1.0)
    return aim


def stays_one_file(contents: Contents, to_file: Path | None, options: UpscaleOptions) -> bool:
    """Whether the result is one file of many pages. Raises `SettingsError` for a format not supported for output."""
    if contents.format in CONTAINERS:
        return to_file is None or container_of_suffix(to_file.suffix) == contents.format
    if len(contents.pages) == 1 and contents.count > 1:
        return False
    moving = contents.kind == "frames"
    return contents.kind in FORMATS[output_format(to_file, contents.pages[0], options.write, moving=moving)].holds


def page_jobs(
    contents: Contents, to_file: Path | None, options: UpscaleOptions, available: tuple[int, ...]
) -> tuple[PageJob, ...]:
    """The pages of a document that becomes one file. A page that is already large enough keeps its size, since it
    cannot be left out. Raises what `decide` and `Size.target` do."""
    jobs = []
    if contents.format in CONTAINERS:
        to_file = None  # each page is a separate file inside
    for number, header in zip(contents.numbers, contents.pages, strict=True):
        if contents.format in CONTAINERS and header.pages > 1:
            continue  # an animation in an archive keeps its format
        aim = aim_of(header, options)
        if aim.ratio <= 1 and options.size.copy_large == "skip":
            aim = Aim(header.width, header.height, 1.0)
        output = decide(
            to_file, header, options.write, width=aim.width, height=aim.height, dpi=options.size.resolution,
            moving=contents.kind == "frames",
        )  # fmt: skip
        if contents.format == "pdf":
            check_inside(output.format)
        enlarged = not options.size.only_enlarge or aim.ratio > 1
        scales = choose_scales(available, aim.ratio) if enlarged else ()
        jobs.append(PageJob(number, header, scales, output))
    if not jobs:
        raise UnreadablePictureError("it contains only files of several pages, which are left unchanged")
    return tuple(jobs)


def kept_note(contents: Contents) -> tuple[str, ...]:
    """A note on what a container holds that is not enlarged."""
    several = sum(header.pages > 1 for header in contents.pages) if contents.format in CONTAINERS else 0
    return (f"pictures of several pages or frames in it are kept unchanged: {several}",) if several else ()


def single_pages(contents: Contents, options: UpscaleOptions) -> list[tuple[int, Header, int]]:
    """Number, header and number of digits in the name, for pages that each get a file of their own."""
    if options.output == STREAM and len(contents.pages) > 1:
        raise SeveralResultsError(
            f"-o - writes one result to stdout, but there are {len(contents.pages)} {contents.kind}; choose one with "
            "--page, or a --format that holds several"
        )
    digits = 0 if len(contents.pages) == 1 else max(_MIN_DIGITS, len(str(contents.numbers[-1])))
    singles = []
    for number, header in zip(contents.numbers, contents.pages, strict=True):
        word = contents.kind.removesuffix("s")
        note = f"only {word} {number} of {contents.count} is read" if digits == 0 and contents.count > 1 else ""
        singles.append((number, replace(header, notes=(*header.notes, note) if note else header.notes), digits))
    return singles


def split_note(contents: Contents, title: str, first: str) -> str:
    """A note for documents that do not stay one file."""
    return f"{title} holds one picture, so the {len(contents.pages)} {contents.kind} become a file each: {first}, …"


def default_note(contents: Contents, output: Output, to_file: Path | None, options: UpscaleOptions) -> tuple[str, ...]:
    """Why an animation's result has another format, if the user did not choose one."""
    if (
        output.format == contents.format
        or contents.format in CONTAINERS
        or to_file is not None
        or options.write.format is not None
    ):
        return ()
    was, title = FORMATS[contents.format].title, FORMATS[output.format].title
    return (f"{was} has few colours, so the result is an animated {title}; --format {contents.format} keeps {was}",)
