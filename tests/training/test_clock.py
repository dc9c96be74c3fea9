"""The time of a run: sessions add up, and the schedules cover the time from the first step to the reserve."""

from __future__ import annotations

import pytest

from srgan_cli.training import clock as clock_module
from srgan_cli.training.clock import Clock
from srgan_cli.training_config import TrainConfig


class Hands:
    """What the clock reads; a test moves it."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr(clock_module, "time", hands)
    return hands


def test_a_session_goes_on_where_the_last_one_ended(hands: Hands) -> None:
    first = Clock(TrainConfig(budget_s=100.0))
    hands.now_s += 10
    first.begin()
    hands.now_s += 20
    kept = first.values
    assert kept == {"elapsed_s": 30.0, "begun_s": 10.0}
    hands.now_s += 500  # the machine was off
    second = Clock(TrainConfig(budget_s=100.0))
    hands.now_s += 5
    second.resume(**kept)
    assert second.elapsed_s == 35.0
    assert second.earlier_s == 30.0
    assert second.fraction(7) == pytest.approx((35 - 10) / (100 - 10))
    assert second.fraction_at(7, 10.0) == 0.0


def test_the_schedules_end_before_what_is_kept_back(hands: Hands) -> None:
    clock = Clock(TrainConfig(budget_s=100.0))
    clock.begin()
    clock.keep_back(20.0)
    hands.now_s += 40
    assert clock.fraction(1) == pytest.approx(0.5)
    hands.now_s += 39
    assert clock.fraction(1) < 1.0
    with clock.step():
        hands.now_s += 0.5
    assert clock.fraction(2) < 1.0
    hands.now_s += 0.3
    assert clock.fraction(2) == 1.0  # less than half a step is left
    assert clock.seconds_left(2, 2.0) == pytest.approx(100 - 79.8)


def test_a_number_of_steps_knows_no_time(hands: Hands) -> None:
    clock = Clock(TrainConfig(steps=8))
    hands.now_s += 1e6
    assert clock.fraction(2) == 0.25
    assert clock.seconds_left(2, 3.0) == pytest.approx(2.0)
