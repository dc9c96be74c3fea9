"""Unpaired adaptation: whole runs with tiny networks, what the wearer learns, resuming, and invalid inputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_cli.cli import main
from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.dataset.pictures import is_grey, read_pixels
from srgan_cli.dataset.scan import Scan, scan
from srgan_cli.dataset.wear import FileSign, random_inputs
from srgan_cli.dataset.wear_files import load_wear
from srgan_cli.errors import NothingToDoError, SettingsError
from srgan_cli.networks.weights import load_model
from srgan_cli.training import checkpoint, sources, trainer
from srgan_cli.training.adaptation import Adaptation, Replay, begin_adaptation
from srgan_cli.training.loader import Batches
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import begin
from srgan_cli.training.schedule import place
from srgan_cli.training.state import State
from srgan_cli.training.steps import Autocast, Examples
from srgan_cli.training.validation import held_out
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping, merged, preset, read_toml, to_toml
from tests.training.runs import Witness, config, log_of, same, stop_at, tensors, weights

CPU = torch.device("cpu")
ADAPTING: Mapping[str, Any] = {
    "phase": "adversarial",
    "adversarial": {"crop_px": 32, "batch": 2},
    "adaptation": {
        "wear_fraction": 0.5, "every_steps": 1, "features": 4, "blocks": 1, "blur_px": 5, "discriminator_channels": 4,
        "batch": 2, "crop_px": 32, "replay": 3, "cycle_crops": 1, "warmup_steps": 0,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures of other things, noisy, in JPEG."""
    folder = tmp_path_factory.mktemp("mine")
    rng = np.random.default_rng(3)
    for number in range(9):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((26, 22), Image.Resampling.BICUBIC), np.float64)
        noisy = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number}.jpg", quality=70)
    return folder


def adapting(photos: Path, mine: Path, **changes: Any) -> TrainConfig:
    values = merged(merged(ADAPTING, {"adaptation": {"worn_dirs": [str(mine)]}}), changes)
    return config(photos, **values)


@pytest.fixture(scope="module")
def adapted(photos: Path, mine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of `adapting(photos, mine)`, which no test changes."""
    folder = tmp_path_factory.mktemp("adapted") / "run"
    trainer.train(adapting(photos, mine), folder, Witness())
    return folder


# ------------------------------------------------------------------------------------------------------- whole runs


def test_a_run_learns_the_wear_first_and_then_to_undo_it(adapted: Path) -> None:
    log = log_of(adapted)
    steps = [event for event in log if event["event"] == "step"]
    assert [event["phase"] for event in steps] == ["wear", "wear", "adversarial", "adversarial"]
    alone = {f"wear.{name}" for name in ("adversarial", "statistics", "restraint", "low_frequency")}
    assert set(steps[0]["losses"]) == {"total", *alone}
    assert {"pixel", "adversarial", "cycle", "wear.statistics", "wear.cycle", "wear.accuracy"} <= set(
        steps[-1]["losses"]
    )
    assert any("the wear that was learned: noise" in event.get("text", "") for event in log)
    assert not (adapted / "fidelity.safetensors").exists()
    wear = next(event["wear"] for event in reversed(log) if event["event"] == "validation")
    assert {"real_noise", "made_noise", "real_blocking", "made_blur_across_px", "colour_shift", "variation"} <= set(
        wear
    )
    assert load_model(adapted).scale == 2
    page = (adapted / "report.html").read_text()
    assert "The learned wear" in page
    assert "real worn pictures" in page
    with Image.open(adapted / "wear.png") as sheet:
        assert sheet.width > 300


def test_the_generator_rests_while_the_wear_is_learned(photos: Path, mine: Path, tmp_path: Path) -> None:
    whole = adapting(photos, mine)
    trainer.train(whole, tmp_path / "run", Witness(stop_at(2)))
    parts = checkpoint.load(tmp_path / "run" / "checkpoint")["parts"]
    fresh = begin(whole, Processes())
    assert same(parts["generator"], fresh.generator.state_dict())
    assert fresh.adaptation is not None
    assert not same(parts["wearer"], fresh.adaptation.wearer.state_dict())


def test_a_run_that_was_stopped_goes_on_to_the_bit(photos: Path, mine: Path, adapted: Path, tmp_path: Path) -> None:
    whole = adapting(photos, mine)
    for stop in (1, 3):  # in the phase `wear`, and behind it
        assert trainer.train(whole, tmp_path / "parts", Witness(stop_at(stop))).interrupted
    trainer.train(whole, tmp_path / "parts", Witness())
    one, other = (checkpoint.load(folder / "checkpoint")["parts"] for folder in (adapted, tmp_path / "parts"))
    assert {"wearer", "wearer_ema", "wear_discriminator", "wear_replay", "wear_statistics"} <= set(one)
    for name, part in one.items():
        assert all(torch.equal(a, b) for a, b in zip(tensors(part), tensors(other[name]), strict=True)), name
    ours, theirs = (load_wear(folder / "wear.safetensors") for folder in (adapted, tmp_path / "parts"))
    assert same(ours.network.state_dict(), theirs.network.state_dict())
    assert ours.signs == theirs.signs
    assert FileSign("JPEG", 70, True) in ours.signs


def test_what_was_learned_is_the_degradation_of_another_run(
    photos: Path, adapted: Path, trained: Path, tmp_path: Path
) -> None:
    learned = config(photos, degradation={"kind": "learned", "wear": str(adapted)})
    trainer.train(learned, tmp_path / "next", Witness())
    assert not same(weights(tmp_path / "next"), weights(trained))
    assert from_mapping(read_toml(tmp_path / "next/config.toml")) == learned


@pytest.mark.slow
def test_fidelity_alone_and_both_phases_adapt_too(photos: Path, mine: Path, tmp_path: Path) -> None:
    both = adapting(photos, mine, phase="both", fidelity={"crop_px": 32, "batch": 2}, steps=4)
    assert both.phases == ("wear", "fidelity", "adversarial")
    assert [both.end_of(phase) for phase in both.phases] == [0.5, 0.75, 1.0]
    trainer.train(both, tmp_path / "run", Witness())
    phases = [event["phase"] for event in log_of(tmp_path / "run") if event["event"] == "step"]
    assert phases == ["wear", "wear", "fidelity", "adversarial"]
    assert (tmp_path / "run" / "fidelity.safetensors").is_file()


def test_phases_follow_each_other_by_their_fractions(photos: Path, mine: Path) -> None:
    both = adapting(photos, mine, phase="both", fidelity={"crop_px": 32})
    assert place(both, "wear", 0.25, 0.0).fraction == 0.5
    assert place(both, "wear", 0.5, 0.0).phase == "fidelity"
    assert place(both, "fidelity", 0.625, 0.5).fraction == pytest.approx(0.5)
    assert place(both, "fidelity", 0.75, 0.5).phase == "adversarial"
    assert place(both, "adversarial", 0.875, 0.75).fraction == 0.5


# ---------------------------------------------------------------------------------------------------------- learning


def learner(**changes: Any) -> Adaptation:
    settings = merged(ADAPTING, {"adaptation": {"worn_dirs": ["mine"], **changes}})
    return begin_adaptation(config(Path("photos"), **settings), Processes(), CPU, Autocast(CPU, torch.float32))


def pictures(count: int, side_px: int, seed: int) -> torch.Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, side_px, mode="bicubic").clamp(0.05, 0.95)


@pytest.mark.slow
def test_it_learns_the_strength_of_noise_and_keeps_the_colours() -> None:
    adaptation = learner(learning_rate=0.02, batch=8)
    for step in range(60):
        high = pictures(8, 64, step)
        clean = bicubic_down(pictures(8, 64, 1000 + step), 2)
        dice = torch.Generator().manual_seed(step)
        worn = ((clean + torch.randn(clean.shape, generator=dice) * 10 / 255).clamp(0, 1) * 255).round() / 255
        adaptation.step(None, Examples(bicubic_down(high, 2), high, worn=worn), step, 1.0)
    high = pictures(4, 64, 5000)
    low = bicubic_down(high, 2)
    with torch.no_grad():
        results = [
            adaptation.ema(low, high, random_inputs([4 * i + j for j in range(4)], 32, 32, CPU)).worn for i in range(8)
        ]
    spread = torch.stack(results).std(dim=0).mean() * 255
    assert 6 < float(spread) < 15  # it began with 1
    assert float((torch.stack(results).mean(dim=(0, 3, 4)) - low.mean(dim=(2, 3))).abs().max()) * 255 < 4


def test_clean_crops_stay_among_the_pairs() -> None:
    adaptation = learner(clean_fraction=0.5, hidden_noise=0.0)
    high = pictures(64, 32, 1)
    low = bicubic_down(high, 2)
    pairs = adaptation.pairs(Examples(low, high, worn=low), 3)
    are_clean = [torch.equal(a, b) for a, b in zip(pairs.low, low, strict=True)]
    assert 16 < sum(are_clean) < 48
    assert torch.equal(pairs.high, high)
    assert torch.equal(adaptation.pairs(Examples(low, high, worn=low), 3).low, pairs.low)


def test_noise_lies_over_what_either_network_sees() -> None:
    quiet, loud = learner(hidden_noise=0.0, clean_fraction=0.0), learner(hidden_noise=4.0, clean_fraction=0.0)
    high = pictures(4, 32, 1)
    batch = Examples(bicubic_down(high, 2), high, worn=bicubic_down(high, 2))
    difference = (loud.pairs(batch, 0).low - quiet.pairs(batch, 0).low) * 255
    assert 3 < float(difference.std()) < 5


def test_old_results_are_shown_in_exchange_for_new_ones() -> None:
    replay, source = Replay(4), np.random.default_rng(0)
    first = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8) / 255
    assert torch.equal(replay.turn(first, source), first)
    later = first + 100 / 255
    shown = torch.cat([replay.turn(later + i / 255, source) for i in range(8)])
    levels = (shown[:, 0, 0, 0] * 255).round()
    assert {float(level) for level in levels} & {0.0, 1.0, 2.0, 3.0}
    assert (levels >= 100).sum() >= 12
    again = Replay(4)
    again.load_state_dict(replay.state_dict())
    assert torch.equal(again.turn(later, np.random.default_rng(5)), replay.turn(later, np.random.default_rng(5)))
    assert torch.equal(Replay(0).turn(later, source), later)
    with pytest.raises(ValueError, match="no pictures"):
        again.load_state_dict({"kept": torch.zeros(2, 3)})


def test_files_decide_the_codecs(photos: Path, mine: Path) -> None:
    adaptation = learner()
    adaptation.signs = (FileSign("JPEG", 5, True),)
    high = pictures(4, 64, 1)
    low = bicubic_down(high, 2)
    coarse = adaptation.worn(adaptation.ema, low, high, np.random.default_rng(0))
    adaptation.signs = (None,)
    fine = adaptation.worn(adaptation.ema, low, high, np.random.default_rng(0))
    assert float((coarse - low).abs().mean()) > 3 * float((fine - low).abs().mean())


def test_worn_pictures_are_not_turned(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    for number in range(8):
        rows = np.zeros((22, 26, 3), np.uint8)
        rows[1::2] = 100 + number, 60, 30
        Image.fromarray(rows).save(folder / f"{number}.png")
    run = begin(adapting(photos, folder, steps=1), Processes())
    state = State(phase="wear")
    with Batches(run, state, sources.prepare(run, state, sources.scanned(run, Witness()), Witness())) as batches:
        loader = batches.loader(32)
        for _ in range(8):
            worn = next(loader).worn
            assert worn is not None
            assert float((worn[..., 1:] - worn[..., :-1]).abs().max()) == 0.0


# ---------------------------------------------------------------------------------------------------------- refusals


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["train", *arguments])
    said = " ".join(capsys.readouterr().err.split())
    assert code in (2, 3), said
    return said


def test_what_cannot_be_adapted_to_is_refused(
    photos: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(mine.iterdir())[:7]:
        shutil.copy(path, few)
    base = ["--hr-dir", str(photos), "--preset", "adapt"]
    assert "the preset adapt needs --unpaired-lr-dir" in refused(capsys, *base)
    assert "holds 7 pictures, and at least 8 are needed" in refused(capsys, *base, "--unpaired-lr-dir", str(few))
    assert "there is no folder" in refused(capsys, *base, "--unpaired-lr-dir", "nowhere")
    given = [*base, "--unpaired-lr-dir", str(mine)]
    assert "adapt first" in refused(capsys, *given, "--teacher", "srgan")
    assert "no wear to learn" in refused(capsys, *given, "--lr-dir", str(mine))
    assert "leave --degradation out" in refused(capsys, *given, "--degradation", "photo")
    assert "enlarges 2 times, not 4" in refused(capsys, *given, "--init", "srgan-x2")
    assert "must be a multiple of 8 px and at least 64 px" in refused(capsys, *given, "--crop", "32", "--perceptual",
                                                                       "random")  # fmt: skip
    assert "neither bicubic nor photo nor a run" in refused(capsys, "--hr-dir", str(photos), "--degradation", "foto")
    assert not (tmp_path / "runs").exists()


def test_exchanged_folders_are_noticed(photos: Path, mine: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    for path in sorted(photos.iterdir()):
        with Image.open(path) as picture:
            picture.resize((130, 100)).save(large / path.name)
    with pytest.raises(SettingsError, match="all larger than the sharp ones"):
        trainer.train(adapting(photos, large), tmp_path / "run", Witness())
    same_again = tmp_path / "same"
    same_again.mkdir()
    for number in range(9):
        shutil.copy(mine / "0.jpg", same_again / f"{number}.jpg")
    with pytest.raises(SettingsError, match="of the worn pictures 1 can be used"):
        trainer.train(adapting(photos, same_again), tmp_path / "run", Witness())


def with_pictures(folder: Path, count: int, make: Callable[[int], Image.Image], form: str = "png") -> Path:
    folder.mkdir()
    for number in range(count):
        make(number).save(folder / f"{number}.{form}")
    return folder


def scanned(photos: Path, worn: Path, **changes: Any) -> Scan:
    return sources.scanned(begin(adapting(photos, worn, **changes), Processes()), Witness())


def test_one_folder_for_both_is_refused(photos: Path, mine: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="given both as --hr-dir and as --unpaired-lr-dir; give a folder of sharp"):
        trainer.train(adapting(photos, photos / "."), tmp_path / "run", Witness())
    copies = tmp_path / "copies"
    shutil.copytree(photos, copies)
    with pytest.raises(NothingToDoError, match=r"no pictures of --unpaired-lr-dir are left .*: .* the same picture as"):
        scanned(photos, copies)
    shutil.copytree(mine, copies, dirs_exist_ok=True)
    found = scanned(photos, copies)
    assert len(found.unlabelled) == 9
    twice = scanned(photos, mine, adaptation={"worn_dirs": [str(mine), f"{mine}/."]})
    assert len(twice.unlabelled) == 9
    assert not twice.refused


def test_worn_pictures_without_content_or_that_are_damaged_are_left_out(
    photos: Path, mine: Path, tmp_path: Path
) -> None:
    plain = with_pictures(tmp_path / "plain", 9, lambda number: Image.new("RGB", (40, 40), (20 * number, 90, 40)))
    with pytest.raises(NothingToDoError, match=r"to learn from: 9 nearly flat, such as .*0\.png: nearly flat"):
        scanned(photos, plain)
    shutil.copytree(mine, plain, dirs_exist_ok=True)
    (plain / "broken.jpg").write_bytes((mine / "0.jpg").read_bytes()[:200])
    found = scanned(photos, plain)
    assert len(found.unlabelled) == 9
    assert sorted(one.kind for one in found.refused) == ["nearly flat"] * 9 + ["unreadable"]
    for number in range(2):
        (plain / f"{number}.jpg").unlink()
    with pytest.raises(
        SettingsError, match=r"worn pictures 7 can be used \(10 are left out: 9 nearly flat, 1 unreadable"
    ):
        scanned(photos, plain)


def test_grey_worn_pictures_are_learned_from_without_colours(photos: Path, mine: Path, tmp_path: Path) -> None:
    grey = with_pictures(tmp_path / "grey", 9, lambda number: Image.open(mine / f"{number}.jpg").convert("L"), "jpg")
    with pytest.raises(SettingsError, match=r"grey and the sharp ones coloured, .*; --set data\.grey=true learns"):
        scanned(photos, grey)
    settings = adapting(photos, grey, data={"grey": True})
    trainer.train(settings, tmp_path / "run", Witness())
    run = begin(settings, Processes())
    assert run.adaptation is not None
    high = pictures(2, 32, 1)
    worn = run.adaptation.worn(run.adaptation.ema, bicubic_down(high, 2), high, np.random.default_rng(0))
    assert float((worn[:, 0] - worn[:, 2]).abs().max()) < 0.01
    assert load_wear(tmp_path / "run" / "wear.safetensors").grey
    learned = {"kind": "learned", "wear": str(tmp_path / "run")}
    with pytest.raises(SettingsError, match=r"learned from pictures without colours.*add --set data\.grey=true"):
        trainer.train(config(photos, degradation=learned), tmp_path / "next", Witness())
    next_run = config(photos, data={"grey": True}, degradation=learned)
    trainer.train(next_run, tmp_path / "next", Witness())
    for _, low, high_pixels in ((pair.name, pair.low, pair.high) for pair in held_out(next_run, scan_of(next_run), 2)):
        assert is_grey(low)
        assert is_grey(high_pixels)
    coloured = scanned(photos, mine)
    assert not is_grey(read_pixels(coloured.train[0].path))


def scan_of(settings: TrainConfig) -> Scan:
    return scan(settings.data, scale=2, crop_px=16)


# ----------------------------------------------------------------------------------------------------------- preview


def test_a_preview_shows_both_kinds_and_later_what_was_learned(
    photos: Path, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "tiny.toml"
    settings.write_text(to_toml(adapting(photos, mine)))
    command = ["train", "--config", str(settings), "--hr-dir", str(photos), "--out", str(tmp_path / "run")]
    sheet = tmp_path / "sheet.png"
    assert main([*command, "--preview", str(sheet)]) == 0
    assert "sharp and worn pictures" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with Image.open(sheet) as picture:
        before = picture.width
    assert main([*command, "--quiet"]) == 0
    assert main([*command, "--preview", str(sheet)]) == 0
    assert "has learned of the wear" in capsys.readouterr().err
    with Image.open(sheet) as picture:
        assert picture.width > before


def test_the_preset_starts_from_photo() -> None:
    found = preset("adapt", {"adaptation": {"worn_dirs": ["mine"]}})
    assert found.init == "photo"
    assert found.phases == ("wear", "adversarial")
    assert json.loads(json.dumps(found.adaptation.replay)) == 50
