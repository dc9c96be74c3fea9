"""`srgan completion`: what a shell needs to complete commands, options, models and formats."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
# Where click looks for a shell that asks: derived by it from the program's name.
_VARIABLE = "_SRGAN_COMPLETE"


@click.command(no_args_is_help=True)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
def completion(shell: str) -> None:
    """Print a script for SHELL that completes commands, options, models and formats.

    \b
      eval "$(srgan completion bash)"                                    # in ~/.bashrc
      eval "$(srgan completion zsh)"                                     # in ~/.zshrc, after compinit
      srgan completion fish > ~/.config/fish/completions/srgan.fish
    """
    root = click.get_current_context().find_root().command
    made = _SHELLS[shell](root, {}, "srgan", _VARIABLE)
    # Not `made.source()`, which first starts the bash that is found to ask for its version.
    click.echo(made.source_template % made.source_vars())
