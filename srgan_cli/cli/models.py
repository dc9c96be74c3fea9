"""`srgan models`: lists, describes and checks models. Does not import torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from srgan_cli.cli.options import json_option, overwrite_option
from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.errors import WeightsError, shown
from srgan_cli.networks import library, registry
from srgan_cli.networks.library import OwnModel
from srgan_cli.networks.registry import Entry


@click.group(short_help="List, describe and check models, and add your own.")
def models() -> None:
    """List, describe and check the available models, and add your own."""


@models.command("list")
@json_option()
def list_models(as_json: bool) -> None:
    """List the bundled models and your own."""
    entries, own = registry.entries(), library.own_models()
    if as_json:
        _write_json([*(entry.as_dict() for entry in entries), *(model.as_dict() for model in own)])
        return
    rows = [
        (entry.name, f"×{entry.scale}", _kind(entry), f"{entry.parameters:,}", _set5_score(entry), entry.description)
        for entry in entries
    ]
    rows += [
        (model.name, f"×{model.scale}", _kind(model), f"{model.parameters:,}", "", model.description or model.source)
        for model in own
    ]
    _write_table(("Name", "Scale", "Kind", "Parameters", "Set5", "What it is for"), rows)


@models.command(short_help="Show everything about a model.")
@click.argument("name")
@json_option()
def info(name: str, as_json: bool) -> None:
    """Show everything about a model: a bundled model, a family, one of your files or a run folder."""
    found = _described(name)
    if as_json:
        _write_json([model.as_dict() for model in found])
        return
    for number, model in enumerate(found):
        if number:
            click.echo()
        _write_facts(_facts(model) if isinstance(model, Entry) else _own_facts(model))


@models.command(short_help="Check that all model files are unchanged.")
@json_option()
def verify(as_json: bool) -> None:
    """Check that every model's file exists and is unchanged (by its SHA-256)."""
    checks = [(c.entry.name, c.entry.path, c.reason) for c in registry.verify()]
    own = [(model.name, model.path, library.fault(model)) for model in library.own_models()]
    own += [(folder.name, folder, "its record is damaged") for folder in library.damaged()]
    if as_json:
        rows = [
            {"name": name, "file": str(path), "ok": not reason, "reason": reason}
            for name, path, reason in (*checks, *own)
        ]
        _write_json(rows)
    else:
        _write_table(("Name", "State"), [(name, reason or "ok") for name, _, reason in (*checks, *own)])
    bad = [name for name, _, reason in checks if reason]
    if bad:
        raise WeightsError(f"{', '.join(bad)}: changed since it was installed; install srgan again")
    bad = [name for name, _, reason in own if reason]
    if bad:
        raise WeightsError(
            f"{', '.join(bad)}: changed since it was added; remove it with `srgan models remove`, and add it again"
        )


@models.command(short_help="Print the path of a model's file.")
@click.argument("name")
@json_option()
def path(name: str, as_json: bool) -> None:
    """Print the path of a model's file (of a family: all paths, one per line)."""
    own = library.members(name)
    files = [str(model.path) for model in own if registry.resolve(name)[1] is None]
    files = files or [str(entry.path) for entry in registry.family(name)]
    if as_json:
        _write_json(files)
        return
    for file in files:
        click.echo(file)


@models.command(short_help="Add a file or a download to your own models.")
@click.argument("source", metavar="FILE|RUN|URL")
@click.option("--name", metavar="NAME", help="Name of the model. [default: the file's name]")
@click.option(
    "--licence", metavar="TEXT", help="Its licence, as an SPDX name if there is one. [default: what the file says]"
)
@click.option("--sha256", metavar="HEX", help="Refuse the file if this is not its SHA-256.")
@overwrite_option("Replace your model of that name.")
@json_option()
def add(source: str, name: str | None, licence: str | None, sha256: str | None, overwrite: bool, as_json: bool) -> None:
    """Add a file or a download to your own models, under a name for --model.

    \b
      srgan models add 4x_photos.pth --name photos-x4 --licence CC-BY-4.0
      srgan models add https://example.org/4x_photos.safetensors --sha256 1f2e…
      srgan models add runs/mine

    Models called N-x2 and N-x4 form a family: --model N chooses the one that suits the scale. A download that was
    interrupted resumes when you run the command again.
    """
    from srgan_cli.networks.adding import AddOptions
    from srgan_cli.networks.adding import add as put

    with _download_progress() as on_progress:
        model = put(AddOptions(source, name, licence, sha256, overwrite), on_progress)
    if as_json:
        _write_json(model.as_dict())
        return
    click.echo(f"{model.name}  ×{model.scale}, {model.architecture}, {model.path}")
    if not model.licence:
        click.echo("its licence is not known; --licence notes it", err=True)


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove one of your own models."""
    if name in {entry.name for entry in registry.entries()}:
        raise WeightsError(f"{name} comes with srgan and cannot be removed")
    click.echo(library.remove(name))


@contextmanager
def _download_progress() -> Iterator[Callable[[int, int | None], None] | None]:
    """A progress bar on a terminal once the first bytes have arrived; otherwise nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


def _described(name: str) -> Sequence[Entry | OwnModel]:
    file, bundled = registry.resolve(name)
    if bundled is not None:
        return registry.family(name)
    if own := [model for model in library.members(name) if file.parent.parent == library.models_folder()]:
        return own
    entry = registry.describe_file(file)
    if entry is None:
        raise WeightsError(f"{file} was made by another program, so nothing is known about it before it is loaded")
    return (entry,)


def _kind(entry: Entry | OwnModel) -> str:
    if isinstance(entry, OwnModel):
        return f"own ({entry.kind})"
    return "adversarial" if entry.adversarial else "fidelity"


def _set5_score(entry: Entry) -> str:
    """PSNR on Set5; for a model with a choice of detail, that of the default."""
    scores = entry.scores.get(f"Set5@{DEFAULT_DETAIL:g}") or entry.scores.get("Set5", {})
    psnr = scores.get("psnr_y_db")
    return "" if psnr is None else f"{psnr:.2f} dB"


def _first_facts(model: Entry | OwnModel) -> list[tuple[str, str]]:
    return [
        ("name", model.name),
        ("family", model.family),
        ("for", model.description),
        ("scale", f"×{model.scale}"),
        ("kind", _kind(model)),
    ]


def _own_facts(model: OwnModel) -> list[tuple[str, str]]:
    return [
        *_first_facts(model),
        ("architecture", model.architecture),
        ("parameters", f"{model.parameters:,}"),
        ("licence", model.licence or "not known"),
        ("source", model.source),
        ("added", model.added),
        ("size", f"{model.size_bytes:,} bytes"),
        ("file", str(model.path)),
        *(("sha256", f"{sha256} {file}") for file, sha256 in model.sha256.items()),
    ]


def _facts(entry: Entry) -> list[tuple[str, str]]:
    return [
        *_first_facts(entry),
        ("architecture", f"{entry.architecture} ({_pairs(entry.config)})"),
        ("parameters", f"{entry.parameters:,}"),
        ("licence", entry.licence),
        *((test_set, _scores(values)) for test_set, values in entry.scores.items()),
        ("recipe", _pairs({key: value for key, value in entry.recipe.items() if not isinstance(value, Mapping)})),
        *((f"  {key}", _pairs(value)) for key, value in entry.recipe.items() if isinstance(value, Mapping)),
        ("file", str(entry.path)),
        ("sha256", entry.sha256),
    ]


def _write_facts(facts: Iterable[tuple[str, str]]) -> None:
    known = [(key, value) for key, value in facts if value]
    width = max(len(key) for key, _ in known)
    for key, value in known:
        # An untrusted file may contain control characters for the terminal.
        click.echo("".join(c if c.isprintable() else "?" for c in f"{key:<{width}}  {value}"))


def _scores(values: Mapping[str, float]) -> str:
    titles = {
        "psnr_y_db": "PSNR in dB (Y)",
        "ssim_y": "SSIM (Y)",
        "psnr_y_unrounded_db": "PSNR in dB (Y unrounded)",
        "vgg19_conv3_4": "VGG19 distance",
        "niqe": "NIQE",
        "consistency_db": "consistency in dB",
    }
    return _pairs({titles.get(key, key): value for key, value in values.items()})


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2))


def _write_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; for a pipe, one tab-separated line per row without a header."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(map(shown, row)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))  # a path may contain rich markup and control characters
    Console().print(table)
