"""Manual pages (man 1) of all commands, generated from their help when a wheel is built."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from srgan_cli import __version__
from srgan_cli.cli import cli
from srgan_cli.cli.command import Option
from srgan_cli.errors import ExitCode


def pages() -> dict[str, str]:
    """`{"srgan.1": …, "srgan-upscale.1": …}`, in roff."""
    root = click.Context(cli, info_name="srgan")
    return dict(_pages(cli, root))


def _pages(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    name = context.command_path.replace(" ", "-")
    yield f"{name}.1", _page(name, command, context)
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            child = command.get_command(context, each)
            if child is not None:
                yield from _pages(child, click.Context(child, info_name=each, parent=context))


def _page(name: str, command: click.Command, context: click.Context) -> str:
    short = (command.help or "").strip().split("\n\n")[0].replace("\n", " ").rstrip(".")
    usage = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{name.upper()}" "1" "" "srgan {__version__}" "srgan"',
        ".SH NAME",
        f"{_roff(name)} \\- {_roff(short)}",
        ".SH SYNOPSIS",
        f".B {_roff(context.command_path)}",
        _roff(usage),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        *_options(command, context),
    ]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for each in command.list_commands(context):
            child = command.get_command(context, each)
            if child is not None:
                lines += [".TP", f".BR {_roff(name)}-{_roff(each)} (1)", _roff(child.get_short_help_str(200))]
    lines.append(".SH EXIT STATUS")
    for code in ExitCode:
        lines += [".TP", f".B {code:d}", _roff(code.meaning)]
    if name != "srgan":
        lines += [".SH SEE ALSO", ".BR srgan (1)"]
    return "\n".join(lines) + "\n"


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    headings: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(context):
        record = None if isinstance(param, click.Argument) else param.get_help_record(context)
        if record is not None:
            headings.setdefault(param.heading if isinstance(param, Option) else "Options", []).append(record)
    if headings:
        yield ".SH OPTIONS"
    for heading, records in headings.items():
        if len(headings) > 1:
            yield f".SS {_roff(heading)}"
        for names, text in records:
            yield from (".TP", f".B {_roff(names)}", _roff(text))


def _paragraphs(text: str) -> Iterator[str]:
    """Paragraphs of a help text; those that begin with click's `\\b` are kept verbatim."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        lines = paragraph.split("\n")
        if lines[0].strip() == "\b":
            yield from (".nf", *(_roff(line) for line in lines[1:]), ".fi")
        else:
            yield _roff(" ".join(line.strip() for line in lines))


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
