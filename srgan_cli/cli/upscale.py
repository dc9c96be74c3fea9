"""`srgan upscale`: enlarges pictures, folders and scans."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

import click

from srgan_cli.cli.command import under
from srgan_cli.cli.name_lists import check_list, names_in, write_list
from srgan_cli.cli.options import (
    Decimal,
    json_option,
    no_config_option,
    output_option,
    overwrite_option,
    path,
    quiet_option,
    verbose_option,
)
from srgan_cli.cli.picture_options import PicturesCommand, as_one, reading, size_and_model, writing_and_computing
from srgan_cli.config import RayOptions, Shard, UpscaleOptions
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.stores.paths import path_of

_inputs, _output, _many = map(under, ("Inputs", "Output", "Many pictures"))


@click.command(cls=PicturesCommand, no_args_is_help=True)
@click.argument("inputs", nargs=-1, metavar="INPUT...", type=click.Path(readable=False, allow_dash=True))
@size_and_model
@_inputs("-r", "--recursive", is_flag=True, help="Include subfolders, and keep their structure in the output.")
@_inputs(
    "--files-from",
    metavar="FILE|-",
    type=click.Path(allow_dash=True),
    callback=path,
    help="Read more inputs from a list: one per line, or NUL-separated.",
)
@reading
@output_option(
    "Result file, folder, or - for stdout. [default: beside each input, as {stem}_x{scale}{ext}]",
    metavar="FILE|DIR|-",
    type=click.Path(allow_dash=True, readable=False),
    callback=None,
)
@overwrite_option("Replace results that exist.", heading="Output", instead="existing")
@writing_and_computing
@_many(
    "--resume",
    is_flag=True,
    instead="existing",
    help="Continue an earlier run: redo only what is missing or was made with other settings or weights.",
)
@_many("--skip-existing", is_flag=True, instead="existing", help="Skip pictures whose result exists.")
@_many("-n", "--dry-run", is_flag=True, help="Print what would be done, without doing it.")
@_many(
    "--failed",
    type=click.Path(),
    callback=path,
    metavar="FILE",
    help="List inputs that failed; --files-from can read it.",
)
@_many(
    "--shard",
    metavar="K/N",
    help="Process only part K of N of the pictures, for N processes that do not see each other's results.",
)
@_many(
    "--split-pixels",
    type=int,
    default=50_000_000,
    show_default=True,
    metavar="N",
    help="With several devices: divide a picture with more pixels than this among all of them.",
)
@_many(
    "--ray",
    "ray_address",
    is_flag=False,
    flag_value="local",
    metavar="[auto|ADDRESS]",
    help="Distribute the work on a Ray cluster: a new one on this machine, or the one at ADDRESS.",
)
@_many("--ray-cpus", type=Decimal(), default=1.0, show_default=True, metavar="N", help="CPU cores per Ray worker.")
@_many("--ray-gpus", type=Decimal(), default=0.0, show_default=True, metavar="N", help="GPUs per Ray worker.")
@_many(
    "--variants",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Make N results of each picture, with a model that draws its detail from noise; --name can use {variant}.",
)
@_many("--fail-fast", is_flag=True, help="Stop at the first picture that fails.")
@quiet_option()
@verbose_option("Print a line for each picture, and why the device and model were chosen.")
@json_option("Events on stdout, one JSON object per line.")
@no_config_option()
@as_one
def upscale(
    inputs: tuple[str, ...], asked: UpscaleOptions, recursive: bool, files_from: Path | None, output: str | None,
    overwrite: bool, resume: bool, skip_existing: bool, dry_run: bool, failed: Path | None, shard: str | None,
    split_pixels: int, ray_address: str | None, ray_cpus: float, ray_gpus: float, variants: int, fail_fast: bool,
    quiet: bool, verbose: bool, as_json: bool,
) -> int:  # fmt: skip
    """Enlarge pictures.

    INPUT is a picture, a folder of pictures, a URL (s3://, gs://, https://), or - for stdin. Metadata, bit depth,
    transparency and colour profile are kept. Nothing is overwritten unless you say so.

    \b
      srgan upscale in.jpg -o out.png --scale 4
      srgan upscale photos/ -o large/ --recursive
      srgan upscale scan.tif -o print.tif --print A3 --dpi 300
      cat in.webp | srgan upscale - --format png > out.png
    """
    if any(path == "" for path in inputs):
        raise SettingsError("an INPUT is empty (an unset variable?); give . for the folder you are in")
    if output == "":
        raise SettingsError("-o is empty (an unset variable?); give . for the folder you are in")
    if files_from == Path("-") and "-" in inputs:
        raise SettingsError("stdin cannot be both an input and the list of inputs")
    listed = () if files_from is None else names_in(files_from)
    if output is None and inputs == ("-",) and not listed and asked.name_pattern is None:
        output = _stdout_unless_terminal(busy=as_json or dry_run)
    options = replace(
        asked,
        inputs=(*map(path_of, inputs), *listed),
        output=None if output is None else path_of(output),
        output_is_folder=output is not None and output.endswith(("/", os.sep)),
        recursive=recursive,
        overwrite=overwrite,
        skip_existing=skip_existing,
        resume=resume,
        variants=variants,
        fail_fast=fail_fast,
        split_pixels=split_pixels,
        ray=None if ray_address is None else RayOptions(ray_address, ray_cpus, ray_gpus),
        shard=None if shard is None else Shard.parse(shard),
    )
    if failed is not None and not dry_run:
        check_list("--failed", failed)
    if not options.inputs:
        raise NothingToDoError("no inputs: the list was empty") if files_from else SettingsError("give an INPUT")
    if as_json and output == "-":
        raise SettingsError("--json and -o - would both write to stdout; give one of them")
    if output == "-" and not dry_run and sys.stdout.isatty():
        raise SettingsError("-o - would write the picture's bytes to the terminal: give a file, as in > out.png")
    stdin = sys.stdin.buffer.read() if Path("-") in options.inputs else None
    return _run(options, stdin, failed, dry_run=dry_run, as_json=as_json, quiet=quiet, verbose=verbose)


def _stdout_unless_terminal(*, busy: bool) -> str | None:
    """Without -o, a picture from stdin is written to stdout if that is a pipe or file."""
    return None if busy or sys.stdout.isatty() else "-"


def _run(
    options: UpscaleOptions, stdin: bytes | None, failed: Path | None, *, dry_run: bool, as_json: bool, quiet: bool,
    verbose: bool,
) -> int:  # fmt: skip
    from srgan_cli.cli import console, plan_console
    from srgan_cli.upscaling.session import prepare
    from srgan_cli.upscaling.stopping import ending_signals
    from srgan_cli.upscaling.warming import torch_ahead

    if dry_run:
        session = prepare(options, stdin=stdin)
        plan_console.show_plan(session, as_json=as_json)
        return session.plan.exit_code
    with torch_ahead(vulkan=options.engine.device == "auto" or options.engine.device.startswith("vulkan")) as timer:
        if options.has_crew:
            timer.cancel()  # the workers need torch, this process does not
        session = prepare(options, stdin=stdin, start_workers=True)
        if not session.plan.jobs:
            timer.cancel()
    for number in ending_signals():
        signal.signal(number, as_interrupt)
    with console.Watch(session, quiet=quiet, verbose=verbose, as_json=as_json) as watch:
        tally = session.run(watch)
    watch.finish(tally)
    if failed is not None:
        write_list("--failed", failed, dict.fromkeys(failure.source for failure in tally.failures))
    if tally.error is not None:
        raise tally.error
    return tally.exit_code


def as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
