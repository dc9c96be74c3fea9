"""Training with noise: starts unchanged, learns to use the noise, and resumes bit-identically."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.weights import load_generator
from srgan_cli.training import losses, recorder, trainer
from srgan_cli.training.monitor import Monitor
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import Run, begin, make_generator, noise_of, with_sizes_of_init
from srgan_cli.training.run import step as make_step
from srgan_cli.training.state import State
from srgan_cli.training.steps import Examples
from srgan_cli.training_config import TrainConfig
from tests.faults import save_tiny
from tests.training.runs import Witness, config, log_of, stop_at, weights

ALONE = Processes()


def noisy(photos: Path, **changes: Any) -> TrainConfig:
    return config(photos, **{"phase": "adversarial", "generator": {"noise": True}, **changes})


def low() -> torch.Tensor:
    return torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_it_begins_as_the_network_that_it_starts_from(photos: Path, tmp_path: Path) -> None:
    file = save_tiny(tmp_path / "start.safetensors", 2, blocks=2)
    settings = with_sizes_of_init(noisy(photos, init=str(file)))
    assert settings.generator.noise
    assert settings.generator.blocks == 2
    generator = make_generator(settings)
    assert generator.has_noise
    assert torch.equal(generator(low(), Noise(3)), load_generator(file)(low()))
    with pytest.raises(WeightsError, match="is for compact networks"):
        make_generator(
            noisy(photos, init=str(save_tiny(tmp_path / "other.safetensors", 2, architecture="srvgg", features=4)))
        )


def test_it_learns_to_use_noise(photos: Path) -> None:
    settings = noisy(photos, adversarial={"diversity_weight": 1e-3, "learning_rate": 3e-3, "batch": 4})
    run, state = begin(settings, ALONE), State(phase="adversarial")
    random = torch.Generator().manual_seed(3)
    spreads = []  # in levels
    for number in range(40):
        high = torch.rand(4, 3, 16, 16, generator=random)
        stepped = make_step(run, state, number / 40, Examples(torch.nn.functional.avg_pool2d(high, 2), high))
        spreads.append(float(stepped.terms.reported["spread"]))
        state.advance()
    assert spreads[0] < 1e-4, "rounding of batches of different sizes at most"
    assert spreads[-1] > 0.5
    assert spreads[-1] > spreads[5]


def test_noise_follows_from_seed_step_and_crop(photos: Path) -> None:
    run = begin(noisy(photos), ALONE)
    first, again, later, elsewhere = (
        noise_of(run, 4, 7), noise_of(run, 4, 7), noise_of(run, 4, 8), noise_of(run, 4, 7, rollbacks=1)
    )  # fmt: skip
    assert first is not None
    assert first == again
    assert len({first, later, elsewhere}) == 3
    assert first.strength == (0.0, 1.0, 1.0, 1.0)
    field = first.field(0, torch.empty(4, 8, 32, 32))
    assert float(field[0].abs().max()) == 0
    assert abs(float((field[1] * field[2]).mean())) < 0.1
    second = dataclasses.replace(run, group=Processes(rank=1, world=2))
    assert set(noise_of(second, 4, 7).corners).isdisjoint(first.corners)  # type: ignore[union-attr]
    assert noise_of(begin(config(photos), ALONE), 4, 0) is None


def test_two_and_two_steps_are_four_to_the_bit(photos: Path, tmp_path: Path) -> None:
    settings = noisy(photos, phase="both")
    trainer.train(settings, tmp_path / "whole", Witness())
    trainer.train(settings, tmp_path / "parts", Witness(stop_at(3)))
    trainer.train(settings, tmp_path / "parts", Witness())
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert any(key.endswith("strength") and bool((tensor != 0).any()) for key, tensor in whole.items())
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())
    assert any("diversity" in str(line) for line in log_of(tmp_path / "whole"))


def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step the strengths are 0 again, in the generator and in its moving average."""

    def step(run: Run, *arguments: Any) -> Any:
        stepped = make_step(run, *arguments)
        with torch.no_grad():
            for network in (run.generator, run.ema):
                for name, parameter in network.named_parameters():
                    parameter.mul_(0 if name.endswith("strength") else 1)
        return stepped

    monkeypatch.setattr(trainer, "step", step)


def watched(photos: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, **adversarial: Any) -> list[str]:
    """Findings of a run of 24 steps with a validation after every third, as if there were ten times as many steps."""
    monkeypatch.setattr(recorder, "Monitor", functools.partial(Monitor, window_steps=20))
    settings = noisy(photos, steps=24, adversarial={"learning_rate": 3e-3, "ema": 0.5, **adversarial},
                     watch={"validate_every_steps": 3, "checkpoint_every_steps": 0})  # fmt: skip
    witness = Witness()
    trainer.train(settings, folder, witness)
    return witness.notes


def test_noise_that_is_ignored_is_reported_in_log_and_report(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful(monkeypatch)
    notes = watched(photos, tmp_path / "run", monkeypatch, diversity_weight=0.0)
    said = [note for note in notes if "ignores its noise" in note]
    assert said == [
        "The generator ignores its noise: since step 3 results of one picture from two seeds differ by only 0.00 "
        "levels (of 255), so all variants look the same. The run continues; a higher adversarial.diversity_weight or a "
        "longer run may help."
    ]
    told = [event for event in log_of(tmp_path / "run") if event.get("kind") == "noise-ignored"]
    assert [(event["event"], event["step"], event["text"]) for event in told] == [("note", 24, said[0])]
    assert said[0] in (tmp_path / "run" / "report.html").read_text()


def test_noise_that_is_used_is_not_and_both_are_scored(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = watched(photos, tmp_path / "run", monkeypatch, diversity_weight=1e-3)
    assert not [note for note in notes if "noise" in note]
    looks = [event for event in log_of(tmp_path / "run") if event["event"] == "validation"]
    first, last = looks[0]["with_noise"], looks[-1]["with_noise"]
    assert (first["spread"], first["psnr_y_db"]) == (0, looks[0]["psnr_y_db"])
    assert last["spread"] > 0.1
    assert last["psnr_y_db"] != looks[-1]["psnr_y_db"]
    assert {"ssim_y", "consistency_db", "perceptual"} <= set(last)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "with noise" in page
    assert "Results from two seeds" in page


def test_a_network_without_noise_is_scored_once(trained: Path) -> None:
    assert not any("with_noise" in event for event in log_of(trained))
    assert "with noise" not in (trained / "report.html").read_text()


def test_diversity_falls_as_results_move_apart() -> None:
    one = torch.zeros(2, 3, 4, 4)
    values = [float(losses.diversity(one, one + step / 255)) for step in (0, 1, 3, 10)]
    assert values == pytest.approx([255, 127.5, 63.75, 255 / 11], rel=1e-4)
    other = (one + 2 / 255).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.diversity(one, other), other)
    assert float(gradient.max()) < 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"generator": {"noise": True, "architecture": "srvgg"}}, "generator.noise is for compact only"),
        ({"generator": {"noise": True}, "compute": {"compile": True}}, "cannot be combined"),
        ({"adversarial": {"noise_off_fraction": 2}}, "noise_off_fraction"),
    ],
)
def test_settings_that_make_no_sense(photos: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        config(photos, **changes)
