"""Grey and transparent pictures, and the colour lock."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from srgan_cli.engine.upscaler import Upscaler
from tests.engine.engines import CHAINS, WHOLE, Pixels, fp32, noise, running_on
from tests.faults import (
    Blurring,
    Cast,
    Nearest,
    model_of,
    tiny_model,
)

LUMA = np.array([0.299, 0.587, 0.114])  # BT.601

# ------------------------------------------------------------------------------------------------ grey and transparency


@pytest.mark.parametrize("tile_px", [5, WHOLE])
@pytest.mark.parametrize("color_lock", [True, False])
def test_grey_stays_grey_and_is_the_luma_of_what_the_network_made(tile_px: int, color_lock: bool) -> None:
    model = tiny_model("srresnet", 4)  # its three channels differ
    grey = noise(20, 14, 1)
    high = Upscaler(model, fp32(tile_px, color_lock=color_lock)).upscale(grey)
    assert high.shape == (80, 56, 1)
    rgb = Upscaler(model, fp32(color_lock=color_lock)).upscale(grey.repeat(3, 2)).astype(float)
    luma = rgb @ np.array([0.299, 0.587, 0.114])
    inside = ((rgb > 0) & (rgb < 255)).all(2)  # where nothing was clipped
    assert np.abs(high[..., 0] - luma)[inside].max() <= 1.01


@settings(max_examples=24)
@given(
    value=st.integers(0, 65535), depth=st.sampled_from([8, 16]), channels=st.sampled_from([2, 4]),
    tile_px=st.sampled_from([7, 64]), kind=st.sampled_from(["host", "ahead", "batches", "blended"]),
)  # fmt: skip
@example(value=65535, depth=8, channels=4, tile_px=7, kind="blended")
@example(value=0, depth=16, channels=4, tile_px=7, kind="host")
def test_constant_alpha_stays_exactly_constant(value: int, depth: int, channels: int, tile_px: int, kind: str) -> None:
    dtype = np.uint8 if depth == 8 else np.uint16
    value = value >> 8 if depth == 8 else value
    low = noise(19, 90, channels, dtype)
    low[..., -1] = value
    model = model_of(Nearest(halo_px=None)) if kind == "blended" else tiny_model("compact", 2, features=4)
    with running_on(kind):
        high = Upscaler(model, fp32(tile_px)).upscale(low)
    assert (high[..., -1] == value).all()


def test_constant_alpha_costs_nothing() -> None:
    low = noise(20, 20, 4)
    low[..., -1] = 255
    model = tiny_model("compact", 2)
    high = Upscaler(model, fp32()).upscale(low)
    assert np.array_equal(high[..., :3], Upscaler(model, fp32()).upscale(low[..., :3]))


def test_alpha_where_opaque_and_where_transparent_stays_so() -> None:
    low = np.full((40, 40, 4), 255, np.uint8)
    low[:, 20:, 3] = 0
    high = Upscaler(tiny_model("compact", 4, features=4), fp32(11)).upscale(low)
    assert (high[:, :72, 3] == 255).all()
    assert (high[:, 88:, 3] == 0).all()
    assert (np.diff(high[0, 72:88, 3].astype(int)) <= 0).all(), "no ringing"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_alpha_is_enlarged_as_pillow_does_it(scale: int) -> None:
    """Its bicubic has a = -0.5, as good a curve through soft edges as four pixels give; PyTorch's own is -0.75."""
    low = noise(16, 20, 4)
    high = Upscaler(model_of(Nearest(scale)), fp32(7)).upscale(low)
    alpha = Pillow.fromarray(low[..., 3].astype(np.float32))
    expected = np.asarray(alpha.resize((20 * scale, 16 * scale), Pillow.Resampling.BICUBIC)).clip(0, 255)
    assert np.abs(high[..., 3] - expected).max() <= 0.51


def test_a_white_opaque_picture_remains_white_and_opaque() -> None:
    low = np.full((33, 17, 4), 255, np.uint8)
    high = Upscaler(model_of(Blurring()), fp32(8)).upscale(low)
    assert (high == 255).all()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("tile_px", [5, 13, WHOLE])
def test_a_cut_out_has_no_dark_fringe(depth: int, tile_px: int) -> None:
    dtype = np.uint8 if depth == 8 else np.uint16
    top = np.iinfo(dtype).max
    low = np.zeros((40, 40, 4), dtype)  # black is hidden under the transparency
    rows, columns = np.mgrid[0:40, 0:40]
    disc = (rows - 20) ** 2 + (columns - 20) ** 2 < 12**2
    low[disc] = (top, top * 3 // 4, top // 4, top)
    high = Upscaler(model_of(Blurring()), fp32(tile_px)).upscale(low).astype(float) / top
    seen = high[..., 3] > 0
    assert np.abs(high[seen][:, :3] - (1, 0.75, 0.25)).max() < 0.02


def test_hidden_colours_are_not_seen_through_a_soft_edge() -> None:
    low = np.full((30, 30, 2), 200, np.uint8)
    low[:, 10:] = (0, 0)
    low[:, 9, 1] = 90
    high = Upscaler(model_of(Blurring()), fp32(6)).upscale(low)
    assert (np.abs(high[..., 0].astype(int) - 200)[high[..., 1] > 0] <= 1).all()


# ----------------------------------------------------------------------------------------------------------- color lock


def box_mean(high: Pixels, scale: int) -> Pixels:
    height, width = high.shape[0] // scale, high.shape[1] // scale
    return high.reshape(height, scale, width, scale, -1).astype(float).mean((1, 3))


def smooth_picture(height: int = 64, width: int = 48) -> Pixels:
    rows, columns = np.mgrid[0:height, 0:width] / 64
    return (60 + 120 * np.stack([rows, columns, (rows + columns) / 2], -1)).astype(np.uint8)


def test_color_lock_brings_the_inputs_colours_back() -> None:
    low = smooth_picture()
    cast = model_of(Cast())
    off = box_mean(Upscaler(cast, fp32(color_lock=False)).upscale(low), 4) - low
    on = box_mean(Upscaler(cast, fp32(20, color_lock=True)).upscale(low), 4) - low
    assert np.abs(off.mean((0, 1))).max() > 20
    assert np.abs(on.mean((0, 1))).max() < 0.5
    assert np.abs(on).max() < 2


def test_color_lock_leaves_texture_alone() -> None:
    low = smooth_picture()
    model = tiny_model("compact", 4)
    off = Upscaler(model, fp32(color_lock=False)).upscale(low).astype(float)
    on = Upscaler(model, fp32(color_lock=True)).upscale(low).astype(float)
    change = (on - off) @ LUMA
    unclipped = np.all((on > 0) & (on < 255) & (off > 0) & (off < 255), axis=2)
    steps = np.abs(np.diff(change, axis=1))[unclipped[:, 1:] & unclipped[:, :-1]]
    assert steps.max() < 4, "the correction itself is smooth"


@pytest.mark.parametrize("chain", ["compact x3", "srresnet x4", "x2 then x4"])
@pytest.mark.parametrize("tile_px", [7, WHOLE])
def test_color_lock_lets_no_colour_in_that_is_not_near(chain: str, tile_px: int) -> None:
    """True for any network: these have random weights."""
    low = np.random.default_rng(3).integers(100, 140, (24, 21, 3)).astype(np.uint8)
    low[:, 10:] = low[:, 10:, :1]  # grey
    upscaler = Upscaler(CHAINS[chain], fp32(tile_px, color_lock=True))
    high, scale = upscaler.upscale(low).astype(float), upscaler.scale
    unclipped = np.all((high > 0) & (high < 255), axis=2)
    assert unclipped.mean() > 0.2
    for color in (0, 2):
        near = cv2.copyMakeBorder(low[..., color] - low @ LUMA, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
        around = np.lib.stride_tricks.sliding_window_view(near, (3, 3))
        least, largest = (np.kron(bound, np.ones((scale, scale))) for bound in (around.min((2, 3)), around.max((2, 3))))
        found = high[..., color] - high @ LUMA
        assert ((found >= least - 1.01) & (found <= largest + 1.01))[unclipped].all()
    grey = high[:, 11 * scale :]
    assert (np.ptp(grey, axis=2) <= 1).all()


@pytest.mark.parametrize(("adversarial", "asked", "on"), [
    (True, None, True), (False, None, False), (True, False, False), (False, True, True),
])  # fmt: skip
def test_color_lock_is_on_for_adversarial_weights_or_when_asked(
    adversarial: bool, asked: bool | None, on: bool
) -> None:
    model = tiny_model("compact", 2, adversarial=adversarial)
    assert Upscaler(model, fp32(color_lock=asked)).chain.color_lock is on
