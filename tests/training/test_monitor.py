"""The monitor, given numbers: what it reports, when, and how often; and the numbers computed from pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.training.monitor import DiscriminatorNumbers, Finding, Monitor
from srgan_cli.training.picture_numbers import ValidationNumbers, as_values, picture_numbers
from srgan_cli.training_config import Objective

LOSSES = {"pixel": 0.02, "adversarial": 0.7}
FAIR = DiscriminatorNumbers(loss=1.2, accuracy=0.7)
GOOD = ValidationNumbers(
    psnr_y_db=28.0,
    bicubic_psnr_y_db=27.0,
    consistency_db=45.0,
    detail=0.5,
    diversity=1.0,
    colour_shift=0.3,
    grid=0.1,
)


def kinds(findings: list[Finding]) -> list[str]:
    return [finding.kind for finding in findings]


def learning(monitor: Monitor, steps: int = 20, norm: float = 1.0) -> Monitor:
    """A monitor after a number of ordinary steps."""
    for step in range(steps):
        assert monitor.step(step, LOSSES, norm * (1 + step % 3 / 10), FAIR) == []
    return monitor


def fidelity() -> Monitor:
    """A monitor after one good validation."""
    monitor = Monitor()
    monitor.begin("fidelity")
    assert monitor.validation(0, GOOD) == []
    return monitor


def adversarial(numbers: ValidationNumbers = GOOD) -> Monitor:
    """A monitor after a good start of both phases."""
    monitor = Monitor()
    monitor.begin("fidelity")
    assert monitor.validation(0, numbers) == []
    monitor.begin("adversarial")
    assert monitor.validation(1, numbers) == []
    return monitor


# -------------------------------------------------------------------------------------------------------------- a step


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_sends_the_run_back(value: float) -> None:
    (finding,) = learning(Monitor()).step(20, {**LOSSES, "pixel": value}, 1.0)
    assert (finding.kind, finding.roll_back) == ("not-finite", True)
    assert "The loss (pixel) became NaN or infinite at step 20" in finding.sentence


def test_a_gradient_that_is_no_number_sends_the_run_back() -> None:
    (finding,) = learning(Monitor()).step(20, LOSSES, math.nan)
    assert finding.roll_back
    assert finding.sentence.startswith("The gradient became")


def test_where_a_scaler_leaves_steps_out_only_many_in_a_row_count() -> None:
    monitor = learning(Monitor(patience=3))
    said = [
        bool(monitor.step(step, LOSSES, norm)) for step, norm in enumerate([math.inf, math.inf, 1.0, *[math.inf] * 6])
    ]
    assert said == [False] * 5 + [True, False, False, True]


def test_exploding_gradients_must_last_but_one_bad_batch_is_nothing() -> None:
    monitor = learning(Monitor())
    assert [kinds(monitor.step(20 + i, LOSSES, norm)) for i, norm in enumerate([500.0, 1.0, 500.0, 500.0])] == [[]] * 4
    (finding,) = monitor.step(24, LOSSES, 500.0)
    assert (finding.kind, finding.roll_back) == ("exploding", True)
    assert "500" in finding.sentence
    assert monitor.step(25, LOSSES, 500.0) == []  # already reported
    assert monitor.step(26, LOSSES, 1.0) == []
    assert [kinds(monitor.step(27 + i, LOSSES, 500.0)) for i in range(3)] == [[], [], ["exploding"]]


def test_the_first_gradients_may_be_of_any_size() -> None:
    monitor = Monitor()
    assert [monitor.step(step, LOSSES, 10.0**-step) for step in range(9)] == [[]] * 9


def test_vanishing_gradients_are_told_once() -> None:
    monitor = learning(Monitor(window_steps=10))
    said = [kinds(monitor.step(step, LOSSES, 1e-6)) for step in range(20, 50)]
    assert said.count(["vanishing"]) == 1
    assert said.index(["vanishing"]) == 10


def test_another_phase_has_gradients_of_another_size() -> None:
    monitor = Monitor()
    monitor.begin("fidelity")
    learning(monitor)
    monitor.begin("adversarial")
    learning(monitor, norm=1e4)


@pytest.mark.parametrize(
    ("objective", "guessing"),
    [("nonsaturating", 2 * math.log(2)), ("relativistic", 2 * math.log(2)), ("hinge", 2.0), ("least-squares", 0.25)],
)
def test_a_discriminator_that_has_won_is_told_once_an_episode(objective: Objective, guessing: float) -> None:
    monitor = learning(Monitor(objective, window_steps=100))
    won = DiscriminatorNumbers(loss=0.05 * guessing, accuracy=0.99)
    said = [kinds(monitor.step(step, LOSSES, 1.0, won)) for step in range(100, 400, 10)]
    assert said.index(["discriminator-won"]) == 10
    assert said.count(["discriminator-won"]) == 1
    assert monitor.step(400, LOSSES, 1.0, FAIR) == []
    again = [kinds(monitor.step(step, LOSSES, 1.0, won)) for step in range(500, 700, 10)]
    assert again.count(["discriminator-won"]) == 1


@pytest.mark.parametrize("numbers", [DiscriminatorNumbers(0.6, 0.99), DiscriminatorNumbers(0.01, 0.9)])
def test_a_discriminator_has_won_only_by_accuracy_and_loss(numbers: DiscriminatorNumbers) -> None:
    monitor = learning(Monitor(window_steps=10))
    assert not any(monitor.step(step, LOSSES, 1.0, numbers) for step in range(20, 200))


def test_what_is_said_of_a_winner() -> None:
    monitor = learning(Monitor(window_steps=4))
    winner = DiscriminatorNumbers(0.02, 0.992)
    (finding,) = [finding for step in range(50, 60) for finding in monitor.step(step, LOSSES, 1.0, winner)]
    assert not finding.roll_back
    assert "since step 50 it is right in 99% of its verdicts" in finding.sentence
    assert "discriminator_learning_rate" in finding.sentence


def test_a_discriminator_that_has_only_begun_has_not_lost() -> None:
    monitor = Monitor(window_steps=10)
    guessing = DiscriminatorNumbers(1.386, 0.5)
    assert not any(monitor.step(step, LOSSES, 1.0, guessing) for step in range(200))
    learning(monitor)
    said = [kinds(monitor.step(step, LOSSES, 1.0, guessing)) for step in range(200, 300)]
    assert said.count(["discriminator-lost"]) == 1


# ---------------------------------------------------------------------------------------------------------- validations


@pytest.mark.parametrize(
    ("change", "kind", "roll_back", "words"),
    [
        ({"psnr_y_db": 25.9}, "below-bicubic", True, "worse than plain bicubic"),
        ({"detail": 0.1}, "collapsed", True, "only 20% of the original fine detail"),
        ({"diversity": 0.3}, "collapsed", True, "differ only 30% as much as they should"),
        ({"colour_shift": 6.0}, "colours", False, "by 6.0 levels"),
        ({"consistency_db": 33.0}, "inconsistent", False, "33.0 dB"),
    ],
)
def test_a_bad_validation_is_reported_once(change: dict[str, float], kind: str, roll_back: bool, words: str) -> None:
    monitor = fidelity() if kind == "below-bicubic" else adversarial()
    bad = replace(GOOD, **change)
    (finding,) = monitor.validation(2, bad)
    assert (finding.kind, finding.roll_back) == (kind, roll_back)
    assert words in finding.sentence
    assert ("Going back" in finding.sentence) == roll_back
    assert monitor.validation(3, bad) == []
    assert monitor.validation(4, GOOD) == []
    assert kinds(monitor.validation(5, bad)) == [kind]


def test_noise_that_is_ignored_for_a_while_is_told_once() -> None:
    def said(monitor: Monitor, spreads: list[float]) -> list[list[str]]:
        return [kinds(monitor.noise(50 * number, spread)) for number, spread in enumerate(spreads)]

    begun = Monitor(window_steps=200)
    begun.begin("fidelity")
    assert said(begun, [0.0] * 9) == [[]] * 9
    monitor = adversarial()
    assert said(monitor, [0.0] * 9) == [[]] * 4 + [["noise-ignored"]] + [[]] * 4
    assert said(monitor, [1.0, *[0.0] * 6]) == [[]] * 5 + [["noise-ignored"], []]
    assert said(adversarial(), [0.0, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0]) == [[]] * 9


def test_a_grid_must_be_seen_twice() -> None:
    monitor = adversarial()
    dots = replace(GOOD, grid=1.5)
    assert monitor.validation(2, dots) == []
    (finding,) = monitor.validation(3, dots)
    assert finding.kind == "grid"
    assert "1.5 levels" in finding.sentence


def test_a_pattern_must_be_above_what_good_models_have_and_above_the_least_of_the_run() -> None:
    def found(*values_db: float) -> list[list[str]]:
        monitor = adversarial()
        return [kinds(monitor.validation(step, replace(GOOD, pattern_db=db))) for step, db in enumerate(values_db)]

    assert found(3.0, 3.0) == [[], []]  # nothing to compare with
    assert found(0.5, 3.0, 3.0, 3.0) == [[], [], ["pattern"], []]
    assert found(0.5, 3.0, 1.0, 3.0, 1.0) == [[]] * 5
    assert found(3.4, 5.2, 5.2) == [[]] * 3  # smooth targets
    assert found(3.4, math.nan, 5.6, 5.6) == [[], [], [], ["pattern"]]
    kept = Monitor()
    kept.begin("adversarial")
    kept.validation(0, replace(GOOD, pattern_db=0.5))
    taken_up = Monitor()
    taken_up.restore(kept.state())
    assert [kinds(taken_up.validation(step, replace(GOOD, pattern_db=3.0))) for step in (1, 2)] == [[], ["pattern"]]


def test_a_network_that_has_only_begun_is_left_alone() -> None:
    monitor = Monitor()
    monitor.begin("fidelity")
    bad = ValidationNumbers(12.0, 27.0, 11.0, detail=0.0, diversity=0.01, colour_shift=60.0, grid=9.0)
    assert [monitor.validation(step, bad) for step in range(5)] == [[]] * 5


def test_noise_that_goes_in_the_fidelity_phase_is_no_collapse() -> None:
    monitor = Monitor()
    monitor.begin("fidelity")
    assert monitor.validation(0, replace(GOOD, detail=1.0)) == []
    assert monitor.validation(1, replace(GOOD, detail=0.2)) == []


def test_an_adversarial_phase_of_its_own_is_held_to_what_it_had() -> None:
    monitor = Monitor()
    monitor.begin("adversarial")
    assert monitor.validation(0, replace(GOOD, detail=0.9)) == []
    assert monitor.validation(1, replace(GOOD, detail=0.3)) == []  # back at fidelity's level: not good, not collapsed
    assert kinds(monitor.validation(2, replace(GOOD, detail=0.1))) == ["collapsed"]


def test_what_is_not_known_is_not_watched() -> None:
    monitor = adversarial()
    assert monitor.validation(2, ValidationNumbers()) == []
    assert as_values(ValidationNumbers(psnr_y_db=28.0)) == {"psnr_y_db": 28.0}


def test_the_state_survives_a_checkpoint() -> None:
    def rest(monitor: Monitor) -> list[list[str]]:
        found = [kinds(monitor.step(s, LOSSES, 300.0, DiscriminatorNumbers(0.01, 1.0))) for s in range(120, 400, 10)]
        return [*found, kinds(monitor.validation(400, replace(GOOD, detail=0.1)))]

    monitor = adversarial()
    learning(monitor)
    monitor.step(110, LOSSES, 300.0, DiscriminatorNumbers(0.01, 1.0))
    restored = Monitor()
    restored.restore(json.loads(json.dumps(monitor.state())))
    assert restored.state() == monitor.state()
    expected = rest(monitor)
    assert {"exploding", "discriminator-won", "collapsed"} <= {kind for found in expected for kind in found}
    assert rest(restored) == expected


def test_after_going_back_the_alarm_is_set_again() -> None:
    monitor = fidelity()
    good = monitor.state()
    for _ in range(3):
        assert kinds(monitor.validation(2, replace(GOOD, psnr_y_db=20.0))) == ["below-bicubic"]
        monitor.restore(good)


# ------------------------------------------------------------------------------------------------- numbers of pictures


def originals(count: int = 4, side: int = 128, seed: int = 0) -> list[Pixels]:
    """Pictures with large shapes, some texture and flat parts."""
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        coarse = rng.uniform(30, 220, (4, 4, 3))
        picture = np.repeat(np.repeat(coarse, side // 4, 0), side // 4, 1)
        picture[: side // 2] += rng.normal(0, 20, (side // 2, side, 3))
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return pictures


def lows(highs: list[Pixels], scale: int = 4) -> list[Pixels]:
    return [bicubic(high, high.shape[1] // scale, high.shape[0] // scale) for high in highs]


def changed(pictures: list[Pixels], change: Callable[[Pixels], Pixels]) -> list[Pixels]:
    return [np.clip(np.round(change(picture.astype(np.float64))), 0, 255).astype(np.uint8) for picture in pictures]


def test_numbers_of_perfect_results() -> None:
    highs = originals()
    found = picture_numbers(
        highs, lows(highs), highs, 4, {"psnr_y_db": 40.0, "consistency_db": 50.0}, {"psnr_y_db": 28.0}
    )
    assert found.detail == pytest.approx(1.0)
    assert found.diversity == pytest.approx(1.0)
    assert found.colour_shift < 1.0
    assert found.grid == 0.0
    assert (found.psnr_y_db, found.bicubic_psnr_y_db, found.consistency_db) == (40.0, 28.0, 50.0)


def test_detail_is_what_the_low_picture_cannot_hold() -> None:
    highs = originals()
    low = lows(highs)
    blurred = [bicubic(one, 128, 128) for one in low]
    assert picture_numbers(blurred, low, highs, 4).detail < 0.35
    # A wave above the low picture's limit counts, one below it does not: 16 px and 4 px at scale 4.
    flat = np.full((128, 128, 3), 128.0)
    waves = {
        px: [(flat + 40 * np.cos(2 * np.pi * np.arange(128) / px)[None, :, None]).astype(np.uint8)] for px in (16, 4)
    }
    assert picture_numbers(waves[16], low[:1], waves[4], 4).detail < 0.02
    assert picture_numbers(waves[4], low[:1], waves[4], 4).detail == pytest.approx(1.0)


def test_half_the_contrast_is_half_the_detail_and_diversity() -> None:
    highs = originals()
    pale = changed(highs, lambda high: (high - high.mean()) / 2 + high.mean())
    found = picture_numbers(pale, lows(highs), highs, 4)
    assert found.detail == pytest.approx(0.5, abs=0.03)


def test_results_that_are_all_alike_have_no_diversity() -> None:
    highs = originals()
    assert picture_numbers([highs[0]] * 4, lows(highs), highs, 4).diversity == 0.0
    assert math.isnan(picture_numbers(highs[:1], lows(highs[:1]), highs[:1], 4).diversity)


def test_a_shift_of_colour_is_measured_in_levels() -> None:
    highs = [np.full((64, 64, 3), 100, np.uint8)]
    found = picture_numbers(changed(highs, lambda high: high + np.array([2.0, -7.0, 0.0])), lows(highs), highs, 4)
    assert found.colour_shift == pytest.approx(7.0)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_grid_is_found_by_its_period_and_measured_in_levels(scale: int) -> None:
    side = 32 * scale
    highs = [high[:side, :side] for high in originals(side=max(side, 4))]
    dots = np.zeros((scale, scale, 1))
    dots[0, 0] = 10.0
    std = 10.0 * math.sqrt(scale**2 - 1) / scale**2
    found = picture_numbers(
        changed(highs, lambda high: high + np.tile(dots, (32, 32, 1))), lows(highs, scale), highs, scale
    )
    assert found.grid == pytest.approx(std, rel=0.15)


def test_a_checkerboard_is_a_grid_but_noise_and_slopes_are_none() -> None:
    highs = originals()
    low = lows(highs)
    checkers = (np.indices((128, 128)).sum(axis=0) % 2 * 4.0 - 2.0)[..., None]
    assert picture_numbers(changed(highs, lambda h: h + checkers), low, highs, 4).grid == pytest.approx(2.0, rel=0.1)
    noise = np.random.default_rng(1).normal(0, 10, (128, 128, 1))
    assert picture_numbers(changed(highs, lambda h: h + noise), low, highs, 4).grid < 0.4
    slope = np.linspace(-40, 40, 128)[None, :, None]
    assert picture_numbers(changed(highs, lambda h: h + slope), low, highs, 4).grid < 0.1


@pytest.mark.parametrize("period_px", [2.0, 2.7, 4.0])
def test_a_pattern_is_found_whatever_its_period_and_place(period_px: float) -> None:
    highs = originals()
    low = lows(highs)
    wave = np.sin(2 * np.pi * (np.indices((128, 128)).sum(axis=0) + 0.5) / period_px)[..., None]
    wave *= (1 - 2 * (np.arange(128) // 16 % 2))[:, None, None]  # the sign alternates, so that means are 0
    found = picture_numbers(changed(highs, lambda h: h + 5 * wave), low, highs, 4)
    assert found.pattern_db > 6
    assert found.grid < 1
    assert picture_numbers(highs, low, highs, 4).pattern_db == 0.0
    assert picture_numbers(changed(highs, lambda h: (h + h.mean()) / 2), low, highs, 4).pattern_db == 0.0
    assert math.isnan(picture_numbers([h[:24] for h in highs], low, [h[:24] for h in highs], 4).pattern_db)


def test_pictures_of_different_and_of_small_sizes() -> None:
    highs = [originals(1)[0], originals(1, seed=1)[0][:96, :112], originals(1, seed=2)[0][:24, :24]]
    found = picture_numbers(highs, lows(highs), highs, 4)
    assert found.diversity == pytest.approx(1.0)
    assert math.isnan(picture_numbers(highs[2:], lows(highs[2:]), highs[2:], 4).grid)  # not one block of 32 px
    assert as_values(picture_numbers([], [], [], 4)) == {}


# ------------------------------------------------------------------------------------------------ both networks, phases


@pytest.mark.parametrize("changes", [{"loss": math.nan}, {"gradient_norm": math.inf}])
def test_a_discriminator_that_is_no_number_sends_the_run_back(changes: dict[str, float]) -> None:
    (finding,) = learning(Monitor()).step(20, LOSSES, 1.0, replace(FAIR, **changes))
    assert finding.roll_back
    assert "discriminator" in finding.sentence


def test_a_scaler_has_some_steps_to_find_its_size() -> None:
    monitor = Monitor(patience=3, patience_steps=40)
    assert [bool(monitor.step(step, LOSSES, math.inf)) for step in (1, 2, 3, 40, 41)] == [False] * 4 + [True]


def test_in_the_adversarial_phase_psnr_may_fall_below_bicubic_but_not_for_ever() -> None:
    monitor = adversarial()
    assert monitor.validation(2, replace(GOOD, psnr_y_db=25.5)) == []  # -1.5 dB: an ordinary SRGAN
    assert monitor.validation(3, replace(GOOD, psnr_y_db=23.5)) == []  # one validation may be bad luck
    assert kinds(monitor.validation(4, replace(GOOD, psnr_y_db=23.5))) == ["below-bicubic"]


def test_sentences_for_people_have_no_braces() -> None:
    (finding,) = adversarial().validation(2, replace(GOOD, consistency_db=30.0))
    assert "only 30.0 dB against it, where 35 dB is acceptable" in finding.sentence
    assert "{" not in finding.sentence
