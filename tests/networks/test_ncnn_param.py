"""ncnn's text: what it says about a network; invalid text is one sentence."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import fold
from srgan_cli.networks.ncnn_format import ncnn_model
from srgan_cli.networks.ncnn_param import parse_param
from tests.faults import tiny_generator
from tests.texts import texts

SMALL = """7767517
5 5
Input        data   0 1 data
Convolution  conv   1 1 data a 0=48 1=3 4=1 5=1 6=1296
ReLU         relu   1 1 a b
PixelShuffle shuf   1 1 b c 0=4
Convolution  last   1 1 c output 0=3 1=5 4=2 5=1 6=225
"""


@pytest.mark.parametrize(
    ("architecture", "config"),
    [("compact", {}), ("compact", {"blocks": 3, "scale": 2}), ("srvgg", {}), ("srresnet", {}),
     ("srresnet", {"scale": 3, "blocks": 2}), ("srresnet", {"scale": 2})],
)  # fmt: skip
def test_the_halo_of_our_networks_is_found_in_their_text(architecture: str, config: dict[str, Any]) -> None:
    network = fold(tiny_generator(architecture, **{"blocks": 1, **config}))
    assert parse_param(ncnn_model(network).param, "x").halo_px == network.halo_px


def test_a_convolution_at_high_resolution_sees_less() -> None:
    assert parse_param(SMALL, "x").halo_px == 2  # 1 px, and 2 of a quarter
    assert parse_param(SMALL, "x").values_per_px == 48 + 48


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1=3 4=1", "1=3 3=2 4=1"),
        ("1=3 4=1", "1=4 4=1"),
        ("ReLU ", "Attention "),
        ("1=3 4=1", "1=3 11=5 4=1"),
        ("1=3 4=1", "1=3 2=-50 4=1"),
        ("1=3 4=1", "1=-3 4=1"),
    ],
)
def test_what_is_not_known_sees_without_bounds(old: str, new: str) -> None:
    assert parse_param(SMALL.replace(old, new), "x").halo_px is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("7767517", "7767518", "first line"),
        ("5 5", "6 5", "announces 6 layers and has 5"),
        ("5 5", "", "not an ncnn .param file"),
        ("1 1 a b", "1 1 z b", "reads z, which no layer"),
        ("1 1 a b", "1 1 a a", "two layers make a"),
        ("1 1 a b", "-1 1 a b", "-1 inputs"),
        ("1 1 a b", "1 9999999 a b", "9999999 outputs"),
        ("1 1 a b", "1 1 a", "lacks blobs"),
        ("0=48", "zero=48", "not an ncnn .param file"),
        ("0=48", f"0={'9' * 400}", "does not fit into 32 bits"),
        ("1 1 c output", "1 2 c output more", "2 outputs"),
    ],
)
def test_nonsense_is_a_sentence(old: str, new: str, says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        parse_param(SMALL.replace(old, new, 1), "x4.param")


@pytest.mark.parametrize(("kind", "inputs"), [("PixelShuffle", 1), ("Concat", 1000)])
def test_layers_that_grow_without_end_are_refused(kind: str, inputs: int) -> None:
    count = 200
    lines = [f"{kind} l{i} {inputs} 1 {f'b{i} ' * inputs} b{i + 1} 0={64 if inputs == 1 else 0}" for i in range(count)]
    text = "\n".join(["7767517", f"{count + 1} {count + 1}", "Input data 0 1 b0", *lines])
    with pytest.raises(WeightsError, match="too large"):
        parse_param(text, "x4.param")


@given(texts(max_size=200), st.integers(0, len(SMALL)), st.integers(0, len(SMALL)))
def test_no_text_at_all_is_anything_but_read_or_refused(text: str, start: int, stop: int) -> None:
    with contextlib.suppress(WeightsError):
        assert parse_param(SMALL[:start] + text + SMALL[stop:], "x4.param").layers
