"""`srgan export`: a model for another program."""

from __future__ import annotations

import json
from pathlib import Path

import click

from srgan_cli.cli.options import (
    ModelName,
    json_option,
    output_option,
    overwrite_option,
    path,
    scale_option,
)
from srgan_cli.config import ExportFormat, ExportOptions
from srgan_cli.errors import SettingsError, shown


@click.command(no_args_is_help=True)
@click.argument("model", metavar="NAME|FILE|RUN", type=ModelName())
@output_option(
    "File to write; the format follows from its extension.", metavar="FILE", heading="Options", required=True
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "ncnn", "pth", "safetensors"], case_sensitive=False),
    help="onnx (.onnx); ncnn (.param, and a .bin beside it); pth and safetensors (what ComfyUI and chaiNNer read).",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16"], case_sensitive=False),
    default="fp32",
    show_default=True,
    help="Precision of the weights, and in ONNX of the arithmetic. Input and output stay fp32.",
)
@scale_option("Which scale of a family. [default: 4]", number=float)
@overwrite_option("Replace files that exist.")
@click.option(
    "--openmodeldb",
    type=click.Path(),
    callback=path,
    metavar="FILE.json",
    help="Also write the model's record for OpenModelDB.",
)
@click.option("--author", metavar="NAME", help="With --openmodeldb: your name there.")
@json_option()
def export(
    model: str, output: Path, format_: ExportFormat | None, precision: str, scale: float | None, overwrite: bool,
    openmodeldb: Path | None, author: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write a model in a format that other programs read.

    \b
      srgan export fast-x4 -o fast-x4.onnx
      srgan export srgan@0.6 -o srgan-x4.param --precision fp16
      srgan export runs/mine -o 4x_mine.pth

    Before the file is written, its result is compared with that of srgan, if the program that reads it is
    installed. See docs/EXPORT.md for chaiNNer, ComfyUI, Upscayl, web pages and phones.
    """
    options = ExportOptions(output, format_, precision == "fp16", overwrite, openmodeldb, author)
    from srgan_cli.networks.exporting import export as write
    from srgan_cli.networks.weights import load_model

    loaded = load_model(model, scale)
    if scale is not None and loaded.scale != scale:
        from srgan_cli.upscaling.session import select

        have = " or ".join(map(str, select(model).scales))
        raise SettingsError(f"--scale {scale:g} does not suit {model}: it enlarges {have} times")
    done = write(loaded, options)
    if as_json:
        difference = {"program": done.program, "difference": done.difference}
        click.echo(json.dumps({"files": [str(path) for path in done.files], **difference}))
        return
    for file in done.files:
        click.echo(shown(file))
    if loaded.network.has_noise and options.format in ("onnx", "ncnn"):
        click.echo(f"note: {loaded.name} draws its detail from noise; this file computes it without noise", err=True)
    if done.difference is None:
        click.echo(f"not checked: {done.program} is not installed", err=True)
    else:
        click.echo(
            f"checked: the result of {done.program} differs from srgan's by at most {done.difference:.1e} "
            "(colours 0 to 1)",
            err=True,
        )
