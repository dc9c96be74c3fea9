"""Numbers in sentences: no unit is shown past its end, and nouns agree with their counts."""

from __future__ import annotations

import pytest

from srgan_cli import wording
from srgan_cli.runlog.curves import _length
from srgan_cli.runlog.scales import number


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"), (59.94, "59.9 s"), (59.97, "1 min 00 s"), (185, "3 min 05 s"), (59.6 * 60, "59 min 36 s"),
        (3599.6, "1 h 00 min"), (3659.6, "1 h 01 min"), (7199, "2 h 00 min"), (7620, "2 h 07 min"),
    ],
)  # fmt: skip
def test_a_duration_ends_where_the_next_unit_begins(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(7.4, "7 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min")]
)
def test_so_does_an_estimate(seconds: float, words: str) -> None:
    assert wording.about(seconds) == f"about {words}"


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"), (999, "999 B"), (999.96, "1 kB"), (999.4e3, "999 kB"), (999.96e3, "1 MB"), (1.2e9, "1.2 GB"),
        (999.9e9, "1 TB"), (1234e12, "1,230 TB"),
    ],
)  # fmt: skip
def test_a_size_never_has_an_exponent(count: float, words: str) -> None:
    assert wording.size(count) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0.0 MP"), (994_000, "0.99 MP"), (996_000, "1.0 MP"), (999_960, "1.0 MP")]
)
def test_a_million_pixels_have_one_form(count: float, words: str) -> None:
    assert wording.megapixels(count) == words


@pytest.mark.parametrize(("fraction", "words"), [(0, "0%"), (0.29, "29%"), (0.9995, "99%"), (1, "100%")])
def test_only_what_is_done_is_at_100_percent(fraction: float, words: str) -> None:
    assert wording.percent_done(fraction) == words


def test_nouns_and_verbs_agree_with_their_counts() -> None:
    assert [wording.counted(n, "picture") for n in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
    assert [wording.are(n) for n in (0, 1, 2)] == ["are", "is", "are"]
    assert wording.none_of(1, "pair", "be read") == "the only pair cannot be read"
    assert wording.none_of(3, "pair", "be read") == "none of the 3 pairs can be read"


def test_numbers_of_charts_round_up_to_the_next_size() -> None:
    assert [number(value) for value in (9.99, 9.996, 99.994, 99.996, 999.96)] == [
        "9.99", "10.00", "99.99", "100.0", "1000",
    ]  # fmt: skip
    assert [_length(value) for value in (119.4, 119.7, 7196, 7199)] == [
        "119 s in total", "2.0 min in total", "119.9 min in total", "2.0 h in total",
    ]  # fmt: skip
