"""A whole run with tiny networks: its folder, paired data, and what is refused before the first step."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srgan_cli.errors import NothingToDoError, SettingsError, WeightsError
from srgan_cli.networks.weights import load_model
from srgan_cli.training import trainer
from srgan_cli.training.observer import Progress, SilentTraining
from srgan_cli.training_config import TrainConfig
from tests.training.runs import Witness, config, log_of, stop_at

# ---------------------------------------------------------------------------------------------------------- a whole run


def test_a_run_of_both_phases_leaves_all_that_was_promised(photos: Path, tmp_path: Path) -> None:
    where = tmp_path / "run"
    outcome = trainer.train(config(photos, phase="both", steps=6), where, Witness())
    assert outcome.exit_code == 0
    assert outcome.steps == 6
    expected = {"config.toml", "log.jsonl", "samples", "report.html", "checkpoint", "model.safetensors"}
    assert expected | {"fidelity.safetensors"} <= {path.name for path in where.iterdir()}
    events = log_of(where)
    phases = [event["phase"] for event in events if event["event"] == "step"]
    assert phases == ["fidelity"] * 3 + ["adversarial"] * 3
    assert "discriminator" in next(e for e in events if e["event"] == "step" and e["phase"] == "adversarial")
    assert events[-1]["event"] == "finished"
    model, first = load_model(where), load_model(where / "fidelity.safetensors")
    assert (model.scale, model.adversarial, first.adversarial) == (2, True, False)
    assert model.entry is not None
    assert model.entry.recipe["steps"] == 6
    assert str(photos) not in json.dumps(model.entry.recipe)  # models are shared, and paths are private
    kept = model.entry.scores["validation"]["psnr_y_db"]
    assert outcome.scores["model"]["psnr_y_db"] == pytest.approx(kept, abs=1e-3)


def test_training_learns(photos: Path, tmp_path: Path) -> None:
    rates = {"fidelity": {"learning_rate": 3e-3, "frequency_weight": 0.0, "ema": 0.9}}
    outcome = trainer.train(
        config(photos, steps=120, watch={"checkpoint_every_steps": 0}, **rates), tmp_path / "r", Witness()
    )
    losses = [event["losses"]["pixel"] for event in log_of(tmp_path / "r") if event["event"] == "step"]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
    first = next(event for event in log_of(tmp_path / "r") if event["event"] == "validation")
    assert outcome.scores["model"]["psnr_y_db"] > first["psnr_y_db"]


# ------------------------------------------------------------------------------------------------ before the first step


def test_bad_input_is_told_before_the_first_step(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[type[Exception], TrainConfig]] = [
        (NothingToDoError, config(empty)),
        (NothingToDoError, config(photos, fidelity={"crop_px": 64})),
        (
            WeightsError,
            config(photos, phase="adversarial", perceptual={"source": "vgg19", "weights_file": str(empty / "no")}),
        ),
        (WeightsError, config(photos, init=str(empty))),
    ]
    for number, (kind, settings) in enumerate(cases):
        with pytest.raises(kind):
            trainer.train(settings, tmp_path / str(number), Witness(lambda p: pytest.fail("a step was made")))


def test_a_folder_of_something_else_is_not_written_to(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(SettingsError, match="not the folder of a run"):
        trainer.train(config(photos), tmp_path, Witness())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.doc"]


def test_two_runs_cannot_share_a_folder(photos: Path, tmp_path: Path) -> None:
    def intrude(p: Progress) -> None:
        found: list[BaseException] = []

        def other() -> None:
            try:
                trainer.train(config(photos), tmp_path, SilentTraining())
            except SettingsError as err:
                found.append(err)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "another process" in str(found[0])

    trainer.train(config(photos, steps=1), tmp_path, Witness(intrude))


def test_a_batch_that_does_not_fit_is_made_smaller(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("srgan_cli.engine.backends.pytorch.free_memory_bytes", lambda device: 130_000)
    witness = Witness()
    trainer.train(config(photos), tmp_path, witness)
    assert any("do not fit into memory" in note for note in witness.notes)
    assert 1 <= int(str(witness.facts["batch"])) < 4


# ---------------------------------------------------------------------------------------------------------- paired data


def test_paired_data_are_learned_from_and_judged_as_they_are(photos: Path, tmp_path: Path) -> None:
    """The small pictures are darker: what a degradation would make is not what is there."""
    low = tmp_path / "low"
    low.mkdir()
    for path in photos.iterdir():
        with Image.open(path) as picture:
            small = picture.reduce(2)
        small.point(lambda value: value // 2).save(low / path.name)
    paired = {"high_dirs": [str(photos)], "low_dirs": [str(low)]}
    outcome = trainer.train(config(photos, data=paired), tmp_path / "run", Witness())
    plain = trainer.train(config(photos), tmp_path / "plain", Witness())
    assert outcome.scores["bicubic"]["psnr_y_db"] < plain.scores["bicubic"]["psnr_y_db"] - 5


# ---------------------------------------------------------------------------------------------------------------- a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", ["bicubic", "photo"])
def test_a_gpu_trains_both_phases_and_goes_on(photos: Path, tmp_path: Path, precision: str, kind: str) -> None:
    settings = config(
        photos, phase="both", steps=40, compute={"device": "cuda", "precision": precision}, degradation={"kind": kind}
    )
    stopped = trainer.train(settings, tmp_path, Witness(stop_at(30)))
    assert stopped.interrupted
    witness = Witness()
    outcome = trainer.train(settings, tmp_path, witness)
    assert witness.steps == list(range(31, 41))
    assert np.isfinite(outcome.scores["model"]["psnr_y_db"])
    assert not any("NaN" in note for note in witness.notes)
