"""Shared by all commands: help under headings, the user's own defaults, and suggestions for options of other
programs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from srgan_cli.cli import defaults
from srgan_cli.cli.habits import answer
from srgan_cli.cli.yielding import yielding

_F = TypeVar("_F", bound=Callable[..., Any])
_UNEXPECTED = "unexpected extra argument"  # click's words


class Option(click.Option):
    """An option under a heading of the help. Options that are `instead` of each other set the same thing: one of them
    on the command line overrides the others' defaults.

    A flag that may be set in a config file gets a second name, `--no-…`, which undoes that; help does not list it.
    """

    def __init__(
        self, names: Sequence[str], *, heading: str = "Options", instead: str | None = None, **attrs: Any
    ) -> None:
        long = max((name for name in names if name.startswith("--")), key=len, default="")
        self._undone = ""
        if attrs.get("is_flag") and "/" not in long and not attrs.get("is_eager") and long[2:] not in defaults.NEVER:
            self._undone = f"--no-{long[2:]}"
            names = [f"{name}/{self._undone}" if name == long else name for name in names]
        super().__init__(names, **({"default": False} if self._undone else {}) | attrs)
        self.heading, self.instead = heading, instead

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        if record is None or not self._undone:
            return record
        return record[0].replace(f" / {self._undone}", ""), record[1]

    @property
    def key(self) -> str:
        """Its name in a config file: its longest name without dashes."""
        return max(self.opts, key=len).lstrip("-")


def under(heading: str) -> Callable[..., Callable[[_F], _F]]:
    """`click.option` under a heading of the help."""
    return partial(click.option, cls=Option, heading=heading)


def in_plain_words(message: str) -> str:
    """click's messages on numbers, without the words of a programming language."""
    message = re.sub(r"is not a valid integer( range)?", "is not a whole number", message)
    return re.sub(r"is not a valid float( range)?", "is not a number", message)


class Command(click.Command):
    """A command of srgan."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        end = args.index("--") if "--" in args else len(args)
        if "--no-config" not in args[:end] and not ctx.resilient_parsing:
            ctx.default_map = self._defaults(ctx, args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as err:
            if (ours := answer(err.option_name)) is not None and self._suits(ours):
                raise click.UsageError(f"{err.option_name}: {ours}", ctx) from err
            raise
        except click.BadParameter as err:
            message = in_plain_words(err.message)
            name = err.param.name if err.param is not None else None
            if name is not None and ctx.get_parameter_source(name) == ParameterSource.DEFAULT_MAP:
                message += f" ({defaults.origin(self.name or '', self.settable(), name)})"
            if message == err.message:
                raise
            raise click.BadParameter(message, ctx, err.param) from err
        except click.UsageError as err:
            if _UNEXPECTED in err.message and self._has("--hr-dir"):
                raise click.UsageError(f"{err.message}: pictures are given with --hr-dir FOLDER", ctx) from err
            raise

    def _defaults(self, ctx: click.Context, args: list[str]) -> dict[str, Any]:
        """The defaults from a config file and the environment, except those that the command line overrides."""
        found = defaults.of(self.name or "", self.settable())
        if not found:
            return {}
        try:
            given = self.make_parser(ctx).parse_args(list(args))[0]
        except click.UsageError:  # reported when the arguments are actually parsed
            given = {}
        decided = {option.instead for option in self._options() if given.get(option.name or "") and option.instead}
        out = {option.name for option in self._options() if option.instead in decided} | yielding(given, found)
        several = {option.name for option in self._options() if option.multiple}
        return {
            name: [value] if name in several and isinstance(value, str) else value
            for name, value in found.items()
            if name not in out
        }

    def _suits(self, suggestion: str) -> bool:
        """Whether this command has the options that a suggestion names; if it names none, whether it takes pictures."""
        named = set(re.findall(r"--[a-z][a-z-]+", suggestion)) - {"--version"}
        own = {name for param in self.params for name in param.opts}
        return named <= own if named else any(isinstance(param, click.Argument) for param in self.params)

    def _has(self, name: str) -> bool:
        return any(name in param.opts for param in self.params)

    def _options(self) -> Iterable[Option]:
        return [param for param in self.params if isinstance(param, Option)]

    def settable(self) -> dict[str, str]:
        """The options that can have user defaults: name in a config file -> parameter name."""
        return {one.key: one.name for one in self._options() if one.name is not None and not one.is_eager}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Headings in the order in which they first occur, with the options of all commands last."""
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = None if isinstance(param, click.Argument) else param.get_help_record(ctx)
            if record is not None:
                heading = param.heading if isinstance(param, Option) else "Options"
                headings.setdefault(heading, []).append(record)
        rest = headings.pop("Options", [])
        for heading, records in (*headings.items(), ("Options", rest)):
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
