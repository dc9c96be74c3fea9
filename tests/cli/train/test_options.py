"""`srgan train`: from options to settings, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from srgan_cli.cli import main
from srgan_cli.cli.train import default_folder, parse_assignment, resolve
from srgan_cli.errors import DivergedError, NothingToDoError, SettingsError, WeightsError
from srgan_cli.training.observer import Outcome
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, preset, read_toml
from tests.cli.train.trainers import SCORES, Trainer


def resolved(trainer: Trainer, *arguments: str) -> TrainConfig:
    """The settings that `srgan train ARGUMENTS` arrives at."""
    assert main(["train", *arguments]) == 0
    return trainer.calls[-1][0]


# ------------------------------------------------------------------------------------------------------------- settings


def test_every_option_reaches_its_setting(trainer: Trainer) -> None:
    config = resolved(
        trainer, "--hr-dir", "a", "--lr-dir", "b", "--val-dir", "c", "--val-lr-dir", "d", "--phase", "fidelity",
        "--budget", "1h30m", "--init", "fidelity", "--grow", "--scale", "2", "--batch", "5", "--crop", "64",
        "--degradation", "photo", "--vgg-weights", "v", "--perceptual", "random", "--objective", "hinge",
        "--discriminator", "unet", "--seed", "7", "--device", "cpu", "--precision", "bf16", "--threads", "3",
    )  # fmt: skip
    wanted = {
        "phase": "fidelity", "budget_s": 5400, "init": "fidelity", "seed": 7,
        "generator": {"scale": 2, "grow": True},
        "data": {"high_dirs": ["a"], "low_dirs": ["b"], "val_dir": "c", "val_low_dir": "d"},
        "degradation": {"kind": "photo"},
        "fidelity": {"batch": 5, "crop_px": 64},
        "adversarial": {"batch": 5, "crop_px": 64, "objective": "hinge"},
        "perceptual": {"source": "random", "weights_file": "v"},
        "discriminator": {"kind": "unet"},
        "compute": {"device": "cpu", "precision": "bf16", "threads": 3},
    }  # fmt: skip
    assert config == preset("srgan", wanted)


def test_without_options_the_preset_is_what_it_is(trainer: Trainer) -> None:
    assert resolved(trainer, "--hr-dir", "a") == preset("srgan", {"data": {"high_dirs": ["a"]}})
    assert resolved(trainer, "--hr-dir", "a", "--preset", "paper") == preset("paper", {"data": {"high_dirs": ["a"]}})


@pytest.mark.parametrize(
    "arguments",
    [
        ("--hr-dir", "a", "b", "c"),
        ("--hr-dir", "a", "--hr-dir", "b", "c"),
        ("--hr-dir", "a", "b", "--hr-dir=c"),
        ("--hr-dir", "a", "b", "c", "--set", "fidelity.batch=3", "seed=2"),
    ],
)
def test_many_folders(trainer: Trainer, arguments: tuple[str, ...]) -> None:
    assert resolved(trainer, *arguments).data.high_dirs == ("a", "b", "c")


def test_later_ones_go_before_earlier_ones(trainer: Trainer) -> None:
    Path("mine.toml").write_text('preset = "paper"\n[fidelity]\nbatch = 2\ncrop_px = 64\nlearning_rate = 0.5\n')
    arguments = ["--hr-dir", "a", "--config", "mine.toml", "--batch", "3", "--crop", "32"]
    config = resolved(trainer, *arguments, "--set", "fidelity.crop_px=16", "adversarial.batch=9")
    assert config.fidelity.loss == "mse"  # the preset's, which the file named
    assert config.fidelity.learning_rate == 0.5  # the file's
    assert config.fidelity.batch == 3  # the option's
    assert (config.fidelity.crop_px, config.adversarial.batch) == (16, 9)  # --set's
    assert resolved(trainer, *arguments, "--preset", "srgan").fidelity.loss == "l1"


def test_a_runs_own_config_can_be_used_again(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--preset", "photo", "--hr-dir", "a", "--budget", "30m", "--print-config"]) == 0
    text = capsys.readouterr().out
    Path("again.toml").write_text(text)
    assert trainer.calls == []
    assert resolved(trainer, "--config", "again.toml") == from_mapping(read_toml(Path("again.toml")))
    assert trainer.calls[-1][0].budget_s == 1800
    longer = resolved(trainer, "--config", "again.toml", "--steps", "50")
    assert (longer.steps, longer.budget_s) == (50, None)


def test_sizes_beside_init_are_not_ignored_in_silence() -> None:
    start = {"init": "fidelity"}
    assert resolve(None, None, start, []).init == "fidelity"
    with pytest.raises(SettingsError, match=r"the sizes are those of fidelity, not generator\.blocks; add --grow"):
        resolve(None, None, start, ["generator.blocks=20"])
    assert resolve(None, None, {**start, "generator": {"grow": True}}, ["generator.blocks=20"]).generator.blocks == 20
    assert resolve(None, None, start, ["generator.noise=true"]).generator.noise  # no size: it may learn to use noise
    with pytest.raises(SettingsError, match="--grow needs --init"):
        resolve(None, None, {"generator": {"grow": True}}, [])


def test_a_scale_brings_crops_that_it_fits_into() -> None:
    for scale in range(2, 9):
        config = resolve(None, None, {"generator": {"scale": scale}}, [])
        assert config.fidelity.crop_px % math.lcm(16, scale) == 0
        assert 80 <= config.adversarial.crop_px <= 128
    with pytest.raises(SettingsError, match="not a multiple of the scale"):
        resolve(None, None, {"generator": {"scale": 3}, "fidelity": {"crop_px": 128}}, [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=3", {"seed": 3}),
        ("fidelity.learning_rate=1e-4", {"fidelity": {"learning_rate": 1e-4}}),
        ("adversarial.objective=hinge", {"adversarial": {"objective": "hinge"}}),
        ("data.levels=[1.0, 0.5]", {"data": {"levels": [1.0, 0.5]}}),
        ("perceptual.layers={ conv1_1 = 1 }", {"perceptual": {"layers": {"conv1_1": 1}}}),
        ("data.val_dir=a=b", {"data": {"val_dir": "a=b"}}),
        ("data.val_dir=", {"data": {"val_dir": ""}}),
    ],
)
def test_assignments(text: str, value: Mapping[str, Any]) -> None:
    assert parse_assignment(text) == value


def test_where_a_run_goes(trainer: Trainer) -> None:
    for given_, wanted in [("photos/", "photos"), ("a/b/cats", "cats"), ("photos/../dogs", "dogs"), ("/", "pictures")]:
        assert default_folder(from_mapping({"data": {"high_dirs": [given_]}})) == Path("runs", wanted)
    assert default_folder(from_mapping({"data": {"high_dirs": ["."]}})) == Path("runs", Path.cwd().name)
    assert main(["train", "--hr-dir", "a", "--out", "x/y"]) == 0
    assert trainer.calls[-1][1] == Path("x/y")


# -------------------------------------------------------------------------------------------------------- errors, codes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "srgan"], "give --hr-dir"),
        (["--hr-dir", "a", "--budget", "30m", "--steps", "5"], "only one of --budget and --steps"),
        (["--hr-dir", "a", "--budget", "30"], "write 90s, 30m, 2h or 1h30m"),
        (["--hr-dir", "a", "--steps", "0"], "steps must be between 1 and"),
        (["--hr-dir", "a", "--crop", "130"], "not a multiple of the scale"),
        (["--hr-dir", "a", "--scale", "0"], "generator.scale must be between 2 and 8"),
        (["--hr-dir", "a", "--config", "no.toml"], "no.toml cannot be read"),
        (["--hr-dir", "a", "--set", "fidelity.batch"], "--set expects SECTION.NAME=VALUE"),
        (["--hr-dir", "a", "--set", ".batch=3"], "--set expects SECTION.NAME=VALUE"),
        (["--hr-dir", "a", "--set", "perceptual.layers.conv3_4=2"], "--set 'perceptual.layers={conv3_4=2, …}'"),
        (["--hr-dir", "a", "--set", "fidelity.btach=3"], "did you mean fidelity.batch?"),
        (["--hr-dir", "a", "--set", "fidelity=3"], "fidelity is a section"),
        (["--hr-dir", "a", "--preset", "best"], "'best' is not one of"),
        (["--hr-dir", "\udcff"], "is not UTF-8"),
        (["photos"], "unexpected extra argument"),
    ],
)
def test_what_makes_no_sense(
    trainer: Trainer, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments]) == 2
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""
    assert trainer.calls == []


def test_a_config_file_that_names_no_preset_there_is(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.toml").write_text('preset = ["best"]\n')
    assert main(["train", "--hr-dir", "a", "--config", "bad.toml"]) == 2
    assert "unknown preset" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [(NothingToDoError("no pictures"), 3), (WeightsError("no VGG"), 4), (DivergedError("again and again"), 1)],
)
def test_an_error_of_the_trainer_ends_with_its_code(
    trainer: Trainer, error: Exception, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> Outcome:
        raise error

    trainer.run = fail
    assert main(["train", "--hr-dir", "a"]) == code
    assert capsys.readouterr().err == f"srgan: {error}\n"


def test_the_command_that_uses_the_model_can_be_pasted(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hr-dir", "a", "--out", "runs/my photos"]) == 0
    assert "to use it: srgan upscale PICTURE --model 'runs/my photos'\n" in capsys.readouterr().err


def test_an_interrupted_run_says_how_to_go_on(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    trainer.run = lambda _config, folder, _observer: Outcome(folder, folder / "m", SCORES, 1, 3.0, interrupted=True)
    assert main(["train", "--hr-dir", "a"]) == 130
    assert capsys.readouterr().err == "stopped and saved after 1 step and 3.0 s; the same command resumes from there\n"
