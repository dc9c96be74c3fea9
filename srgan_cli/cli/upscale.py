"""`srgan upscale`: pictures, folders or scans in, larger ones out."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from srgan_cli.config import (
    AUTO_MODEL,
    DEFAULT_DETAIL,
    DEFAULT_MAX_PIXELS,
    BitDepth,
    EngineOptions,
    Precision,
    Size,
    Strip,
    UpscaleOptions,
    WriteOptions,
)
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.files import publish_bytes, reason


class _Command(click.Command):
    """`--strip` alone means all; click would take the next argument, whatever it is, for its value."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        for i, arg in enumerate(args[:end]):
            if arg == "--strip" and "".join(args[i + 1 : i + 2]).lower() not in ("gps", "all", "none"):
                args[i] = "--strip=all"
        return super().parse_args(ctx, args)


def _tile(_ctx: click.Context, _param: click.Parameter, value: str) -> int | None:
    if value == "auto":
        return None
    if not (value.isascii() and value.isdecimal()):
        raise click.BadParameter(f"{value!r} is neither auto nor a number of px")
    return int(value)


def _color(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[int, int, int] | None:
    if value is None:
        return None
    from PIL import ImageColor

    try:
        color = ImageColor.getrgb(value)
    except ValueError as err:
        raise click.BadParameter(f"{value!r} is no colour: give a name (white) or #rrggbb") from err
    return color[0], color[1], color[2]


@click.command(cls=_Command, no_args_is_help=True)
@click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path(readable=False, allow_dash=True))
@click.option(
    "-o",
    "--output",
    metavar="FILE|DIR|-",
    help="Result file, folder, or - for stdout. Default: beside each input, as {stem}_x{scale}{ext}.",
)
@click.option(
    "-s", "--scale", type=float, metavar="N", help="Enlarge N times, any number above 1 up to 16. [default: 4]"
)
@click.option("--width", type=int, metavar="PX", help="Result's width; the height follows.")
@click.option("--height", type=int, metavar="PX", help="Result's height; the width follows.")
@click.option("--long-side", type=int, metavar="PX", help="Result's longer side.")
@click.option("--fit", metavar="WxH", help="Largest result that fits into this box.")
@click.option(
    "-m",
    "--model",
    default=AUTO_MODEL,
    show_default=True,
    metavar="NAME|FILE|RUN",
    help="Bundled model (see `srgan models list`), weights file, or training run; auto looks at each picture.",
)
@click.option(
    "--detail",
    type=float,
    metavar="0-1",
    help=f"How much detail srgan may invent: 0 is fidelity, true to the picture. [default: {DEFAULT_DETAIL:g}]",
)
@click.option("-r", "--recursive", is_flag=True, help="Enter folders below, and keep their tree in the output.")
@click.option("--include", multiple=True, metavar="GLOB", help="Of folders, take only what matches (repeatable).")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Of folders, leave out what matches (repeatable).")
@click.option("--files-from", metavar="FILE|-", help="Read more inputs from a list: one per line, or NUL-separated.")
@click.option(
    "--name",
    "name_pattern",
    metavar="PATTERN",
    help="Name of each result, from {stem} {ext} {scale} {model} {width} {height} {index}.",
)
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--skip-existing", is_flag=True, help="Leave out pictures whose result exists.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an earlier run: redo only what is missing or was made with other settings or weights.",
)
@click.option(
    "--format",
    "format_",
    metavar="FORMAT",
    help="png, jpeg, webp, tiff, avif or bmp. Default: by -o's extension, else as the input.",
)
@click.option("--quality", type=int, metavar="1-100", help="For jpeg, webp, avif. [default: 95, 90, 75]")
@click.option(
    "--png-level",
    type=int,
    default=1,
    show_default=True,
    metavar="0-9",
    help="PNG compression: higher is smaller and slower, never worse.",
)
@click.option("--lossless", is_flag=True, help="Lossless WebP.")
@click.option(
    "--bit-depth", type=click.Choice(["keep", "8", "16"]), default="keep", show_default=True, help="Bits per channel."
)
@click.option(
    "--strip",
    type=click.Choice(["gps", "all", "none"], case_sensitive=False),
    default="none",
    metavar="[gps|all]",
    help="Drop metadata: all of it, or the location only.",
)
@click.option(
    "--background",
    callback=_color,
    metavar="COLOUR",
    help="What to lay transparency on for formats without it: white, #rrggbb.",
)
@click.option("--keep-time", is_flag=True, help="Give the result the input's modification time.")
@click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]|mps",
    help="Where to compute (see `srgan doctor`).",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "bf16"]),
    default="auto",
    show_default=True,
    help="auto takes half precision where it is fast, and checks it.",
)
@click.option(
    "--tile",
    "tile_px",
    default="auto",
    show_default=True,
    callback=_tile,
    metavar="auto|PX",
    help="Side of a tile. Changes memory and speed, never the picture.",
)
@click.option(
    "--color-lock/--no-color-lock",
    default=None,
    help="Hold the result's colours to the input's. [default: on for adversarial models]",
)
@click.option(
    "--max-pixels",
    type=int,
    default=DEFAULT_MAX_PIXELS,
    show_default=True,
    metavar="N",
    help="Refuse inputs of more pixels (decompression bombs).",
)
@click.option(
    "--failed",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="List inputs that failed; --files-from can read it.",
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first picture that fails.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Events on stdout, one JSON object per line.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.option(
    "-v", "--verbose", is_flag=True, help="A line for each picture, and why the device and model were chosen."
)
def upscale(
    inputs: tuple[str, ...], output: str | None, scale: float | None, width: int | None, height: int | None,
    long_side: int | None, fit: str | None, model: str, detail: float | None, recursive: bool, include: tuple[str, ...],
    exclude: tuple[str, ...], files_from: str | None, name_pattern: str | None, overwrite: bool, skip_existing: bool,
    resume: bool, format_: str | None, quality: int | None, png_level: int, lossless: bool, bit_depth: str,
    strip: Strip, background: tuple[int, int, int] | None, keep_time: bool, device: str, precision: Precision,
    tile_px: int | None,
    color_lock: bool | None, max_pixels: int, failed: Path | None, fail_fast: bool, dry_run: bool, as_json: bool,
    quiet: bool, verbose: bool,
) -> int:  # fmt: skip
    """Enlarge pictures.

    INPUT is a picture, a folder of pictures, or - for stdin. Metadata, bit depth, transparency and colour profile are
    kept. Nothing is overwritten unless you say so.

    \b
      srgan upscale in.jpg -o out.png --scale 4
      srgan upscale photos/ -o large/ --recursive
      srgan upscale scan.tif -o scan_large.tif --long-side 60000
      cat in.webp | srgan upscale - -o - --format png > out.png
    """
    depth: BitDepth = "keep" if bit_depth == "keep" else 8 if bit_depth == "8" else 16
    options = UpscaleOptions(
        inputs=(*map(Path, inputs), *_listed(files_from, inputs)),
        output=None if output is None else Path(output),
        output_is_folder=output is not None and output.endswith(("/", os.sep)),
        model=model,
        detail=detail,
        size=Size(scale, width, height, long_side, None if fit is None else Size.parse_box(fit)),
        engine=EngineOptions(device, precision, tile_px, color_lock),
        write=WriteOptions(format_, quality, png_level, lossless, depth, strip, background, keep_time),
        recursive=recursive,
        include=include,
        exclude=exclude,
        name_pattern=name_pattern,
        overwrite=overwrite,
        skip_existing=skip_existing,
        resume=resume,
        fail_fast=fail_fast,
        max_pixels=max_pixels,
    )
    if any(path == "" for path in inputs):
        raise SettingsError("an INPUT is empty (an unset variable?); give . for the folder you are in")
    if failed is not None and not dry_run:
        _write_failed(failed, [])  # find out now, not after the work
    if not options.inputs:
        raise NothingToDoError("no inputs: the list was empty") if files_from else SettingsError("give an INPUT")
    if as_json and output == "-":
        raise SettingsError("--json and -o - would both write to stdout; give one of them")
    stdin = sys.stdin.buffer.read() if Path("-") in options.inputs else None
    return _run(options, stdin, failed, dry_run=dry_run, as_json=as_json, quiet=quiet, verbose=verbose)


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
    with torch_ahead() as timer:
        session = prepare(options, stdin=stdin)
        if not session.plan.jobs:
            timer.cancel()
    for number in ending_signals():
        signal.signal(number, _as_interrupt)
    with console.Watch(session.plan, quiet=quiet, verbose=verbose, as_json=as_json) as watch:
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
