"""`srgan completion`: shell completion for commands, options, models and formats."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
# The variable in which click expects the shell's name; derived from the program's name.
_VARIABLE = "_SRGAN_COMPLETE"


@click.command(no_args_is_help=True, short_help="Print a script for completion in bash, zsh or fish.")
@click.argument("shell", type=click.Choice(list(_SHELLS), case_sensitive=False))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, models and formats.

    \b
      eval "$(srgan completion bash)"                                    # in ~/.bashrc
      eval "$(srgan completion zsh)"                                     # in ~/.zshrc, after compinit
      srgan completion fish > ~/.config/fish/completions/srgan.fish
    """
    root = click.get_current_context().find_root().command
    made = _SHELLS[shell](root, {}, "srgan", _VARIABLE)
    # Not `made.source()`, which would start the installed bash to determine its version.
    click.echo(made.source_template % made.source_vars())
