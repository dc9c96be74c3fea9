"""`srgan models`: which models there are, what they are, and whether their files are whole. Does not import torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

import click

from srgan_cli.cli.options import json_option
from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.errors import WeightsError
from srgan_cli.networks import registry
from srgan_cli.networks.registry import Entry

_JSON = json_option()


@click.group()
def models() -> None:
    """List, describe and check the available models."""


@models.command("list")
@_JSON
def list_models(as_json: bool) -> None:
    """List the models that come with srgan."""
    entries = registry.entries()
    if as_json:
        _write_json([entry.as_dict() for entry in entries])
        return
    rows = [
        (entry.name, f"×{entry.scale}", _kind(entry), f"{entry.parameters:,}", _best_score(entry), entry.description)
        for entry in entries
    ]
    _write_table(("Name", "Scale", "Kind", "Parameters", "Set5", "What it is for"), rows)


@models.command()
@click.argument("name")
@_JSON
def info(name: str, as_json: bool) -> None:
    """Show all about a model: one by NAME, a family's, or one of your own files or run folders."""
    found = _described(name)
    if as_json:
        _write_json([entry.as_dict() for entry in found])
        return
    for number, entry in enumerate(found):
        if number:
            click.echo()
        _write_facts(entry)


@models.command()
@_JSON
def verify(as_json: bool) -> None:
    """Check that every model's file is there and unchanged (by its SHA-256)."""
    checks = registry.verify()
    if as_json:
        _write_json([{"name": c.entry.name, "file": str(c.entry.path), "ok": c.ok, "reason": c.reason} for c in checks])
    else:
        _write_table(("Name", "State"), [(c.entry.name, "ok" if c.ok else c.reason) for c in checks])
    bad = [check.entry.name for check in checks if not check.ok]
    if bad:
        raise WeightsError(f"{', '.join(bad)}: not as delivered; install srgan again")


@models.command()
@click.argument("name")
@_JSON
def path(name: str, as_json: bool) -> None:
    """Print where a model's file lies (of a family: all of them, one per line)."""
    files = [str(entry.path) for entry in registry.family(name)]
    if as_json:
        _write_json(files)
        return
    for file in files:
        click.echo(file)


def _described(name: str) -> tuple[Entry, ...]:
    file, bundled = registry.resolve(name)
    if bundled is not None:
        return registry.family(name)
    entry = registry.describe_file(file)
    if entry is None:
        raise WeightsError(f"{file} was made by another program, so nothing is known about it before it is loaded")
    return (entry,)


def _kind(entry: Entry) -> str:
    return "adversarial" if entry.adversarial else "fidelity"


def _best_score(entry: Entry) -> str:
    """Of what the name stands for: where there is a choice of detail, the default one."""
    scores = entry.scores.get(f"Set5@{DEFAULT_DETAIL:g}") or entry.scores.get("Set5", {})
    psnr = scores.get("psnr_y_db")
    return "" if psnr is None else f"{psnr:.2f} dB"


def _write_facts(entry: Entry) -> None:
    facts: list[tuple[str, str]] = [
        ("name", entry.name),
        ("family", entry.family),
        ("for", entry.description),
        ("scale", f"×{entry.scale}"),
        ("kind", _kind(entry)),
        ("architecture", f"{entry.architecture} ({_pairs(entry.config)})"),
        ("parameters", f"{entry.parameters:,}"),
        ("licence", entry.licence),
        *((test_set, _scores(values)) for test_set, values in entry.scores.items()),
        ("recipe", _pairs({key: value for key, value in entry.recipe.items() if not isinstance(value, Mapping)})),
        *((f"  {key}", _pairs(value)) for key, value in entry.recipe.items() if isinstance(value, Mapping)),
        ("file", str(entry.path)),
        ("sha256", entry.sha256),
    ]
    shown = [(key, value) for key, value in facts if value]
    width = max(len(key) for key, _ in shown)
    for key, value in shown:
        # A stranger's file may hold what a terminal would obey.
        click.echo("".join(c if c.isprintable() else "?" for c in f"{key:<{width}}  {value}"))


def _scores(values: Mapping[str, float]) -> str:
    titles = {"psnr_y_db": "PSNR in dB (Y)", "ssim_y": "SSIM (Y)"}
    return _pairs({titles.get(key, key): value for key, value in values.items()})


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _write_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _write_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table for people at a terminal; for a pipe, one line per row with tabs, and no titles to be skipped."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*titles, box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as Text: a path may hold what rich takes for markup
    Console().print(table)
