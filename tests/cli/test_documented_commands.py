"""The documented commands are valid: each option exists, and the settings of training commands fit together."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from srgan_cli.cli import cli, main

_ROOT = Path(__file__).parents[2]
_PAGES = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Where each `srgan …` of a shell block stands, and its arguments."""
    for page in _PAGES:
        for block in re.findall(
            r"^```(?:sh|console|bash)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*srgan (.*)", line.strip())
                if found and "…" not in line:
                    yield page.name, _arguments(found[1])


def _arguments(text: str) -> list[str]:
    words = shlex.split(text, comments=True)
    ends = [number for number, word in enumerate(words) if word in ("|", ">", "2>", "&&", "&", ";")]
    return words[: ends[0]] if ends else words


COMMANDS = list(_commands())


def test_each_line_of_a_shell_block_has_one_comment_at_most() -> None:
    """Two mean that the block was wrapped like prose, and its commands can no longer be copied."""
    for page in (*_PAGES, _ROOT / "CONTRIBUTING.md", *(_ROOT / "weights").glob("*.md")):
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            assert [line for line in block.splitlines() if len(re.findall(r"\s# ", line)) > 1] == [], page.name


def test_there_are_commands_in_the_documents() -> None:
    assert len(COMMANDS) > 40
    assert {"upscale", "train", "evaluate", "compare", "models", "export"} <= {words[0] for _, words in COMMANDS}


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page} {' '.join(words)}"[:100] for page, words in COMMANDS]
)
def test_a_documented_command_is_understood(page: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if words[0] == "train":
        assert main([*words, "--print-config"]) == 0, capsys.readouterr().err
        return
    with click.Context(cli) as context:
        _name, command, rest = cli.resolve_command(context, words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            _name, command, rest = command.resolve_command(context, rest)
        assert command is not None
        parser = command.make_parser(context)
        parser.parse_args(args=list(rest))
