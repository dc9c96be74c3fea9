"""`srgan evaluate`: how close models' results are to the originals, side by side."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import click

from srgan_cli.cli.command import Command, under
from srgan_cli.cli.options import (
    degradation_option,
    device_option,
    ensemble_option,
    high_dir_option,
    json_option,
    low_dir_option,
    model_option,
    no_config_option,
    path,
    precision_option,
    quiet_option,
    scale_option,
    seed_option,
    tile_option,
    variation_option,
    verbose_option,
    vgg_weights_option,
)
from srgan_cli.config import DEFAULT_MODEL, EngineOptions, Precision
from srgan_cli.errors import SettingsError, shown
from srgan_cli.files import check_publishable, publish_text, reason
from srgan_cli.wording import counted

if TYPE_CHECKING:
    from srgan_cli.evaluation.further import Name
    from srgan_cli.evaluation.session import EvaluationReport

_METRICS = ("niqe", "vgg19", "lpips", "dists")


class _Column(NamedTuple):
    key: str
    title: str
    digits: int
    larger_is_better: bool | None  # None: neither was given


_COLUMNS = (
    _Column("psnr_y_db", "PSNR Y", 2, True),
    _Column("ssim_y", "SSIM Y", 4, True),
    _Column("psnr_rgb_db", "PSNR RGB", 2, True),
    _Column("ssim_rgb", "SSIM RGB", 4, True),
    _Column("consistency_db", "consistency", 2, True),
    _Column("niqe", "NIQE", 2, False),
    _Column("vgg19_conv3_4", "VGG19", 3, False),
    _Column("lpips", "LPIPS", 4, False),
    _Column("dists", "DISTS", 4, False),
    _Column("spread", "spread", 2, None),
)


def _metrics(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [] if value == "none" else [name.strip().lower() for name in value.split(",")]
    strange = [name for name in names if name not in _METRICS]
    if strange:
        raise click.BadParameter(f"unknown metric {strange[0]!r}; choose from {', '.join(_METRICS)}, or none")
    return tuple(names)


_pictures, _measures, _results = map(under, ("Pictures", "Metrics", "Results"))


@click.command(cls=Command, no_args_is_help=True, short_help="Compare enlarged pictures with their originals.")
@model_option(
    "models",
    default=(DEFAULT_MODEL,),
    multiple=True,
    text="What to evaluate (repeatable): a bundled model, a weights file, or a training run.",
)
@seed_option("Seed of the noise, for models that draw their detail from it.", heading="Model")
@variation_option(
    "How much of the noise such models use; repeatable: 0 and 1 score them without and with. [default: 1]",
    "variations",
    heading="Model",
    multiple=True,
)
@ensemble_option("Evaluate each model's --ensemble too, on a row of its own.", heading="Model")
@high_dir_option("high_dir", "Pictures", "The originals, at full size.", required=True)
@low_dir_option("low_dir", "Pictures", "The small pictures, with the same names. [default: made by --degradation]")
@degradation_option(
    "How to make the small pictures: MATLAB's bicubic (the standard); photo, with noise and compression; or RUN, with "
    "the wear that an adapted run has learned. [default: bicubic]"
)
@scale_option("Enlarge N times. [default: the models' own scale]", heading="Pictures")
@_measures(
    "--metrics",
    callback=_metrics,
    metavar="NAME,…",
    help="Metrics besides PSNR, SSIM and consistency: niqe, vgg19, lpips, dists, or none. [default: those available]",
)
@vgg_weights_option("Metrics", "if --metrics has vgg19")
@_results(
    "--save", type=click.Path(), callback=path, metavar="DIR", help="Save the pictures, in a folder for each method."
)
@_results("--csv", "csv_file", type=click.Path(), callback=path, metavar="FILE", help="Write every number as CSV.")
@device_option()
@precision_option()
@tile_option()
@json_option("Print everything as one JSON object.")
@quiet_option("Print no progress and no notes.")
@verbose_option("Also print a line for each picture.")
@no_config_option()
def evaluate(
    models: tuple[str, ...], seed: int, variations: tuple[float, ...], ensemble: bool, high_dir: Path,
    low_dir: Path | None, degradation: str | None, scale: int | None, metrics: tuple[str, ...] | None,
    vgg_weights: Path | None, save: Path | None, csv_file: Path | None, device: str, precision: Precision,
    tile_px: int | None, as_json: bool, quiet: bool, verbose: bool,
) -> int:  # fmt: skip
    """Compare enlarged pictures with their originals, with bicubic and Lanczos as baselines.

    \b
      srgan evaluate --hr-dir Set14/
      srgan evaluate --hr-dir Set14/ --model runs/mine --model fidelity --csv scores.csv
      srgan evaluate --hr-dir photos/ --degradation photo --save pictures/
      srgan evaluate --hr-dir Set14/ --model runs/noise --variation 0 --variation 1
    """
    from srgan_cli.evaluation import session

    if csv_file is not None:
        _check_csv(csv_file)  # check before the work
    options = session.EvaluateOptions(
        high_dir=high_dir,
        models=models,
        low_dir=low_dir,
        degradation=degradation,
        scale=scale,
        save=save,
        metrics=cast("tuple[Name, ...] | None", metrics),
        vgg_weights=vgg_weights,
        engine=EngineOptions(device, precision, tile_px, ensemble=ensemble),
        seed=seed,
        variations=variations,
    )
    with progress(show=not quiet and sys.stderr.isatty()) as advance:
        report = session.evaluate_models(options, advance=advance)
    if csv_file is not None:
        _write_csv(csv_file, list(_rows(report)))
    if as_json:
        how = "given" if low_dir is not None else "bicubic" if degradation is None else degradation
        click.echo(json.dumps(_as_plain(report, how), indent=2, allow_nan=False))
    else:
        _show(report, verbose=verbose, quiet=quiet)
    for sentence in report.failures:
        click.echo(f"left out: {shown(sentence)}", err=True)
    return report.exit_code


@contextmanager
def progress(*, show: bool) -> Iterator[Callable[[int, int, str], None]]:
    """A progress line on stderr with the current picture's name, removed at the end."""

    def advance(done: int, total: int, name: str) -> None:
        if show:
            click.echo(f"\r\033[K{done + 1}/{total} {shown(name)[:60]}", nl=False, err=True)

    try:
        yield advance
    finally:
        if show:
            click.echo("\r\033[K", nl=False, err=True)


# ----------------------------------------------------------------------------------------------------- what is printed


def _show(report: EvaluationReport, *, verbose: bool, quiet: bool) -> None:
    """Print tables to stdout, and the conventions and notes to stderr."""
    means = {method: evaluation.mean for method, evaluation in report.methods.items()}
    if verbose:
        per_method = [evaluation.pictures for evaluation in report.methods.values()]
        for scores in zip(*per_method, strict=True):
            values = {method: one.values() for method, one in zip(report.methods, scores, strict=True)}
            _table(shown(scores[0].name), values)
            click.echo()
    count = len(report.methods["bicubic"].pictures)
    _table(f"mean of {counted(count, 'picture')}, ×{report.scale}", means)
    if quiet:
        return
    for sentence in (*_conventions(report, means), *(f"note: {note}" for note in report.notes)):
        click.echo(sentence, err=True)


def _table(title: str, values: dict[str, dict[str, float]]) -> None:
    """A row for each method, with the best number of each column in bold on a terminal."""
    columns = [column for column in _COLUMNS if any(column.key in one for one in values.values())]
    width = max(len(title), *map(len, values))
    click.echo("  ".join([f"{title:<{width}}", *(column.title for column in columns)]))
    for method, numbers in values.items():
        cells = [_cell(column, numbers, list(values.values())) for column in columns]
        click.echo("  ".join([f"{shown(method):<{width}}", *cells]))


def _cell(column: _Column, numbers: dict[str, float], everyone: Sequence[dict[str, float]]) -> str:
    if column.key not in numbers:
        return f"{'–':>{len(column.title)}}"
    text = f"{numbers[column.key]:.{column.digits}f}"
    all_of_them = [one[column.key] for one in everyone if column.key in one]
    best = max(all_of_them) if column.larger_is_better else min(all_of_them)
    padded = f"{text:>{len(column.title)}}"
    if column.larger_is_better is None:
        return padded
    return click.style(padded, bold=True) if text == f"{best:.{column.digits}f}" else padded


def _conventions(report: EvaluationReport, means: dict[str, dict[str, float]]) -> Iterator[str]:
    yield f"PSNR (dB) and SSIM: a border of {report.scale} px cut off; Y as in MATLAB (BT.601, rounded), grey kept."
    yield "consistency: PSNR (dB) of RGB with the original when both are downscaled by bicubic."
    present = {key for one in means.values() for key in one}
    if {"vgg19_conv3_4", "lpips", "dists"} & present:
        yield "VGG19, LPIPS and DISTS use the middle 1024 px of larger pictures."
    if "spread" in present:
        yield "spread: the mean difference between the results of two seeds, in levels of 255."
    lower = [column.title for column in _COLUMNS if column.key in present and column.larger_is_better is False]
    if lower:
        yield f"{', '.join(lower)}: lower is better" + (
            "; NIQE uses srgan's own model, so compare its values only with each other." if "NIQE" in lower else "."
        )


def _as_plain(report: EvaluationReport, degradation: str) -> dict[str, object]:
    """For JSON, which has no infinity: the PSNR of equal pictures is null."""
    return {
        "scale": report.scale,
        "degradation": degradation,
        "border_px": report.scale,
        "pictures": len(report.methods["bicubic"].pictures),
        "methods": {
            method: {
                **report.compute.get(method, {}),
                "mean": _finite(evaluation.mean),
                "pictures": [{"name": one.name, **_finite(one.values())} for one in evaluation.pictures],
            }
            for method, evaluation in report.methods.items()
        },
        "failures": list(report.failures),
        "notes": list(report.notes),
    }


def _finite(values: dict[str, float]) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _rows(report: EvaluationReport) -> Iterator[dict[str, object]]:
    for method, evaluation in report.methods.items():
        for one in evaluation.pictures:
            yield {"method": method, "picture": one.name, **one.values()}
        yield {"method": method, "picture": "mean", **evaluation.mean}


def _write_csv(path: Path, rows: Sequence[dict[str, object]]) -> None:
    titles = dict.fromkeys(title for row in rows for title in row)
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, list(titles))
    writer.writeheader()
    writer.writerows(rows)
    try:
        publish_text(path, table.getvalue(), errors="surrogateescape")
    except OSError as err:
        raise SettingsError(f"--csv {shown(path)} cannot be written: {reason(err)}") from err


_CSV_START = b"method,picture,"


def _check_csv(path: Path) -> None:
    """Raises `SettingsError` if the file cannot be written. An existing file stays unchanged, for good if it is not
    such a table: a photo's name is easily given by mistake."""
    try:
        if path.is_file() and path.stat().st_size > 0:
            with path.open("rb") as file:
                if file.read(len(_CSV_START)) != _CSV_START:
                    raise SettingsError(f"--csv {shown(path)} exists already and is not a table of srgan's")
        check_publishable(path)
    except OSError as err:
        raise SettingsError(f"--csv {shown(path)} cannot be written: {reason(err)}") from err
