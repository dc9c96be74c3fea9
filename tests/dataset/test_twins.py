"""Names of pairs, as data sets and programs write them."""

from __future__ import annotations

import pytest

from srgan_cli.dataset.twins import Twins


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("0801", "0801"), ("0801", "0801x4"), ("0801", "0801_x4"), ("0801", "0801-x4"), ("img", "img_LR"),
        ("img", "img_lr"), ("img_HR", "img_LR"), ("img_HR", "img"), ("img_HR", "img_x4"), ("img", "img_bicLRx4"),
        ("img", "img_LRx4"), ("img", "img_bicx4"), ("img_001_SRF_4_HR", "img_001_SRF_4_LR"), ("a/b/img", "a/b/imgx4"),
        ("img", "img_LRBI_x4"), ("Foto 1", "Foto 1_X4"), ("img_GT", "img_LR"),
    ],
)  # fmt: skip
def test_known_names_are_pairs(high: str, low: str) -> None:
    assert Twins([("other", "no"), (low, "yes"), ("imgs", "no")], 4).of(high) == ["yes"]


@pytest.mark.parametrize(
    ("high", "low"),
    [
        ("0801", "0801x2"), ("0801", "0802x4"), ("img", "imgLR"), ("a/img", "b/img"), ("img_SRF_2_HR", "img_SRF_4_LR"),
        ("HR", "x4"), ("img", "img_x44"), ("box", "boxx2"), ("img_001", "img_0011"),
    ],
)  # fmt: skip
def test_others_are_none(high: str, low: str) -> None:
    assert Twins([(low, "no")], 4).of(high) == []


def test_the_very_name_goes_first_and_doubles_are_told() -> None:
    twins = Twins([("a", 1), ("ax4", 2), ("b_LR", 3), ("bx4", 4)], 4)
    assert twins.of("a") == [1]
    assert twins.of("b") == [3, 4]
