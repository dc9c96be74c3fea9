"""The recipes of the bundled models: commands that `srgan train` understands, and only those that are left."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.train_bundled import RECIPES, left
from srgan_cli.cli import main


def places(out: Path) -> dict[str, Path]:
    return {"photos": Path("photos"), "teacher": Path("t.safetensors"), "vgg": Path("vgg.pth"), "out": out}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_every_training_command_is_understood(
    recipe: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = list(left([recipe], places(tmp_path)))  # type: ignore[list-item]
    for command in (one[2:] for one in commands if one[1] == "srgan_cli"):
        assert main([*command, "--print-config"]) == 0, capsys.readouterr().err
        assert "[adversarial]" in capsys.readouterr().out
    assert len(commands) == len(recipe.stages)  # type: ignore[attr-defined]


def test_what_is_finished_is_passed_over(tmp_path: Path) -> None:
    whole = list(left(RECIPES, places(tmp_path)))
    for stage in RECIPES[0].stages:
        made = tmp_path / stage.made
        made.parent.mkdir(parents=True, exist_ok=True)
        made.touch()
    rest = list(left(RECIPES, places(tmp_path)))
    assert len(rest) < len(whole)
    assert all("photo-x4-a" not in " ".join(command) for command in rest)
    assert not any(command[1] == "benchmarks.pairs" for command in rest)
