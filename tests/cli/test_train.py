"""`srgan train` as a person or a script uses it: settings, exit codes, what is shown where.

The trainer is a fake, except in the last test.
"""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from rich.console import Console

import srgan_cli.training
from srgan_cli.cli import main, training_console
from srgan_cli.cli.train import default_folder, parse_assignment, resolve
from srgan_cli.cli.training_console import TrainingWatch, fitting, pieces, summary, told
from srgan_cli.errors import DivergedError, NothingToDoError, SettingsError, WeightsError
from srgan_cli.runlog import preview as runlog_preview
from srgan_cli.training import preflight
from srgan_cli.training.observer import Outcome, Progress, TrainingObserver
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, preset, read_toml

Train = Callable[[TrainConfig, Path, TrainingObserver], Outcome]


@dataclass
class Refusal:
    path: Path
    reason: str


@dataclass
class Scan:
    train: tuple[object, ...] = (1, 2, 3)
    val: tuple[object, ...] = (4,)
    refused: tuple[Refusal, ...] = (Refusal(Path("photos/odd[1].png"), "is smaller than the crop, 9x7 px"),)
    split: str = "held out by hash"


SCORES = {"bicubic": {"psnr_y_db": 27.5, "ssim_y": 0.78}, "model": {"psnr_y_db": 28.9, "ssim_y": 0.8123}}
HERE = Progress(
    phase="adversarial",
    step=12_300,
    fraction=0.43,
    steps_per_s=7.43,
    pictures_per_s=118.9,
    losses={"pixel": 0.0213, "perceptual": 0.41, "adversarial": 0.693, "discriminator": math.nan},
    seconds_left=1705.0,
)


def tell_all(config: TrainConfig, folder: Path, observer: TrainingObserver) -> Outcome:
    """A run that calls all that an observer has."""
    observer.scanned(Scan())  # type: ignore[arg-type]
    observer.caching(1, 3)
    observer.started({"device": "cpu", "precision": "fp32", "batch": 2, "crop_px": 32, "steps": 5, "resumed_at": None})
    observer.validated({"psnr_y_db": 28.4, "bicubic_psnr_y_db": 27.5})
    observer.progress(HERE)
    observer.note("The discriminator has won [really].")
    return Outcome(folder, folder / "model.safetensors", SCORES, steps=5, seconds=65.0)


@dataclass
class Trainer:
    """Stands in for `training.trainer`; remembers what it was called with."""

    run: Train = tell_all
    calls: list[tuple[TrainConfig, Path]] = field(default_factory=list)

    def train(self, config: TrainConfig, folder: Path, observer: TrainingObserver) -> Outcome:
        self.calls.append((config, folder))
        return self.run(config, folder, observer)


def _stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **contents: object) -> None:
    module = types.ModuleType(f"srgan_cli.training.{name}")
    module.__dict__.update(contents)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(srgan_cli.training, name, module, raising=False)


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainer:
    fake = Trainer()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    _stand_in(monkeypatch, "trainer", train=fake.train)
    monkeypatch.setattr(preflight, "check", lambda config, folder: None)  # the folders of these tests do not exist
    return fake


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


# ------------------------------------------------------------------------------------------------------- errors, codes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "srgan"], "give --hr-dir"),
        (["--hr-dir", "a", "--budget", "30m", "--steps", "5"], "only one of --budget and --steps"),
        (["--hr-dir", "a", "--budget", "30"], "write 90s, 30m, 2h or 1h30m"),
        (["--hr-dir", "a", "--steps", "0"], "steps must be at least 1"),
        (["--hr-dir", "a", "--crop", "130"], "not a multiple of the scale"),
        (["--hr-dir", "a", "--scale", "0"], "generator.scale must be between 2 and 8"),
        (["--hr-dir", "a", "--config", "no.toml"], "no.toml cannot be read"),
        (["--hr-dir", "a", "--set", "fidelity.batch"], "--set expects SECTION.NAME=VALUE"),
        (["--hr-dir", "a", "--set", ".batch=3"], "--set expects SECTION.NAME=VALUE"),
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


def test_an_interrupted_run_says_how_to_go_on(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    trainer.run = lambda _config, folder, _observer: Outcome(folder, folder / "m", SCORES, 1, 3.0, interrupted=True)
    assert main(["train", "--hr-dir", "a"]) == 130
    assert capsys.readouterr().err == "stopped and saved after 1 step and 3.0 s; the same command resumes from there\n"


# ----------------------------------------------------------------------------------------------------- what is shown


def test_a_pipe_gets_lines(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_console, "_PLAIN_EVERY_S", 0.0)
    assert main(["train", "--hr-dir", "photos"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "3 pictures to learn from, 1 to validate with: held out by hash",
        "1 picture left out:",
        "  photos/odd[1].png: is smaller than the crop, 9x7 px",
        "decoding pictures: 1 of 3",
        "cpu fp32; 2 crops of 32 px a step; 5 steps",
        "adversarial  43%  step 12 300  7.43 steps/s  119 pictures/s  pixel 0.0213  perceptual 0.41  adversarial 0.693"
        "  discriminator nan  28.40 dB  (bicubic 27.50)  28:25 left",
        "note: The discriminator has won [really].",
        "done after 5 steps and 1 min 05 s",
        "         PSNR (Y), dB  SSIM (Y)",
        "bicubic         27.50    0.7800",
        "model           28.90    0.8123",
        "to use it: srgan upscale PICTURE --model runs/photos",
    ]


def test_between_lines_a_pipe_is_left_alone(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hr-dir", "photos"]) == 0
    assert "steps/s" not in capsys.readouterr().err


def test_quiet_is_quiet(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--hr-dir", "photos", "-q"]) == 0
    assert capsys.readouterr() == ("", "")


def test_other_processes_of_torchrun_say_nothing(
    trainer: Trainer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train", "--hr-dir", "photos", "--json"]) == 0
    assert capsys.readouterr() == ("", "")


def test_events_are_json_that_every_reader_takes(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert main(["train", "--hr-dir", "photos", "--json", "-q"]) == 0
    events = [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]
    kinds = ["scanned", "caching", "started", "validated", "progress", "note", "summary"]
    assert [event["event"] for event in events] == kinds
    assert events[0]["refused"] == [{"path": "photos/odd[1].png", "reason": "is smaller than the crop, 9x7 px"}]
    assert events[4]["losses"]["discriminator"] is None
    assert events[4]["step"] == 12300
    assert events[6]["scores"] == SCORES
    assert (events[6]["model"], events[6]["exit_code"]) == ("runs/photos/model.safetensors", 0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, highlight=False, soft_wrap=True)
    monkeypatch.setattr(training_console, "stderr", console)
    return screen


def test_a_terminal_has_a_live_line_that_goes_away(trainer: Trainer, terminal: io.StringIO) -> None:
    def run(config: TrainConfig, folder: Path, observer: TrainingObserver) -> Outcome:
        outcome = tell_all(config, folder, observer)
        assert isinstance(observer, TrainingWatch)
        observer._live.refresh()  # type: ignore[union-attr]
        return outcome

    trainer.run = run
    assert main(["train", "--hr-dir", "photos"]) == 0
    text = terminal.getvalue()
    assert "scanning the pictures … 0 s" in text
    assert "adversarial  43%  step 12 300  7.43 steps/s  pixel 0.0213  28.40 dB  28:2" in text
    assert text.endswith("--model runs/photos\n")
    assert "\x1b[?25h" in text  # the cursor is back


def test_an_error_leaves_the_terminal_in_order(trainer: Trainer, terminal: io.StringIO) -> None:
    def fail(*_arguments: object) -> Outcome:
        raise NothingToDoError("no")

    trainer.run = fail
    assert main(["train", "--hr-dir", "photos"]) == 3
    assert "\x1b[?25h" in terminal.getvalue()


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (20, "adversarial  43%"),
        (80, "adversarial  43%  step 12 300  7.43 steps/s  pixel 0.0213  28.40 dB  28:25 left"),
        (
            140,
            "adversarial  43%  step 12 300  7.43 steps/s  119 pictures/s  pixel 0.0213  perceptual 0.41  "
            "adversarial 0.693  28.40 dB  28:25 left",
        ),
    ],
)
def test_what_matters_most_fits(width: int, line: str) -> None:
    assert fitting(pieces(HERE, {"psnr_y_db": 28.4, "bicubic_psnr_y_db": 27.5}, 1705.0, bar=16), width) == line


def test_waiting_for_pictures_is_told_when_it_costs() -> None:
    def text(fraction: float) -> str:
        waiting = Progress("fidelity", 1, 0.5, 1.0, 16.0, loader_fraction=fraction)
        return fitting(pieces(waiting, {}, None, bar=0), 200)

    assert "waiting" not in text(0.04)
    assert "20% waiting for pictures" in text(0.2)


@given(st.lists(st.tuples(st.text(min_size=1), st.integers(0, 9)), min_size=1), st.integers(1, 200))
def test_the_line_is_never_too_long(parts: list[tuple[str, int]], width: int) -> None:
    assert len(fitting(parts, width)) <= width


def test_few_pictures_left_out_are_named_and_many_are_counted() -> None:
    refused = [Refusal(Path(f"{i}.png"), f"is smaller than the crop, {i}x7 px") for i in range(12)]
    assert told([]) == []
    assert len(told(refused)) == 13  # type: ignore[arg-type]
    many = [Refusal(Path("flat.png"), "is nearly flat"), *refused]
    assert told(many) == [  # type: ignore[arg-type]
        "13 pictures left out:",
        "  12, such as 0.png: is smaller than the crop, 0x7 px",
        "  1, such as flat.png: is nearly flat",
    ]


def test_what_is_about_to_be_done_in_one_line() -> None:
    facts: dict[str, object] = {
        "device": "cuda:0", "precision": "bf16", "processes": 4, "architecture": "compact", "parameters": 641_328,
        "scale": 4, "batch": 16, "crop_px": 128, "steps": None, "budget_s": 1800.0, "resumed_at": 20,
    }  # fmt: skip
    assert summary(facts) == (
        "cuda:0 bf16; 4 processes; compact of 0.64 M parameters, x4; 16 crops of 128 px a step; for 30 min; "
        "resuming from step 20"
    )


# ------------------------------------------------------------------------------------------------ preview, help, torch


def test_a_preview_trains_nothing(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[tuple[TrainConfig, Path]] = []
    monkeypatch.setattr(runlog_preview, "preview", lambda config, target: drawn.append((config, target)))
    assert main(["train", "--hr-dir", "a", "--degradation", "photo", "--preview", "sheet.png"]) == 0
    assert drawn == [
        (preset("srgan", {"data": {"high_dirs": ["a"]}, "degradation": {"kind": "photo"}}), Path("sheet.png"))
    ]
    assert trainer.calls == []
    assert "sheet.png" in capsys.readouterr().err


def test_help_and_settings_come_without_torch() -> None:
    code = (
        "import sys; from srgan_cli.cli import main; "
        "assert main(['train', '--help']) == 0; assert main(['train', '--preset', 'paper', '--print-config']) == 0; "
        "heavy = [m for m in ('torch', 'numpy', 'PIL', 'rich') if m in sys.modules]; assert not heavy, heavy"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert "torchrun" in found.stdout
    assert "VGG54" in found.stdout  # the presets are explained
    assert 'architecture = "srresnet"' in found.stdout


# --------------------------------------------------------------------------------------------------- the real trainer


def test_a_whole_run_and_its_model_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        Pillow.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(f"photos/{i}.png")
    Path("photos/no.png").write_bytes(b"no picture")
    command = [
        "train", "--hr-dir", "photos", "--steps", "4", "--batch", "2", "--crop", "32", "--perceptual", "random",
        "--device", "cpu", "--precision", "fp32", "--set", "generator.features=4", "generator.blocks=1",
        "discriminator.channels=4", "watch.log_every_steps=1", "perceptual.layers={ conv1_2 = 1.0 }",
    ]  # fmt: skip
    assert main(command) == 0
    err = capsys.readouterr().err
    assert "3 pictures to learn from, 1 to validate with" in err
    assert "photos/no.png" in err
    assert "done after 4 steps" in err
    assert main(command) == 0
    assert "holds this run, finished" in capsys.readouterr().err
    assert main([*command, "--seed", "5"]) == 2
    assert "seed: 0, now 5" in capsys.readouterr().err
    assert main(["upscale", "photos/0.png", "-o", "large.png", "--model", "runs/photos", "--device", "cpu"]) == 0
    with Pillow.open("large.png") as large:
        assert large.size == (256, 256)
