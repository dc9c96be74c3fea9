"""`srgan compare`: the same places in several pictures, or in several models' results for one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from srgan_cli.cli.command import Command, under
from srgan_cli.cli.evaluate import progress
from srgan_cli.cli.options import (
    device_option,
    high_dir_option,
    no_config_option,
    output_option,
    overwrite_option,
    path,
    precision_option,
    quiet_option,
    refuse_addresses,
    scale_option,
    seed_option,
    variation_option,
)
from srgan_cli.config import EngineOptions, Precision
from srgan_cli.errors import SettingsError, shown

if TYPE_CHECKING:
    from srgan_cli.comparison.places import Spot


def _names(_ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name in it")
    return names


_output, _models, _where = map(under, ("Output", "Models", "Where to look"))


@click.command(cls=Command, no_args_is_help=True, short_help="Show pictures side by side, where they differ most.")
@click.argument("inputs", nargs=-1, metavar="PICTURE...", type=click.Path(readable=False))
@output_option("A sheet of crops (.png, .jpg, …), or one page with a slider (.html).", metavar="FILE", required=True)
@_models(
    "-m",
    "--models",
    callback=_names,
    metavar="NAME,…",
    help="Enlarge each PICTURE with each of these models (as in `srgan upscale`) and bicubically.",
)
@scale_option("With --models: enlarge N times. [default: their own scale]", heading="Models")
@_models(
    "--variants",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="Show N results (variants) of each model that draws its detail from noise.",
)
@seed_option("Seed of the first variant; the others follow from it.", heading="Models")
@variation_option(
    "How much of its noise such a model uses; repeatable: 0 and 1 show it without and with. [default: 1]",
    "variations",
    heading="Models",
    multiple=True,
)
@_models("--hr", "--high", "high", callback=path, metavar="FILE", help="With --models: also show this original.")
@high_dir_option("high_dir", "Models", "With several PICTUREs: a folder of originals with the same names.")
@_models(
    "--lr", "--low", "show_low", is_flag=True, help="With --models: also show the PICTURE itself, not interpolated."
)
@_output("--labels", callback=_names, metavar="TEXT,…", help="Titles of the columns. [default: file names]")
@_where(
    "--at",
    multiple=True,
    metavar="X,Y",
    help="Centre of a crop (repeatable), in px of the largest picture (1200,800) or fractions of it (0.5,0.25).",
)
@_where(
    "--crops",
    type=int,
    metavar="N",
    help="Number of places, where the pictures differ most. [default: 4; 1 for each of several PICTUREs; page: 6]",
)
@_where(
    "--crop-px", type=int, metavar="PX", help="Side of a crop, in px of the largest picture. [default: 192; page: all]"
)
@_output(
    "--zoom",
    "zoom_percent",
    type=int,
    default=200,
    show_default=True,
    metavar="100-400",
    help="Zoom of a sheet, in per cent; a page has its own zoom.",
)
@_output("--smooth", is_flag=True, help="Enlarge the sheet's crops bicubically instead of showing whole pixels.")
@_output(
    "--enlarge",
    "enlarging",
    type=click.Choice(["bicubic", "nearest"], case_sensitive=False),
    default="bicubic",
    show_default=True,
    help="How smaller pictures are enlarged to the size of the largest.",
)
@_output(
    "--page-mb", type=int, default=48, show_default=True, metavar="N", help="Approximate maximum size of a page, in MB."
)
@overwrite_option("Replace the output if it exists.", heading="Output")
@device_option()
@precision_option()
@quiet_option("Print no progress and no notes.")
@no_config_option()
def compare(
    inputs: tuple[str, ...], output: Path, models: tuple[str, ...], scale: int | None, variants: int, seed: int,
    variations: tuple[float, ...], high: Path | None, high_dir: Path | None, show_low: bool, labels: tuple[str, ...],
    at: tuple[str, ...], crops: int | None, crop_px: int | None, zoom_percent: int, smooth: bool,
    enlarging: Literal["bicubic", "nearest"], page_mb: int, overwrite: bool, device: str, precision: Precision,
    quiet: bool,
) -> int:  # fmt: skip
    """Show pictures side by side: the same places in each, where they differ most.

    Smaller pictures are enlarged to the size of the largest; all must have the same proportions. Two folders
    give a gallery: the pictures that both have, sorted by change, each under a slider.

    \b
      srgan compare in.jpg out.png -o page.html
      srgan compare photos large -o all.html
      srgan compare a.png b.png c.png -o sheet.png --zoom 300 --at 1200,800
      srgan compare in.jpg --models fidelity,runs/mine -o sheet.png
      srgan compare low/*.png --models fidelity --hr-dir high/ --lr -o sheet.png
    """
    from srgan_cli.comparison.compare import CompareOptions, compare_pictures

    refuse_addresses(inputs)
    if "-" in inputs and not os.path.lexists("-"):
        raise SettingsError("srgan compare does not read stdin: give the names of files")
    if any(name == "" for name in inputs):
        raise SettingsError("a PICTURE has no name (an unset variable?)")
    options = CompareOptions(
        inputs=tuple(map(Path, inputs)),
        output=output,
        models=models or _default_models(variants, variations),
        scale=scale,
        variants=variants,
        seed=seed,
        variations=variations,
        high=high,
        high_dir=high_dir,
        show_low=show_low,
        labels=labels,
        at=_spots(at),
        crops=crops,
        crop_px=crop_px,
        zoom_percent=zoom_percent,
        smooth=smooth,
        enlarging=enlarging,
        page_bytes=page_mb * 1_000_000,
        overwrite=overwrite,
        engine=EngineOptions(device, precision),
    )
    with progress(show=not quiet and sys.stderr.isatty()) as advance:
        report = compare_pictures(options, advance=advance)
    if not quiet:
        for note in report.notes:
            click.echo(f"note: {shown(note)}", err=True)
        click.echo(f"{shown(output)}: {report.summary}", err=True)
    for sentence in report.failures:
        click.echo(f"left out: {shown(sentence)}", err=True)
    return report.exit_code


def _default_models(variants: int, variations: tuple[float, ...]) -> tuple[str, ...]:
    """The bundled model that has variants, if none was given."""
    if variants == 1 and not variations:
        return ()
    from srgan_cli.networks.registry import entries

    return (next(entry.family for entry in entries() if entry.has_noise),)


def _spots(texts: tuple[str, ...]) -> tuple[Spot, ...]:
    from srgan_cli.comparison.places import Spot

    return tuple(map(Spot.parse, texts))
