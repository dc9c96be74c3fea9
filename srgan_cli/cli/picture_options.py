"""Options on single pictures, declared once for `upscale`, `watch` and `serve`, and their conversion to settings."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from srgan_cli.cli.command import Command, under
from srgan_cli.cli.options import (
    Completed,
    Decimal,
    decimal,
    device_option,
    ensemble_option,
    model_option,
    precision_option,
    scale_option,
    seed_option,
    tile_option,
    variation_option,
)
from srgan_cli.config import (
    AUTO_MODEL,
    DEFAULT_DETAIL,
    DEFAULT_MAX_PIXELS,
    BitDepth,
    EngineOptions,
    PageRange,
    Precision,
    Strip,
    TiffLayout,
    UpscaleOptions,
    WriteOptions,
)
from srgan_cli.errors import SettingsError
from srgan_cli.imaging.formats import FORMATS
from srgan_cli.sizes import PAPERS, CopyLarge, Size

_F = TypeVar("_F", bound=Callable[..., Any])
_T = TypeVar("_T")


_STRIPS = ("gps", "all", "none")


def _is_input(word: str) -> bool:
    return word.lower() not in _STRIPS and os.path.lexists(word)


class PicturesCommand(Command):
    """`--strip` without a value means all; click would take the next argument as its value.

    A word that is no file's name is taken for a value, so that what may be given is listed.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for i, arg in enumerate(args[:end]):
            following = "".join(args[i + 1 : i + 2])
            if arg == "--strip" and (not following.isalpha() or _is_input(following)):
                args[i] = "--strip=all"
        return super().parse_args(ctx, args)


class _Side(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """`4000`, or `4000<`: only enlarge smaller pictures."""

    name = "px"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, bool]:
        try:
            return value if isinstance(value, tuple) else Size.parse_side(str(value))
        except SettingsError as err:
            self.fail(err.sentence, param, ctx)


class _Grain(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """`auto`, or a number."""

    name = "grain"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Literal["auto"] | None:
        if value == "auto":
            return "auto"
        try:
            return decimal(value)
        except ValueError:
            self.fail(f"{value!r} is neither auto nor a number from 0 to 1", param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem("auto")] if "auto".startswith(incomplete) else []


def _color(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    if value is None:
        return None
    from PIL import ImageColor

    try:
        color = ImageColor.getrgb(value)
    except ValueError as err:
        raise click.BadParameter(f"{value!r} is not a colour: give a name (white) or #rrggbb") from err
    return color[0], color[1], color[2]


_FORMATS = tuple(key for key, known in FORMATS.items() if known.writable)
_size, _model, _inputs, _output, _metadata = map(under, ("Size", "Model", "Inputs", "Output", "Metadata"))

_SIZE_AND_MODEL = (
    scale_option(
        "Enlarge N times, any number above 1 up to 16. [default: 4]", heading="Size", number=float, instead="size"
    ),
    _size("--long-side", type=_Side(), instead="size", metavar="PX[<]", help="The result's longer side."),
    _size("--width", type=_Side(), instead="size", metavar="PX[<]", help="The result's width; the height follows."),
    _size("--height", type=_Side(), instead="size", metavar="PX[<]", help="The result's height; the width follows."),
    _size("--fit", instead="size", metavar="WxH[<]", help="The largest result that fits into this box."),
    _size(
        "--print",
        "paper",
        type=Completed(*PAPERS),
        instead="size",
        metavar="PAPER",
        help="The largest result that fits on this paper at --dpi (default 300): A3, letter, 30x40cm, 8x10in.",
    ),
    _size("--dpi", type=Decimal(), metavar="N", help="Resolution to write into the result, in px per inch."),
    _size(
        "--only-enlarge",
        is_flag=True,
        help="Pictures that are large enough do not count as failures (the same as < after a size).",
    ),
    _size(
        "--copy-large",
        type=click.Choice(get_args(CopyLarge), case_sensitive=False),
        help="With --only-enlarge: whether large pictures are left out, copied unchanged, or reduced. [default: skip]",
    ),
    model_option(
        default=AUTO_MODEL,
        text="Bundled model (see `srgan models list`), weights file, or training run; auto chooses for each picture.",
    ),
    _model(
        "--detail",
        type=Decimal(),
        metavar="0-1",
        help=f"How much detail srgan may invent; 0 is the same as fidelity. [default: {DEFAULT_DETAIL:g}]",
    ),
    _model(
        "--color-lock/--no-color-lock",
        default=None,
        help="Keep the colours of the input. [default: on for adversarial models]",
    ),
    ensemble_option(
        "Average the results for the picture's eight mirrored and turned copies: closer to the original, with eight "
        "times the work.",
        heading="Model",
    ),
    _model(
        "--grain",
        type=_Grain(),
        metavar="auto|0-1",
        help="Film grain to add to the result: as much as the input has (auto), or this strength. [default: none]",
    ),
    seed_option(
        "A different number gives different grain, and different detail from models with noise.", heading="Model"
    ),
    variation_option(
        "How much of the noise to use, for models that draw their detail from noise. [default: 1]", heading="Model"
    ),
)
_READING = (
    _inputs("--include", multiple=True, metavar="GLOB", help="In folders, include only what matches (repeatable)."),
    _inputs("--exclude", multiple=True, metavar="GLOB", help="In folders, exclude what matches (repeatable)."),
    _inputs(
        "--page",
        "pages",
        metavar="N|N-M|all",
        default="all",
        help="Which pages or frames of a file to read. [default: all]",
    ),
    _inputs(
        "--max-pixels",
        type=int,
        default=DEFAULT_MAX_PIXELS,
        show_default=True,
        metavar="N",
        help="Refuse inputs with more pixels (decompression bombs).",
    ),
    _inputs(
        "--accept-damaged",
        is_flag=True,
        help="Upscale the part of a damaged picture that can be decoded, with a note and exit code 1.",
    ),
    _inputs(
        "--timeout",
        "timeout_s",
        type=Decimal(),
        metavar="SECONDS",
        help="Give up on a picture that takes longer. [default: no limit]",
    ),
)
_WRITING_AND_COMPUTING = (
    _output(
        "--format",
        "format_",
        type=Completed(*_FORMATS),
        metavar="FORMAT",
        help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}. Default: by the extension of -o, else that of the input.",
    ),
    _output("--quality", type=int, metavar="1-100", help="For jpeg, webp, avif. [default: 95, 90, 75]"),
    _output(
        "--name",
        "name_pattern",
        metavar="PATTERN",
        help="Name of each result, from {stem} {ext} {scale} {model} {width} {height} {index} {page} {variant}.",
    ),
    _output(
        "--bit-depth",
        type=click.Choice(["keep", "8", "16"], case_sensitive=False),
        default="keep",
        show_default=True,
        help="Bits per channel.",
    ),
    _output("--lossless", is_flag=True, help="Lossless WebP."),
    _output(
        "--tiff-layout",
        type=click.Choice(get_args(TiffLayout), case_sensitive=False),
        default="strip",
        show_default=True,
        help="Layout of TIFF files; image servers (IIIF) read a pyramid quickly.",
    ),
    _output(
        "--tile-size",
        "tiff_tile_px",
        type=int,
        default=256,
        show_default=True,
        metavar="PX",
        help="Side of the tiles in a tiled or pyramid TIFF.",
    ),
    _output(
        "--png-level",
        type=int,
        default=1,
        show_default=True,
        metavar="0-9",
        help="PNG compression: higher is smaller and slower, never worse.",
    ),
    _output(
        "--background",
        callback=_color,
        metavar="COLOUR",
        help="What transparency is composited over in formats without it: white, #rrggbb.",
    ),
    _output("--strict-names", is_flag=True, help="Fail if two results would have the same name. Default: rename both."),
    _metadata(
        "--strip",
        type=click.Choice(_STRIPS, case_sensitive=False),
        default="none",
        metavar="[gps|all]",
        help="Drop metadata: all of it, or the location only.",
    ),
    _metadata(
        "--keep-text", is_flag=True, help="Store PNG text (prompts, workflows) in EXIF if the result is not a PNG."
    ),
    _metadata("--keep-time", is_flag=True, help="Give the result the modification time of the input."),
    device_option(several=" Several devices share the work: cuda:0,cuda:1, cuda:all, or cpu:WORKERSxTHREADS."),
    precision_option(),
    tile_option(),
)


def _all_of(options: tuple[Callable[[Any], Any], ...]) -> Callable[[_F], _F]:
    def declare(command: _F) -> _F:
        for option in reversed(options):  # the first one is shown first in the help
            command = option(command)
        return command

    return declare


# Three groups, so that a command can insert its own options between them and still have a well-ordered help.
size_and_model = _all_of(_SIZE_AND_MODEL)
reading = _all_of(_READING)
writing_and_computing = _all_of(_WRITING_AND_COMPUTING)


def as_one(command: Callable[..., _T]) -> Callable[..., _T]:
    """Pass a command whose options are the three groups (and its own) a single `UpscaleOptions`, `asked`, instead of
    them."""
    names = tuple(inspect.signature(_options).parameters)

    @functools.wraps(command)
    def call(**given: Any) -> _T:
        asked = _options(**{name: given.pop(name) for name in names})
        return command(asked=asked, **given)

    return call


def _options(
    scale: float | None, long_side: tuple[int, bool] | None, width: tuple[int, bool] | None,
    height: tuple[int, bool] | None, fit: str | None, paper: str | None, dpi: float | None, only_enlarge: bool,
    copy_large: CopyLarge | None, model: str, detail: float | None, color_lock: bool | None,
    ensemble: bool, grain: float | Literal["auto"] | None, seed: int, variation: float | None,
    include: tuple[str, ...], exclude: tuple[str, ...], pages: str, max_pixels: int, accept_damaged: bool,
    timeout_s: float | None,
    format_: str | None, quality: int | None, name_pattern: str | None, bit_depth: str, lossless: bool,
    tiff_layout: TiffLayout, tiff_tile_px: int, png_level: int, background: tuple[int, int, int] | None,
    strict_names: bool, strip: Strip, keep_text: bool, keep_time: bool, device: str, precision: Precision,
    tile_px: int | None,
) -> UpscaleOptions:  # fmt: skip
    depth: BitDepth = "keep" if bit_depth == "keep" else 8 if bit_depth == "8" else 16
    sides = [side for side in (long_side, width, height) if side is not None]
    only_enlarge = only_enlarge or any(side[1] for side in sides) or (fit or paper or "").rstrip().endswith("<")
    return UpscaleOptions(
        model=model,
        detail=detail,
        grain=grain,
        seed=seed,
        variation=variation,
        size=Size(
            scale=scale,
            width=None if width is None else width[0],
            height=None if height is None else height[0],
            long_side=None if long_side is None else long_side[0],
            fit=None if fit is None else Size.parse_box(fit.rstrip().removesuffix("<")),
            paper=None if paper is None else Size.parse_paper(paper.rstrip().removesuffix("<")),
            dpi=dpi,
            only_enlarge=only_enlarge,
            copy_large=copy_large or "skip",
        ),
        engine=EngineOptions(device, precision, tile_px, color_lock, ensemble),
        write=WriteOptions(
            format_,
            quality,
            png_level,
            lossless,
            depth,
            strip,
            background,
            keep_time,
            tiff_layout,
            tiff_tile_px,
            keep_text,
        ),
        include=include,
        exclude=exclude,
        name_pattern=name_pattern,
        strict_names=strict_names,
        pages=PageRange.parse(pages),
        max_pixels=max_pixels,
        accept_damaged=accept_damaged,
        timeout_s=timeout_s,
    )


@click.command(add_help_option=False)
@size_and_model
@reading
@writing_and_computing
@as_one
def one_picture(asked: UpscaleOptions) -> UpscaleOptions:
    """Not a command: parses the options of one picture for `srgan serve`."""
    return asked
