"""The appearance of worn pictures as numbers, and the monitor's findings about a wearer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image, ImageFilter

from srgan_cli.training.monitor import DiscriminatorNumbers, Monitor
from srgan_cli.training.picture_numbers import ValidationNumbers
from srgan_cli.training.wear_numbers import Appearance, WearNumbers, appearance_of
from srgan_cli.training_config import Phase


def test_numbers_tell_blur_from_sharpness_and_noise_from_quiet() -> None:
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = 200
    soft = np.asarray(Image.fromarray(step).filter(ImageFilter.GaussianBlur(1.5)))
    assert appearance_of([step]).blur_across_px == pytest.approx(1 / math.sqrt(2 * math.pi), abs=0.01)
    assert appearance_of([soft]).blur_across_px == pytest.approx(1.5, abs=0.3)
    noisy = np.clip(128 + np.random.default_rng(0).normal(0, 8, (96, 96, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    assert appearance_of([noisy]).noise == pytest.approx(8, abs=1.5)
    assert math.isnan(appearance_of([]).noise)


@pytest.mark.parametrize(
    ("bad", "kind", "times"),
    [
        ({"colour_shift": 6.0}, "wear-colours", 1),
        ({"variation": 0.02}, "wear-alike", 2),
        ({"accuracy": 0.99}, "wear-discriminator-won", 3),
        ({"hidden_db": 3.0}, "wear-hidden", 2),
        ({"returned_db": 3.0}, "wear-returned", 2),
    ],
)
def test_each_failure_is_reported_once_and_stops_nothing(bad: Mapping[str, float], kind: str, times: int) -> None:
    well = WearNumbers(Appearance(noise=5.0), Appearance(noise=4.0), 0.5, 6.0, 0.6, 0.1)
    monitor = Monitor()
    assert monitor.wear(0, well) == []
    ill = dataclasses.replace(well, **bad)  # type: ignore[arg-type]
    found = [monitor.wear(step, ill) for step in range(1, times + 3)]
    assert [[finding.kind for finding in one] for one in found] == [[]] * (times - 1) + [[kind]] + [[]] * 2
    assert not any(finding.roll_back for one in found for finding in one)
    again = Monitor()
    again.restore(monitor.state())
    assert again.wear(50, ill) == []


def test_while_the_wear_is_learned_only_the_wearer_is_watched() -> None:
    guessing = DiscriminatorNumbers(loss=0.25, accuracy=0.5)
    able = DiscriminatorNumbers(loss=0.2, accuracy=0.7)
    well, worse = (ValidationNumbers(psnr_y_db=db, bicubic_psnr_y_db=25.0) for db in (26.0, 20.0))
    found: dict[Phase, set[str]] = {}
    for phase in ("wear", "fidelity"):
        monitor, kinds = Monitor(), set()
        monitor.begin(phase)
        for step in range(0, 4000, 20):
            seen = monitor.step(step, {"total": 1.0}, 1.0, able if step < 100 else guessing)
            kinds |= {finding.kind for finding in seen}
        for step, numbers in enumerate([well, worse, worse]):
            kinds |= {finding.kind for finding in monitor.validation(step, numbers)}
        found[phase] = kinds
    assert found == {"wear": set(), "fidelity": {"discriminator-lost", "below-bicubic"}}
