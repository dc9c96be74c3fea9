"""The command line: parses arguments, calls one library function, and turns errors into exit codes.

`ExitCode` in `srgan_cli.errors` defines the exit codes.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

import click

from srgan_cli import __version__
from srgan_cli.cli.habits import answer, picture_as_command
from srgan_cli.errors import ExitCode, SettingsError, SrganError, shown
from srgan_cli.threads import wait_politely

COMMANDS = ("upscale", "watch", "serve", "train", "evaluate", "compare", "models", "export", "doctor", "completion")


class _LazyGroup(click.Group):
    """Each command is in the module of its name, which is imported when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"srgan_cli.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as err:
            ours = answer(err.option_name)
            message = f"{err.option_name}: {ours}" if ours else f"{err.format_message()} Options follow the command."
            raise click.UsageError(message, ctx) from err

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and (ours := picture_as_command(name)) is not None:
            raise click.UsageError(f"{shown(name)} is not a command; {ours}", ctx)
        if name not in COMMANDS and (near := get_close_matches(name, COMMANDS, 1)):
            raise click.UsageError(f"{shown(name)} is not a command; did you mean {near[0]}?", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nExit codes:\n" + "\n".join(f"  {code:<5}{code.meaning}" for code in ExitCode),
)
@click.version_option(__version__, "-V", "--version", prog_name="srgan")
def cli() -> None:
    """Make small pictures large: a photo, a folder, or a scan of a billion pixels."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _open_standard_streams()
    wait_politely()
    with warnings.catch_warnings():
        if not sys.warnoptions:  # warnings of libraries are for developers: python -W default shows them
            warnings.simplefilter("ignore")
        return _main(args)


def _open_standard_streams() -> None:
    """If a standard stream is closed (`2>&-`), open the null device in its place. Otherwise the next opened file would
    get its number, and a library's message to stderr would be written into a picture."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - to the process's end


def _check_folder() -> None:
    """Raise `SettingsError` if the working directory has been removed, because one of torch's libraries would end the
    process."""
    try:
        os.getcwd()  # noqa: PTH109 - `Path.cwd` costs an import
    except FileNotFoundError as err:
        raise SettingsError("the current folder no longer exists: change to another one (cd)") from err


def _main(args: Sequence[str] | None) -> int:
    try:
        _check_folder()
        code = cli.main(args, prog_name="srgan", standalone_mode=False)
        sys.stdout.flush()  # a full disk is detected here, not when Python exits
    except click.ClickException as err:
        err.show()
        return err.exit_code
    except SrganError as err:
        click.echo(f"srgan: {shown(err.sentence)}", err=True)
        return err.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("srgan: interrupted", err=True)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of the output has ended
        _drop_stdout()
        return ExitCode.SOME_FAILED
    except OSError as err:
        said = (err.strerror or str(err)).lower()
        if err.filename is not None:  # an error of the file system for a name given by the user
            click.echo(f"srgan: {shown(err.filename)} cannot be used: {said}", err=True)
        elif err.errno in _FULL:
            _drop_stdout()
            click.echo(f"srgan: stdout cannot be written: {said}", err=True)
        else:
            raise
        return ExitCode.SOME_FAILED
    except ImportError as err:
        if (err.name or "").startswith("srgan_cli"):
            raise
        what = "there is too little memory for it" if _NO_ROOM.search(str(err)) else "install it again"
        click.echo(f"srgan: a package that srgan needs cannot be loaded ({shown(err)}); {what}", err=True)
        return ExitCode.SOME_FAILED
    return code if isinstance(code, int) else ExitCode.DONE


# the system's message for a library that does not fit into memory
_NO_ROOM = re.compile("failed to map|cannot allocate", re.I)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # raised by a plain write, without a file name


def _drop_stdout() -> None:
    """Python would report the error again when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
