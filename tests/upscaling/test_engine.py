"""The engine: tiling changes nothing, transparency and grey stay what they are, and what fails is mended or told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from srgan_cli.config import EngineOptions
from srgan_cli.errors import DeviceError, OutOfMemoryError, SrganError
from srgan_cli.networks.weights import Model
from srgan_cli.upscaling import bands, pixels
from srgan_cli.upscaling.backends import protocol, pytorch
from srgan_cli.upscaling.chain import BLEND_PX, Chain
from srgan_cli.upscaling.engine import Upscaler
from srgan_cli.upscaling.rows import ArrayRows
from srgan_cli.upscaling.tiles import cut
from tests.faults import (
    Blurring,
    Cast,
    CountingRows,
    Nearest,
    Never,
    OutOfMemoryAbove,
    Raising,
    WrongInHalf,
    model_of,
    tiny_model,
)

Pixels = np.ndarray[Any, Any]
CPU = torch.device("cpu")
WHOLE = 16384

# Every architecture and scale, and chains of two; tiny, but with all kinds of layers.
CHAINS: dict[str, tuple[Model, ...]] = {
    **{f"compact x{s}": (tiny_model("compact", s),) for s in (2, 3, 4, 8)},
    **{f"srvgg x{s}": (tiny_model("srvgg", s),) for s in (2, 3, 4)},
    **{f"srresnet x{s}": (tiny_model("srresnet", s, features=4),) for s in (2, 3, 4, 8)},
    "srresnet with batch norm": (tiny_model("srresnet", 4, features=4, batch_norm=True),),
    "x2 then x4": (tiny_model("compact", 2), tiny_model("srresnet", 4, features=4)),
    "x4 then x4": (tiny_model("compact", 4, features=4), tiny_model("compact", 4, features=4, seed=1)),
}


def fp32(tile_px: int | None = WHOLE, *, color_lock: bool | None = None) -> EngineOptions:
    return EngineOptions(device="cpu", precision="fp32", tile_px=tile_px, color_lock=color_lock)


def noise(height: int, width: int, channels: int = 3, dtype: type = np.uint8, seed: int = 0) -> Pixels:
    """Every value there is; alpha, where there is one, with fully transparent, opaque and soft parts."""
    random = np.random.default_rng([seed, height, width, channels])
    picture = random.integers(0, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)
    if channels in (2, 4):
        kind = random.integers(0, 3, (-(-height // 5), -(-width // 5))).repeat(5, 0).repeat(5, 1)[:height, :width]
        picture[kind == 0, -1] = 0
        picture[kind == 1, -1] = np.iinfo(dtype).max
    return picture


def largest_difference(a: Pixels, b: Pixels) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max(initial=0))


def doubled(low: Pixels, scale: int = 2) -> Pixels:
    return low.repeat(scale, 0).repeat(scale, 1)


@contextmanager
def running_on(kind: str) -> Iterator[None]:
    """The runner of a GPU, which needs none to be right, or the one the device asks for."""
    with pytest.MonkeyPatch.context() as patch:
        if kind == "batches":
            patch.setattr(bands, "runner", bands.DeviceRunner)
        yield


# ------------------------------------------------------------------------------------------------- tiled equals whole


def float_subpixels(chain: Chain, windows: Pixels) -> torch.Tensor:
    low, alpha = pixels.split(torch.from_numpy(np.ascontiguousarray(windows))[None])
    return chain.subpixels(low if alpha is None else pixels.bleed(low, alpha))


def float_tiles(chain: Chain, low: Pixels, tile_px: int, halo_px: int, *, uniform: bool = False) -> torch.Tensor:
    """The whole picture's subpixels, put together from those of tiles."""
    fold = chain.scale // chain.shuffle
    rows = []
    for y in cut(low.shape[0], tile_px, halo_px, uniform=uniform):
        row = []
        for x in cut(low.shape[1], tile_px, halo_px, uniform=uniform):
            subpixels = float_subpixels(chain, low[y.begin : y.end, x.begin : x.end])
            inside = (slice(s.inner.start * fold, s.inner.stop * fold) for s in (y, x))
            row.append(subpixels[(..., *inside)])
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


def context_px(chain: Chain, channels: int) -> int:
    return chain.halo_px + (pixels.BLEED_PX if channels in (2, 4) else 0)


def enough_px(height: int, width: int, tile_px: int, most: int = 60) -> int:
    """The tile's side, larger where it would make more than `most` tiles: the tests must end."""
    while -(-height // tile_px) * -(-width // tile_px) > most:
        tile_px += 1
    return tile_px


SIZES = st.integers(1, 70)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(CHAINS)), height=SIZES, width=SIZES, tile_px=st.integers(1, 80),
    channels=st.integers(1, 4), color_lock=st.booleans(), uniform=st.booleans(),
)  # fmt: skip
@example(name="srresnet x4", height=1, width=1, tile_px=1, channels=3, color_lock=False, uniform=False)
@example(name="srresnet x8", height=1, width=37, tile_px=1, channels=3, color_lock=True, uniform=True)
@example(name="x2 then x4", height=53, width=1, tile_px=1, channels=4, color_lock=True, uniform=False)
@example(name="x4 then x4", height=7, width=6, tile_px=1, channels=4, color_lock=True, uniform=False)
@example(name="compact x3", height=70, width=70, tile_px=9, channels=4, color_lock=True, uniform=True)
def test_tiled_equals_whole_before_quantisation(
    name: str, height: int, width: int, tile_px: int, channels: int, color_lock: bool, uniform: bool
) -> None:
    chain = Chain(CHAINS[name], pytorch.PyTorch(CPU), color_lock=color_lock)
    low = noise(height, width, channels, np.uint16)
    with torch.inference_mode():
        whole = float_subpixels(chain, low)
        tile_px = enough_px(height, width, tile_px)
        tiled = float_tiles(chain, low, tile_px, context_px(chain, channels), uniform=uniform)
    assert float((tiled - whole).abs().max()) < 1e-5


@pytest.mark.parametrize("name", sorted(CHAINS))
def test_the_test_above_would_see_a_halo_that_is_too_small(name: str) -> None:
    chain = Chain(CHAINS[name], pytorch.PyTorch(CPU), color_lock=False)
    low = noise(48, 48, 3, np.uint16)
    with torch.inference_mode():
        whole = float_subpixels(chain, low)
        # Chains are rounded up network by network, and ×2 and ×3 to whole px: one px less may still be enough.
        tiled = float_tiles(chain, low, 12, chain.halo_px - 2)
    assert float((tiled - whole).abs().max()) > 1e-5


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(CHAINS)), height=SIZES, width=SIZES, tile_px=st.integers(1, 80),
    channels=st.integers(1, 4), dtype=st.sampled_from([np.uint8, np.uint16]),
    color_lock=st.booleans(), kind=st.sampled_from(["host", "batches"]),
)  # fmt: skip
@example(name="srresnet x4", height=1, width=1, tile_px=1, channels=4, dtype=np.uint16, color_lock=True, kind="host")
@example(name="x2 then x4", height=31, width=2, tile_px=1, channels=2, dtype=np.uint8, color_lock=True, kind="batches")
@example(name="compact x2", height=64, width=70, tile_px=8, channels=4, dtype=np.uint16, color_lock=True, kind="host")
def test_tiled_equals_whole_in_the_finished_picture(
    name: str, height: int, width: int, tile_px: int, channels: int, dtype: type, color_lock: bool, kind: str
) -> None:
    low = noise(height, width, channels, dtype)
    whole = Upscaler(CHAINS[name], fp32(color_lock=color_lock)).upscale(low)
    with running_on(kind):
        tile_px = enough_px(height, width, tile_px)
        tiled = Upscaler(CHAINS[name], fp32(tile_px, color_lock=color_lock)).upscale(low)
    scale = int(np.prod([m.scale for m in CHAINS[name]]))
    assert tiled.shape == (height * scale, width * scale, channels)
    assert tiled.dtype == dtype
    assert largest_difference(tiled, whole) <= 1
    if dtype == np.uint16:
        assert np.mean(tiled != whole) < 0.1, "a level in 65,536 is 1.5e-5: few values lie that near to a boundary"


def test_the_finished_picture_is_what_the_network_gave() -> None:
    model = tiny_model("srresnet", 4)
    low = noise(23, 31)
    high = Upscaler(model, fp32(7)).upscale(low)
    with torch.inference_mode():
        expected = model.network(torch.from_numpy(low).permute(2, 0, 1)[None] / 255)[0].clamp(0, 1) * 255
    assert np.abs(high - expected.permute(1, 2, 0).numpy()).max() <= 0.5 + 1e-3


def test_a_bundled_model_too() -> None:
    from srgan_cli import load_model

    model = load_model("fidelity-x4")
    low = noise(50, 61, 3, np.uint16)
    whole = Upscaler(model, fp32()).upscale(low)
    tiled = Upscaler(model, fp32(33)).upscale(low)
    assert largest_difference(tiled, whole) <= 1


def test_models_in_a_chain_run_in_the_order_given() -> None:
    low = noise(9, 9)
    one, two = tiny_model("compact", 2), tiny_model("compact", 3)
    upscaler = Upscaler((one, two), fp32())
    assert upscaler.scale == 6
    middle = Upscaler(one, fp32()).upscale(low)
    # The picture in between is not rounded to 8 bits inside a chain.
    assert largest_difference(upscaler.upscale(low), Upscaler(two, fp32()).upscale(middle)) <= 8


@pytest.mark.parametrize(
    "low",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 5), np.uint8), np.zeros((4, 4, 3), np.float32)],
    ids=["no channels", "five channels", "floats"],
)
def test_arrays_that_are_no_pictures_are_refused(low: Pixels) -> None:
    with pytest.raises(ValueError, match="want"):
        Upscaler(model_of(Nearest()), fp32()).upscale(low)


@pytest.mark.parametrize("kind", ["host", "batches", "blended"])
def test_arrays_of_any_layout_are_taken(kind: str) -> None:
    low = noise(21, 20, 4)
    frozen = low.copy()
    frozen.setflags(write=False)
    model = model_of(Nearest(halo_px=None if kind == "blended" else 0))
    with running_on(kind):
        for view in (low[::-1, ::-1], np.asfortranarray(low), frozen, frozen[:, 3:], frozen[..., :3]):
            high = Upscaler(model, fp32(64)).upscale(view)
            opaque = view[..., -1] > 0 if view.shape[2] == 4 else np.ones(view.shape[:2], bool)
            assert np.array_equal(high[doubled(opaque)][:, :3], doubled(view)[doubled(opaque)][:, :3])
    assert np.array_equal(frozen, low)


# -------------------------------------------------------------------------------------------- grey and transparency


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


@settings(max_examples=40)
@given(
    value=st.integers(0, 65535), depth=st.sampled_from([8, 16]), channels=st.sampled_from([2, 4]),
    tile_px=st.sampled_from([7, 64]), kind=st.sampled_from(["host", "batches", "blended"]),
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


# -------------------------------------------------------------------------------------------------------- color lock


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
    change = on - off
    unclipped = ((on > 0) & (on < 255) & (off > 0) & (off < 255)).all(2)
    steps = np.abs(np.diff(change, axis=1))[unclipped[:, 1:] & unclipped[:, :-1]]
    assert steps.max() < 4, "the correction itself is smooth"


@pytest.mark.parametrize(("adversarial", "asked", "on"), [
    (True, None, True), (False, None, False), (True, False, False), (False, True, True),
])  # fmt: skip
def test_color_lock_is_on_for_adversarial_weights_or_when_asked(
    adversarial: bool, asked: bool | None, on: bool
) -> None:
    model = tiny_model("compact", 2, adversarial=adversarial)
    assert Upscaler(model, fp32(color_lock=asked)).chain.color_lock is on


# ----------------------------------------------------------------------------------------------------- half precision


@pytest.fixture
def fast_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU that multiplies bf16 in hardware, where `auto` takes it."""
    monkeypatch.setattr(pytorch, "cpu_has_fast_bf16", lambda: True)


@pytest.mark.parametrize("architecture", ["compact", "srvgg", "srresnet"])
def test_bf16_is_close_to_fp32(architecture: str) -> None:
    model = tiny_model(architecture, 4)
    low = noise(40, 40)
    exact = Upscaler(model, fp32()).upscale(low).astype(int)
    half = Upscaler(model, EngineOptions("cpu", "bf16", 16)).upscale(low).astype(int)
    assert np.abs(half - exact).mean() < 1.5
    assert np.abs(half - exact).max() < 20


@pytest.mark.usefixtures("fast_bf16")
def test_a_model_that_is_right_in_half_precision_is_run_so() -> None:
    notes: list[str] = []
    upscaler = Upscaler(model_of(WrongInHalf(0.001)), EngineOptions("cpu"), on_note=notes.append)
    assert upscaler.compute.precision == "bf16"
    assert notes == []


@pytest.mark.usefixtures("fast_bf16")
@pytest.mark.parametrize("offset", [0.1, -0.1, 0.006, float("nan"), float("inf")])
def test_the_canary_rejects_a_model_that_half_precision_changes(offset: float) -> None:
    notes: list[str] = []
    upscaler = Upscaler(model_of(WrongInHalf(offset)), EngineOptions("cpu"), on_note=notes.append)
    assert upscaler.compute.precision == "fp32"
    assert len(notes) == 1
    assert "bf16" in notes[0]
    assert notes[0] in upscaler.compute.reasons, "srgan doctor tells it too"
    low = noise(12, 12)
    assert np.array_equal(upscaler.upscale(low), doubled(low))


def test_a_precision_that_was_named_is_obeyed() -> None:
    upscaler = Upscaler(model_of(WrongInHalf(0.1)), EngineOptions("cpu", "bf16"))
    assert upscaler.compute.precision == "bf16"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_model_that_cannot_do_half_runs_in_fp32_and_says_why(precision: Any) -> None:
    model = model_of(Nearest(), supports_half=False, supports_bf16=False)
    upscaler = Upscaler(model, EngineOptions("cpu", precision))
    assert upscaler.compute.precision == "fp32"
    assert any(precision in reason for reason in upscaler.compute.reasons)


@pytest.mark.parametrize("kind", ["host", "batches", "blended"])
@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_a_tile_that_is_not_finite_in_half_is_done_again_in_fp32(kind: str, offset: float) -> None:
    notes: list[str] = []
    model = model_of(WrongInHalf(offset, only_bright=True), input_channels=3)
    if kind == "blended":
        model.network.halo_px = None
        model = model_of(model.network)
    low = noise(130, 260)
    low[:97, :97] = 255  # a whole tile, and its context when blended
    with running_on(kind):
        upscaler = Upscaler(model, EngineOptions("cpu", "bf16", 65), on_note=notes.append)
        high = upscaler.upscale(low)
    assert largest_difference(high, doubled(low)) <= (1 if kind == "blended" else 0)
    assert upscaler.statistics.redone_in_fp32 >= 1
    assert upscaler.statistics.redone_in_fp32 < upscaler.statistics.tiles
    assert len(notes) == 1
    assert "fp32" in notes[0]


@pytest.mark.parametrize("kind", ["host", "batches", "blended"])
def test_a_model_that_is_never_finite_is_an_error_and_no_picture(kind: str) -> None:
    model = model_of(Never(halo_px=None if kind == "blended" else 0))
    with running_on(kind), pytest.raises(SrganError, match="finite"):
        Upscaler(model, fp32(64)).upscale(noise(20, 20))


# ----------------------------------------------------------------------------------------------------- out of memory


@pytest.mark.parametrize("kind", ["host", "batches"])
@pytest.mark.parametrize("error", ["torch", "host", "python"])
def test_out_of_memory_halves_the_tile_and_changes_nothing_else(kind: str, error: str) -> None:
    notes: list[str] = []
    network = OutOfMemoryAbove(40 * 40, error=error)
    low = noise(100, 90)
    with running_on(kind):
        upscaler = Upscaler(model_of(network), fp32(64), on_note=notes.append)
        high = upscaler.upscale(low)
    assert np.array_equal(high, doubled(low))
    assert upscaler.tile_px <= 40
    assert upscaler.statistics.out_of_memory == len(network.refused) == len(notes)
    assert "out of memory" in notes[0]


def test_after_out_of_memory_only_the_failing_band_is_done_again() -> None:
    network = OutOfMemoryAbove(16 * 16)
    low = noise(160, 32)
    source = CountingRows(low)
    high = np.zeros((320, 64, 3), np.uint8)
    upscaler = Upscaler(model_of(network), fp32(32))
    seen: list[int] = []
    network.shapes.clear()
    network.after.append(2)  # two bands go well; then another program takes the memory
    upscaler.upscale_rows(source, high, on_rows=seen.append)
    assert np.array_equal(high, doubled(low))
    assert len(network.refused) == 1
    assert sum(seen) == 160
    assert seen[:2] == [32, 32]
    assert network.shapes[:2] == [(1, 3, 32, 32)] * 2
    assert network.shapes[2:] == [(1, 3, 16, 16)] * 12, "nothing that was done is done again"
    assert source.given == 160


def test_the_smaller_tile_is_remembered_for_the_next_picture() -> None:
    network = OutOfMemoryAbove(50 * 50)
    upscaler = Upscaler(model_of(network), fp32(96))
    low = noise(96, 96)
    upscaler.upscale(low)
    refused = len(network.refused)
    upscaler.upscale(low)
    assert len(network.refused) == refused


def test_out_of_memory_with_a_batch_of_tiles_makes_the_batch_smaller_too() -> None:
    network = OutOfMemoryAbove(3000)
    low = noise(40, 6000, 1)
    with running_on("batches"):
        high = Upscaler(model_of(network), fp32(40)).upscale(low)
    assert np.array_equal(high, doubled(low))


def test_out_of_memory_with_context_around_the_tiles() -> None:
    exact = Upscaler(tiny_model("compact", 2), fp32()).upscale(noise(90, 80))
    model = tiny_model("compact", 2)
    real = model.network.subpixels

    def subpixels(low: torch.Tensor) -> torch.Tensor:
        if low.shape[2] * low.shape[3] > 45 * 45:
            raise torch.OutOfMemoryError("no")
        return real(low)

    upscaler = Upscaler(model, fp32(70))
    upscaler.chain._prepared[0].network.subpixels = subpixels  # type: ignore[method-assign]
    high = upscaler.upscale(noise(90, 80))
    assert upscaler.statistics.out_of_memory >= 1
    assert largest_difference(high, exact) <= 1


@pytest.mark.parametrize("kind", ["host", "batches", "blended"])
@pytest.mark.parametrize("tile_px", [None, 64, 256])
def test_out_of_memory_at_any_size_is_an_error(kind: str, tile_px: int | None) -> None:
    network = OutOfMemoryAbove(100, halo_px=None if kind == "blended" else 0)
    with running_on(kind), pytest.raises(OutOfMemoryError, match="memory") as caught:
        Upscaler(model_of(network), fp32(tile_px)).upscale(noise(200, 200))
    assert caught.value.exit_code == 5


def test_out_of_memory_in_the_canary_is_an_error_too(fast_bf16: None) -> None:
    with pytest.raises(OutOfMemoryError, match="memory"):
        Upscaler(model_of(OutOfMemoryAbove(100)), EngineOptions("cpu", tile_px=16))


@pytest.mark.parametrize("kind", ["host", "batches", "blended"])
@pytest.mark.parametrize("tile_px", [None, 64])
def test_any_other_error_of_the_device_is_told_and_not_tried_again(kind: str, tile_px: int | None) -> None:
    network = Raising(lambda: RuntimeError("CUDA error: an illegal memory access was encountered\nmore"))
    network.halo_px = None if kind == "blended" else 0
    with running_on(kind), pytest.raises(DeviceError, match="illegal memory access") as caught:
        Upscaler(model_of(network), fp32(tile_px)).upscale(noise(90, 90))
    assert not isinstance(caught.value, OutOfMemoryError)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_an_error_when_a_band_is_finished_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA, errors show where the results are waited for."""

    def finish() -> int:
        raise RuntimeError("CUDA error: device-side assert triggered")

    real = bands.HostRunner.start
    monkeypatch.setattr(bands.HostRunner, "start", lambda *args: bands.Pending(real(*args).rows, 1, finish))
    with pytest.raises(DeviceError, match="device-side assert"):
        Upscaler(model_of(Nearest()), fp32(8)).upscale(noise(20, 20))


def test_no_memory_for_the_fp32_redo_of_a_band_gets_a_smaller_tile() -> None:
    """fp32 takes twice the memory of half precision, so a redo may fail where the first try went well."""

    class Both(WrongInHalf):
        def subpixels(self, low: torch.Tensor) -> torch.Tensor:
            if self.weight.dtype == torch.float32 and low.shape[0] * low.shape[2] * low.shape[3] > 60 * 40:
                raise torch.OutOfMemoryError("no")
            return super().subpixels(low)

    low = noise(96, 96)
    low[:] = 255
    with running_on("batches"):
        upscaler = Upscaler(model_of(Both(float("nan"), only_bright=True)), EngineOptions("cpu", "bf16", 64))
        high = upscaler.upscale(low)
    assert np.array_equal(high, doubled(low))


# ------------------------------------------------------------------------------------------------------------ blending


@settings(max_examples=25)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300), tile_px=st.integers(64, 128), channels=st.integers(1, 4),
    scale=st.sampled_from([2, 3]),
)  # fmt: skip
@example(height=65, width=129, tile_px=64, channels=3, scale=2)
@example(height=300, width=33, tile_px=64, channels=3, scale=3)
def test_blending_weights_sum_to_one(height: int, width: int, tile_px: int, channels: int, scale: int) -> None:
    low = noise(height, width, channels)
    if channels in (2, 4):
        low[..., -1] = 255  # alpha is enlarged smoothly, not repeated
    high = Upscaler(model_of(Nearest(scale, halo_px=None)), fp32(tile_px)).upscale(low)
    assert largest_difference(high, doubled(low, scale)) <= (1 if channels <= 2 else 0)


class _ByTile(Nearest):
    """Every tile another brightness, as networks with global statistics make them."""

    def subpixels(self, low: torch.Tensor) -> torch.Tensor:
        subpixels = super().subpixels(low)
        return torch.full_like(subpixels, 0.25 + 0.5 * (len(self.shapes) % 2))


def test_blending_leaves_no_step_between_tiles() -> None:
    high = Upscaler(model_of(_ByTile(halo_px=None)), fp32(64)).upscale(noise(200, 200)).astype(int)
    assert high.max() - high.min() > 100
    most = 128 / (BLEND_PX * 2) + 2  # a linear fade over the strip, with rounding
    assert np.abs(np.diff(high, axis=0)).max() <= most
    assert np.abs(np.diff(high, axis=1)).max() <= most


def test_blending_after_out_of_memory() -> None:
    network = OutOfMemoryAbove(160 * 160, halo_px=None)
    low = noise(400, 300)
    upscaler = Upscaler(model_of(network), fp32(256))
    assert np.array_equal(upscaler.upscale(low), doubled(low))
    assert upscaler.statistics.out_of_memory >= 1


# ----------------------------------------------------------------------------------------------------------- streaming


@pytest.mark.parametrize("kind", ["host", "batches", "blended"])
def test_rows_are_asked_for_in_order_and_no_further_ahead_than_a_band(kind: str) -> None:
    low = noise(500, 24)
    source = CountingRows(low)
    model = model_of(Nearest(halo_px=None)) if kind == "blended" else tiny_model("compact", 2, features=4)
    with running_on(kind):
        upscaler = Upscaler(model, fp32(64))
        high = np.zeros((1000, 48, 3), np.uint8)
        ahead: list[int] = []
        done = 0

        def on_rows(count: int) -> None:
            nonlocal done
            done += count
            ahead.append(source.given - done)

        upscaler.upscale_rows(source, high, on_rows=on_rows)
    assert done == source.given == 500
    # While a band is finished, the next one may run already, with its context.
    assert max(ahead) <= 2 * upscaler.tile_px + upscaler.chain.halo_px
    assert largest_difference(high, Upscaler(model, fp32(64)).upscale(low)) <= 1


def test_few_rows_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(tiny_model("compact", 2, features=4), fp32(32))
    held: list[int] = []
    real = bands.HostRunner.start

    def start(self: bands.HostRunner, low: Pixels, *args: Any) -> bands.Pending:
        held.append(low.shape[0])
        return real(self, low, *args)

    monkeypatch.setattr(bands.HostRunner, "start", start)
    upscaler.upscale_rows(CountingRows(noise(600, 10)), np.zeros((1200, 20, 3), np.uint8))
    assert len(held) == -(-600 // 32)
    assert max(held) <= 32 + 2 * upscaler.chain.halo_px


def test_memory_does_not_grow_with_the_height() -> None:
    """Rows made when asked for: all that is alive are the window's."""

    alive: list[int] = []

    class Rows:
        def __init__(self) -> None:
            self.made: list[Any] = []

        def read_rows(self, count: int) -> Pixels:
            import weakref

            rows = np.zeros((count, 8, 3), np.uint8)
            self.made = [one for one in self.made if one() is not None]
            self.made.append(weakref.ref(rows))
            alive.append(sum(one().shape[0] for one in self.made))
            return rows

    upscaler = Upscaler(tiny_model("compact", 2, features=4), fp32(16))
    upscaler.upscale_rows(Rows(), np.zeros((8000, 16, 3), np.uint8))
    assert max(alive) <= 3 * 16 + 4 * upscaler.chain.halo_px


@pytest.mark.parametrize("first_row", [0, 1, 32, 61, 99])
@pytest.mark.parametrize("kind", ["host", "batches"])
def test_a_run_that_goes_on_leaves_the_rows_above_alone(first_row: int, kind: str) -> None:
    low = noise(100, 70)
    model = tiny_model("compact", 2, features=4)
    with running_on(kind):
        whole = Upscaler(model, fp32()).upscale(low)
        high = np.full_like(whole, 7)
        seen: list[int] = []
        upscaler = Upscaler(model, fp32(32))
        assert upscaler.first_row(first_row) == first_row
        upscaler.upscale_rows(ArrayRows(low), high, on_rows=seen.append, first_row=first_row)
    assert (high[: 2 * first_row] == 7).all()
    assert largest_difference(high[2 * first_row :], whole[2 * first_row :]) <= 1
    assert sum(seen) == 100 - first_row


def test_blended_tiles_begin_again_at_the_top() -> None:
    low = noise(200, 70)
    upscaler = Upscaler(model_of(Nearest(halo_px=None)), fp32(64))
    assert upscaler.first_row(99) == 0
    high = np.full((400, 140, 3), 7, np.uint8)
    upscaler.upscale_rows(ArrayRows(low), high, first_row=99)
    assert np.array_equal(high, doubled(low))


def test_a_run_that_goes_on_does_not_hold_what_it_skips() -> None:
    source = CountingRows(noise(2000, 4))
    high = np.zeros((4000, 8, 3), np.uint8)
    Upscaler(model_of(Nearest()), fp32(32)).upscale_rows(source, high, first_row=1990)
    assert max(source.asked) <= 512


def test_statistics_count_tiles() -> None:
    upscaler = Upscaler(model_of(Nearest()), fp32(10))
    upscaler.upscale(noise(25, 31))
    assert upscaler.statistics.tiles == 3 * 4


def test_eight_bits_may_become_sixteen_and_back() -> None:
    low = noise(10, 10)
    high = np.zeros((20, 20, 3), np.uint16)
    Upscaler(model_of(Nearest()), fp32(4)).upscale_rows(ArrayRows(low), high)
    assert np.array_equal(high, doubled(low).astype(np.uint16) * 257)
    back = np.zeros((20, 20, 3), np.uint8)
    Upscaler(model_of(Nearest()), fp32(4)).upscale_rows(ArrayRows(low.astype(np.uint16) * 257), back)
    assert np.array_equal(back, doubled(low))


# ------------------------------------------------------------------------------------------------------------ devices


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=name) as caught:
        Upscaler(model_of(Nearest()), EngineOptions(name))
    assert caught.value.exit_code == 5


def test_mps_where_there_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="mps"):
        Upscaler(model_of(Nearest()), EngineOptions("mps"))


def test_a_second_gpu_where_there_is_one_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="1 CUDA device"):
        pytorch.choose(EngineOptions("cuda:1"))


def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(pytorch, "cpu_has_fast_bf16", lambda: False)
    slow = pytorch.choose(EngineOptions())
    assert (slow.device, slow.precision) == (CPU, "fp32")
    monkeypatch.setattr(pytorch, "cpu_has_fast_bf16", lambda: True)
    assert pytorch.choose(EngineOptions()).precision == "bf16"
    assert pytorch.choose(EngineOptions(), bf16_ok=False).precision == "fp32"
    assert len(slow.reasons) == 2, "the device and the precision, for srgan doctor"


def test_the_tile_follows_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("srresnet", 4)
    assert model.halo_px is not None

    def tile(free: int) -> int:
        monkeypatch.setattr(pytorch, "free_memory_bytes", lambda _device: free)
        return Upscaler(model, fp32(None)).tile_px

    tiles = [tile(free) for free in (0, 50 << 20, 200 << 20, 1 << 40)]
    assert tiles == sorted(tiles)
    assert tiles[0] >= 16
    assert tiles[1] < tiles[2]
    assert tiles[-1] == tile(1 << 41) <= protocol.MOST_WINDOW_PX - 2 * model.halo_px


def test_a_model_stays_as_it_was() -> None:
    model = tiny_model("compact", 2)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    Upscaler(model, EngineOptions("cpu", "bf16", 8)).upscale(noise(9, 9))
    after = model.network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(value.dtype == torch.float32 for value in after.values())


def test_grey_models_see_each_colour_as_a_grey_picture() -> None:
    class Grey(Nearest):
        def subpixels(self, low: torch.Tensor) -> torch.Tensor:
            assert low.shape[1] == 1
            return super().subpixels(low)

    low = noise(15, 11)
    model = model_of(Grey(), input_channels=1, output_channels=1)
    assert np.array_equal(Upscaler(model, fp32(6)).upscale(low), doubled(low))


# ---------------------------------------------------------------------------------------------------------------- GPU


@pytest.fixture
def exact_cuda() -> Iterator[None]:
    """TF32 would round the convolutions' inputs to 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def cuda(precision: Any = "fp32", tile_px: int | None = 64, *, color_lock: bool | None = None) -> EngineOptions:
    return EngineOptions("cuda", precision, tile_px, color_lock)


@pytest.mark.gpu
@pytest.mark.usefixtures("exact_cuda")
@pytest.mark.parametrize("name", sorted(CHAINS))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_on_a_gpu_tiled_equals_whole_and_the_cpu(name: str, channels: int) -> None:
    low = noise(61, 83, channels, np.uint16)
    whole = Upscaler(CHAINS[name], cuda(tile_px=512, color_lock=True)).upscale(low)
    tiled = Upscaler(CHAINS[name], cuda(tile_px=17, color_lock=True)).upscale(low)
    on_cpu = Upscaler(CHAINS[name], fp32(color_lock=True)).upscale(low)
    # cuDNN takes other algorithms for other sizes, some of them less exact: 2e-4 is a twentieth of a level of 8 bits.
    assert largest_difference(tiled, whole) <= 13
    assert largest_difference(whole, on_cpu) <= 33


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ["compact", "srvgg", "srresnet"])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_on_a_gpu_half_precision_is_close_to_fp32(architecture: str, precision: str) -> None:
    model = tiny_model(architecture, 4)
    low = noise(100, 120)
    exact = Upscaler(model, fp32()).upscale(low).astype(int)
    half = Upscaler(model, cuda(precision)).upscale(low).astype(int)
    assert np.abs(half - exact).mean() < (0.3 if precision == "fp16" else 1.5)
    assert np.abs(half - exact).max() < (4 if precision == "fp16" else 20)


@pytest.mark.gpu
def test_on_a_gpu_auto_is_fp16() -> None:
    upscaler = Upscaler(tiny_model("compact", 4))
    assert upscaler.compute.device.type == "cuda"
    assert upscaler.compute.precision == "fp16"
    assert upscaler.tile_px >= 64


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_on_a_gpu_many_bands_overlap_and_none_is_lost(channels: int, dtype: type) -> None:
    low = noise(700, 900, channels, dtype)
    if channels in (2, 4):
        low[..., -1] = np.iinfo(dtype).max
    upscaler = Upscaler(model_of(Nearest(4)), cuda(tile_px=48))
    seen: list[int] = []
    high = np.zeros((2800, 3600, channels), dtype)
    upscaler.upscale_rows(ArrayRows(low), high, on_rows=seen.append)
    assert largest_difference(high, doubled(low, 4)) <= (1 if channels <= 2 else 0)
    assert sum(seen) == 700
    assert len(seen) == -(-700 // 48)


@pytest.mark.gpu
def test_on_a_gpu_tiles_share_batches() -> None:
    network = Nearest()
    upscaler = Upscaler(model_of(network), cuda(tile_px=16))
    network.shapes.clear()
    upscaler.upscale(noise(32, 160))
    assert max(shape[0] for shape in network.shapes) > 1


@pytest.mark.gpu
@pytest.mark.parametrize("offset", [float("nan"), float("inf")])
def test_on_a_gpu_a_tile_that_is_not_finite_is_done_again(offset: float) -> None:
    low = noise(64, 256)
    low[:32, 32:64] = 255
    upscaler = Upscaler(model_of(WrongInHalf(offset, only_bright=True)), cuda("fp16", 32))
    assert np.array_equal(upscaler.upscale(low), doubled(low))
    assert upscaler.statistics.redone_in_fp32 == 1


@pytest.mark.gpu
def test_on_a_gpu_the_canary_rejects_too() -> None:
    upscaler = Upscaler(model_of(WrongInHalf(0.1)), EngineOptions("cuda"))
    assert upscaler.compute.precision == "fp32"


@pytest.mark.gpu
def test_on_a_gpu_out_of_memory_makes_tiles_smaller() -> None:
    low = noise(256, 900)
    upscaler = Upscaler(model_of(OutOfMemoryAbove(60 * 60)), cuda(tile_px=128))
    assert np.array_equal(upscaler.upscale(low), doubled(low))
    assert upscaler.statistics.out_of_memory >= 1


@pytest.mark.gpu
def test_on_a_gpu_memory_that_is_really_used_up() -> None:
    upscaler = Upscaler(tiny_model("srresnet", 4, features=64), cuda("fp16", 1024))
    low = noise(1024, 4096)
    plain = Upscaler(tiny_model("srresnet", 4, features=64), cuda("fp16", 128)).upscale(low)
    torch.cuda.empty_cache()
    fraction = 3e9 / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(fraction)
    try:
        high = upscaler.upscale(low)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert upscaler.statistics.out_of_memory >= 1
    assert np.abs(high.astype(int) - plain.astype(int)).max() <= 8


@pytest.mark.gpu
def test_on_a_gpu_a_cut_out_has_no_dark_fringe() -> None:
    low = np.zeros((60, 60, 4), np.uint8)
    low[20:40, 20:40] = (250, 200, 150, 255)
    high = Upscaler(model_of(Blurring()), cuda(tile_px=13)).upscale(low).astype(int)
    seen = high[..., 3] > 0
    assert np.abs(high[seen][:, :3] - (250, 200, 150)).max() <= 2


@pytest.mark.gpu
def test_on_a_gpu_blending_leaves_no_seam() -> None:
    low = noise(200, 300)
    high = Upscaler(model_of(Nearest(halo_px=None)), cuda(tile_px=64)).upscale(low)
    assert np.array_equal(high, doubled(low))
