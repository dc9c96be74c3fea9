"""How names appear in a terminal."""

from __future__ import annotations

import pytest

from srgan_cli.errors import shown


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("plain.png", "plain.png"),
        ("a\nb\tc\rd.png", "a\\nb\\tc\\rd.png"),
        ("\x1b[2J\x07.png", "\ufffd[2J\ufffd.png"),
        ("a\u2028b\u2029c\x85.png", "a\ufffdb\ufffdc\ufffd.png"),
        ("a\u202egpj.exe\u2066.png", "a\ufffdgpj.exe\ufffd.png"),  # would be seen as aexe.jpg
        ("\udcff.png", "\ufffd.png"),
        ("\ud800.png", "\ufffd.png"),  # noqa: PT014 - another surrogate, which Windows allows in names
        ("日本 é 👩‍👧.png", "日本 é 👩‍👧.png"),
    ],
)
def test_any_name_is_one_line_that_cannot_drive_the_terminal(name: str, seen: str) -> None:
    assert shown(name) == seen
    assert shown(shown(name)) == seen
    assert len(shown(name).splitlines()) == 1
