"""`srgan upscale`: pictures, folders or scans in, larger ones out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import click

from srgan_cli.cli.command import Command, under
from srgan_cli.cli.options import (
    Completed,
    device_option,
    json_option,
    model_option,
    no_config_option,
    precision_option,
    quiet_option,
    refuse_addresses,
    tile_option,
)
from srgan_cli.config import (
    AUTO_MODEL,
    DEFAULT_DETAIL,
    DEFAULT_MAX_PIXELS,
    PAPERS,
    BitDepth,
    CopyLarge,
    EngineOptions,
    Precision,
    Size,
    Strip,
    TiffLayout,
    UpscaleOptions,
    WriteOptions,
)
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.files import publish_bytes, reason
from srgan_cli.imaging.formats import FORMATS


class _Command(Command):
    """`--strip` alone means all; click would take the next argument, whatever it is, for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for i, arg in enumerate(args[:end]):
            if arg == "--strip" and "".join(args[i + 1 : i + 2]).lower() not in ("gps", "all", "none"):
                args[i] = "--strip=all"
        return super().parse_args(ctx, args)


class _Side(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on, not at run time before
    """`4000`, or `4000<`: only enlarge."""

    name = "px"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, bool]:
        try:
            return value if isinstance(value, tuple) else Size.parse_side(str(value))
        except SettingsError as err:
            self.fail(err.sentence, param, ctx)


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
_size, _model, _inputs, _output, _metadata, _compute, _many, _options = map(
    under, ("Size", "Model", "Inputs", "Output", "Metadata", "Compute", "Many pictures", "Options")
)


@click.command(cls=_Command, no_args_is_help=True)
@click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path(readable=False, allow_dash=True))
@_size(
    "-s",
    "--scale",
    type=float,
    instead="size",
    metavar="N",
    help="Enlarge N times, any number above 1 up to 16. [default: 4]",
)
@_size("--long-side", type=_Side(), instead="size", metavar="PX[<]", help="The result's longer side.")
@_size("--width", type=_Side(), instead="size", metavar="PX[<]", help="The result's width; the height follows.")
@_size("--height", type=_Side(), instead="size", metavar="PX[<]", help="The result's height; the width follows.")
@_size("--fit", instead="size", metavar="WxH[<]", help="The largest result that fits into this box.")
@_size(
    "--print",
    "paper",
    type=Completed(*PAPERS),
    instead="size",
    metavar="PAPER",
    help="The largest result that fits on paper at --dpi (300 unless given): A3, letter, 30x40cm, 8x10in.",
)
@_size("--dpi", type=float, metavar="N", help="Resolution to write into the result, in px per inch.")
@_size("--only-enlarge", is_flag=True, help="Pictures that are large enough are no failures (the same as < in a size).")
@_size(
    "--copy-large",
    type=click.Choice(get_args(CopyLarge)),
    help="What becomes of those with --only-enlarge: left out, copied as they are, or reduced. [default: skip]",
)
@model_option(
    default=AUTO_MODEL,
    text="Bundled model (see `srgan models list`), weights file, or training run; auto looks at each picture.",
)
@_model(
    "--detail",
    type=float,
    metavar="0-1",
    help=f"How much detail srgan may invent: 0 is fidelity, true to the picture. [default: {DEFAULT_DETAIL:g}]",
)
@_model(
    "--color-lock/--no-color-lock",
    default=None,
    help="Hold the result's colours to the input's. [default: on for adversarial models]",
)
@_inputs("-r", "--recursive", is_flag=True, help="Enter folders inside folders, and keep their tree in the output.")
@_inputs("--include", multiple=True, metavar="GLOB", help="In folders, include only what matches (repeatable).")
@_inputs("--exclude", multiple=True, metavar="GLOB", help="In folders, leave out what matches (repeatable).")
@_inputs(
    "--files-from",
    metavar="FILE|-",
    type=click.Path(allow_dash=True),
    help="Read more inputs from a list: one per line, or NUL-separated.",
)
@_inputs(
    "--max-pixels",
    type=int,
    default=DEFAULT_MAX_PIXELS,
    show_default=True,
    metavar="N",
    help="Refuse inputs of more pixels (decompression bombs).",
)
@_inputs(
    "--accept-damaged",
    is_flag=True,
    help="Make what can still be decoded of a damaged picture, with a note and exit code 1.",
)
@_inputs(
    "--timeout",
    "timeout_s",
    type=float,
    metavar="SECONDS",
    help="Give up a picture that takes longer. [default: no limit]",
)
@_output(
    "-o",
    "--output",
    metavar="FILE|DIR|-",
    type=click.Path(allow_dash=True),
    help="Result file, folder, or - for stdout. Default: beside each input, as {stem}_x{scale}{ext}.",
)
@_output(
    "--format",
    "format_",
    type=Completed(*_FORMATS),
    metavar="FORMAT",
    help=f"{', '.join(_FORMATS[:-1])} or {_FORMATS[-1]}. Default: by the extension of -o, else that of the input.",
)
@_output("--quality", type=int, metavar="1-100", help="For jpeg, webp, avif. [default: 95, 90, 75]")
@_output("--overwrite", is_flag=True, instead="existing", help="Replace results that exist.")
@_output(
    "--name",
    "name_pattern",
    metavar="PATTERN",
    help="Name of each result, from {stem} {ext} {scale} {model} {width} {height} {index}.",
)
@_output(
    "--bit-depth", type=click.Choice(["keep", "8", "16"]), default="keep", show_default=True, help="Bits per channel."
)
@_output("--lossless", is_flag=True, help="Lossless WebP.")
@_output(
    "--tiff-layout",
    type=click.Choice(get_args(TiffLayout)),
    default="strip",
    show_default=True,
    help="How TIFF is laid out: pyramid is what image servers (IIIF) read quickly.",
)
@_output(
    "--tile-size",
    "tiff_tile_px",
    type=int,
    default=256,
    show_default=True,
    metavar="PX",
    help="Side of the tiles in a tiled or pyramid TIFF.",
)
@_output(
    "--png-level",
    type=int,
    default=1,
    show_default=True,
    metavar="0-9",
    help="PNG compression: higher is smaller and slower, never worse.",
)
@_output(
    "--background",
    callback=_color,
    metavar="COLOUR",
    help="What transparency is composited over in formats without it: white, #rrggbb.",
)
@_output("--strict-names", is_flag=True, help="Two results of one name are an error. Default: both get another name.")
@_metadata(
    "--strip",
    type=click.Choice(["gps", "all", "none"], case_sensitive=False),
    default="none",
    metavar="[gps|all]",
    help="Drop metadata: all of it, or the location only.",
)
@_metadata("--keep-text", is_flag=True, help="Put PNG text (prompts, workflows) into EXIF where the result is no PNG.")
@_metadata("--keep-time", is_flag=True, help="Give the result the input's modification time.")
@device_option()
@precision_option()
@tile_option()
@_many(
    "--resume",
    is_flag=True,
    instead="existing",
    help="Continue an earlier run: redo only what is missing or was made with other settings or weights.",
)
@_many("--skip-existing", is_flag=True, instead="existing", help="Leave out pictures whose result exists.")
@_many("-n", "--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@_many(
    "--failed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="List inputs that failed; --files-from can read it.",
)
@_many("--fail-fast", is_flag=True, help="Stop at the first picture that fails.")
@quiet_option()
@_options("-v", "--verbose", is_flag=True, help="A line for each picture, and why the device and model were chosen.")
@json_option("Events on stdout, one JSON object per line.")
@no_config_option()
def upscale(
    inputs: tuple[str, ...], scale: float | None, long_side: tuple[int, bool] | None, width: tuple[int, bool] | None,
    height: tuple[int, bool] | None, fit: str | None, paper: str | None, dpi: float | None, only_enlarge: bool,
    copy_large: CopyLarge | None, model: str, detail: float | None, color_lock: bool | None, recursive: bool,
    include: tuple[str, ...], exclude: tuple[str, ...], files_from: str | None, max_pixels: int,
    accept_damaged: bool, timeout_s: float | None, output: str | None,
    format_: str | None, quality: int | None, overwrite: bool, name_pattern: str | None, bit_depth: str,
    lossless: bool, tiff_layout: TiffLayout, tiff_tile_px: int,
    png_level: int, background: tuple[int, int, int] | None, strict_names: bool, strip: Strip,
    keep_text: bool, keep_time: bool, device: str, precision: Precision, tile_px: int | None, resume: bool,
    skip_existing: bool,
    dry_run: bool, failed: Path | None, fail_fast: bool, quiet: bool, verbose: bool, as_json: bool,
) -> int:  # fmt: skip
    """Enlarge pictures.

    INPUT is a picture, a folder of pictures, or - for stdin. Metadata, bit depth, transparency and colour profile are
    kept. Nothing is overwritten unless you say so.

    \b
      srgan upscale in.jpg -o out.png --scale 4
      srgan upscale photos/ -o large/ --recursive
      srgan upscale scan.tif -o print.tif --print A3 --dpi 300
      cat in.webp | srgan upscale - --format png > out.png
    """
    refuse_addresses(inputs)
    if any(path == "" for path in inputs):
        raise SettingsError("an INPUT is empty (an unset variable?); give . for the folder you are in")
    listed = _listed(files_from, inputs)
    if output is None and inputs == ("-",) and not listed and name_pattern is None:
        output = _stdout_unless_terminal(busy=as_json or dry_run)
    sides = [side for side in (long_side, width, height) if side is not None]
    only_enlarge = only_enlarge or any(side[1] for side in sides) or (fit or paper or "").rstrip().endswith("<")
    depth: BitDepth = "keep" if bit_depth == "keep" else 8 if bit_depth == "8" else 16
    options = UpscaleOptions(
        inputs=(*map(Path, inputs), *listed),
        output=None if output is None else Path(output),
        output_is_folder=output is not None and output.endswith(("/", os.sep)),
        model=model,
        detail=detail,
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
        engine=EngineOptions(device, precision, tile_px, color_lock),
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
        recursive=recursive,
        include=include,
        exclude=exclude,
        name_pattern=name_pattern,
        strict_names=strict_names,
        overwrite=overwrite,
        skip_existing=skip_existing,
        resume=resume,
        fail_fast=fail_fast,
        max_pixels=max_pixels,
        accept_damaged=accept_damaged,
        timeout_s=timeout_s,
    )
    if failed is not None and not dry_run:
        _write_failed(failed, [])  # find out now, not after the work
    if not options.inputs:
        raise NothingToDoError("no inputs: the list was empty") if files_from else SettingsError("give an INPUT")
    if as_json and output == "-":
        raise SettingsError("--json and -o - would both write to stdout; give one of them")
    stdin = sys.stdin.buffer.read() if Path("-") in options.inputs else None
    return _run(options, stdin, failed, dry_run=dry_run, as_json=as_json, quiet=quiet, verbose=verbose)


def _stdout_unless_terminal(*, busy: bool) -> str | None:
    """Where the picture from stdin goes without -o: on into the pipe or file that stdout is."""
    return None if busy or sys.stdout.isatty() else "-"


def _run(
    options: UpscaleOptions, stdin: bytes | None, failed: Path | None, *, dry_run: bool, as_json: bool, quiet: bool,
    verbose: bool,
) -> int:  # fmt: skip
    from srgan_cli.cli import console
    from srgan_cli.upscaling.session import prepare
    from srgan_cli.upscaling.stopping import ending_signals
    from srgan_cli.upscaling.warming import torch_ahead

    if dry_run:
        session = prepare(options, stdin=stdin)
        console.show_plan(session, as_json=as_json)
        return session.plan.exit_code
    with torch_ahead(vulkan=options.engine.device == "auto" or options.engine.device.startswith("vulkan")) as timer:
        session = prepare(options, stdin=stdin)
        if not session.plan.jobs:
            timer.cancel()
    for number in ending_signals():
        signal.signal(number, _as_interrupt)
    with console.Watch(session, quiet=quiet, verbose=verbose, as_json=as_json) as watch:
        tally = session.run(watch)
    watch.finish(tally)
    if failed is not None:
        _write_failed(failed, [failure.source for failure in tally.failures])
    if tally.error is not None:
        raise tally.error
    return tally.exit_code


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _listed(files_from: str | None, inputs: tuple[str, ...]) -> tuple[Path, ...]:
    """The names in a list: separated by NUL if there is one, else by line ends. Bytes that are no UTF-8 are kept."""
    if files_from is None:
        return ()
    if files_from == "-":
        if "-" in inputs:
            raise SettingsError("stdin cannot be both an input and the list of inputs")
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(files_from).read_bytes()
        except OSError as err:
            raise SettingsError(f"--files-from {files_from}: {err.strerror}") from err
    data = data.removeprefix(b"\xef\xbb\xbf")  # Windows' editors begin a text with it
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    return tuple(Path(name.decode("utf-8", "surrogateescape")) for name in names if name.strip())


def _write_failed(path: Path, sources: list[Path]) -> None:
    names = [str(source).encode("utf-8", "surrogateescape") for source in sources]
    separator = b"\0" if any(b"\n" in name or b"\r" in name for name in names) else b"\n"
    try:
        publish_bytes(path, b"".join(name + separator for name in names))
    except OSError as err:
        raise SettingsError(f"--failed {path} cannot be written: {reason(err)}") from err
