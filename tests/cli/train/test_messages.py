"""`srgan train`: messages, previews, and a whole run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from rich.console import Console

from srgan_cli.cli import main, training_console
from srgan_cli.cli.training_console import TrainingWatch, fitting, pieces, refusal_lines, summary, table
from srgan_cli.errors import NothingToDoError
from srgan_cli.runlog import preview as runlog_preview
from srgan_cli.training.observer import Outcome, Progress, TrainingObserver
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import preset
from tests.cli.train.trainers import HERE, SCORES, Refusal, Scan, Trainer, tell_all
from tests.texts import texts

# -------------------------------------------------------------------------------------------------------- what is shown


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


def test_pictures_without_an_original_are_counted(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: TrainConfig, folder: Path, observer: TrainingObserver) -> Outcome:
        observer.scanned(Scan(unlabelled=(1, 2)))  # type: ignore[arg-type]
        return Outcome(folder, folder / "model.safetensors", {}, steps=5, seconds=65.0)

    trainer.run = run
    assert main(["train", "--hr-dir", "photos", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "3 pictures and 2 without an original to learn from, 1 to validate with: held out by hash\n" in err
    assert json.loads(out.splitlines()[0])["without_an_original"] == 2


def test_a_process_that_waits_for_another_one_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_console, "_PLAIN_EVERY_S", 0.0)
        watch = TrainingWatch(quiet=False, as_json=False)
        for done in (0, 3):
            watch.caching(done, 7)
            watch.teaching(done, 9)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for another process, which decodes the same pictures",
        "waiting for another process, whose teacher enlarges the same pieces",
        "decoding pictures: 3 of 7",
        "the teacher enlarges: 3 of about 9 pieces",
    ]


ALL_SCORES = dict.fromkeys(training_console._TITLES, 0.1234)


@pytest.mark.parametrize("width", [80, 200])
def test_no_title_of_the_scores_is_cut_off(width: int) -> None:
    screen = io.StringIO()
    scores = {"bicubic": ALL_SCORES, "with noise": {}, "model": {**ALL_SCORES, "ssim_y": 0.25}}
    Console(file=screen, width=width).print(table(scores, width), soft_wrap=False)
    text = screen.getvalue()
    lines = text.splitlines()
    assert all(title in text for title in training_console._TITLES.values())
    assert all(name in text for name in scores)
    assert len(lines) == (4 if width == 200 else 1 + len(ALL_SCORES))
    assert max(map(len, lines)) <= width
    assert any(line.split() == ["SSIM", "(Y)", "0.1234", "0.2500"] for line in lines) == (width == 80)


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
    assert "loading the networks … 0 s" in text
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


@given(st.lists(st.tuples(texts(min_size=1), st.integers(0, 9)), min_size=1), st.integers(1, 200))
def test_the_line_is_never_too_long(parts: list[tuple[str, int]], width: int) -> None:
    assert len(fitting(parts, width)) <= width


def test_few_pictures_left_out_are_named_and_many_are_counted() -> None:
    refused = [Refusal(Path(f"{i}.png"), f"is smaller than the crop, {i}x7 px") for i in range(12)]
    assert refusal_lines([]) == []
    assert len(refusal_lines(refused)) == 13  # type: ignore[arg-type]
    many = [Refusal(Path("flat.png"), "is nearly flat"), *refused]
    assert refusal_lines(many) == [  # type: ignore[arg-type]
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


# ------------------------------------------------------------------------------------------------- preview, help, torch


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


# ----------------------------------------------------------------------------------------------------- the real trainer


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
    assert "is finished; the same command with a longer --budget or more --steps" in capsys.readouterr().err
    assert main([*command, "--seed", "5"]) == 2
    assert "seed: 0, now 5" in capsys.readouterr().err
    assert main(["upscale", "photos/0.png", "-o", "large.png", "--model", "runs/photos", "--device", "cpu"]) == 0
    with Pillow.open("large.png") as large:
        assert large.size == (256, 256)
