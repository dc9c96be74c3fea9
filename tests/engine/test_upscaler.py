"""The engine: tiled equals whole, rows stream, and devices are chosen."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srgan_cli.config import EngineOptions
from srgan_cli.engine import bands, pixels
from srgan_cli.engine.backends import memory, protocol, pytorch
from srgan_cli.engine.chain import Chain
from srgan_cli.engine.rows import ArrayRows
from srgan_cli.engine.tiles import Span, cut
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError
from tests.engine.engines import CHAINS, Pixels, doubled, fp32, largest_difference, noise, running_on
from tests.faults import (
    CountingRows,
    Log,
    Nearest,
    model_of,
    tiny_model,
)

CPU = torch.device("cpu")


# --------------------------------------------------------------------------------------------------- tiled equals whole


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
            tall, wide = (slice(s.inner.start * fold, s.inner.stop * fold) for s in (y, x))
            row.append(subpixels[..., tall, wide])
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


@settings(max_examples=20)
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


@settings(max_examples=16)
@given(
    name=st.sampled_from(sorted(CHAINS)), height=SIZES, width=SIZES, tile_px=st.integers(1, 80),
    channels=st.integers(1, 4), dtype=st.sampled_from([np.uint8, np.uint16]),
    color_lock=st.booleans(), kind=st.sampled_from(["host", "ahead", "batches"]),
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
    with pytest.raises(ValueError, match="expected"):
        Upscaler(model_of(Nearest()), fp32()).upscale(low)


@pytest.mark.parametrize("kind", ["host", "ahead", "batches", "blended"])
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


# ------------------------------------------------------------------------------------------------------------ streaming


@pytest.mark.parametrize("kind", ["host", "ahead", "batches", "blended"])
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


@pytest.mark.parametrize("followed_px", [1, 10**9])  # within tiles too, or not
@pytest.mark.parametrize("name", ["x2 then x4", "srresnet x4", "srvgg x2", "blended"])
def test_progress_is_reported_within_a_band_and_within_a_tile(
    name: str, followed_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, where a large picture may be a single tile; and the result is the same as without."""
    monkeypatch.setattr(bands, "FOLLOWED_PX", followed_px)
    models = (model_of(Nearest(halo_px=None)),) if name == "blended" else CHAINS[name]
    upscaler, low = Upscaler(models, fp32(100)), noise(150, 210)
    high = np.zeros((150 * upscaler.scale, 210 * upscaler.scale, 3), np.uint8)
    reports: list[list[int]] = [[]]

    def on_rows(_count: int) -> None:
        reports.append([])

    upscaler.upscale_rows(ArrayRows(low), high, on_rows=on_rows, on_part=lambda px: reports[-1].append(px))
    np.testing.assert_array_equal(high, Upscaler(models, fp32(100)).upscale(low))
    assert [len(one) > 0 for one in reports] == [True, True, False]
    for band in reports[:2]:
        assert band == sorted(band)
        ends = {75 * edge for edge in (70, 140, 210)}
        assert set(band) == ends if followed_px > 1 or name == "blended" else len(set(band) - ends) > 5


@pytest.mark.parametrize("kind", ["host", "ahead"])
@pytest.mark.parametrize("is_strip", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, MemoryError, BrokenPipeError, KeyboardInterrupt])
def test_an_exception_from_a_report_ends_the_work_and_is_no_fault_of_the_device(
    kind: str, is_strip: bool, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    upscaler, low = Upscaler(tiny_model("compact", 2, features=4), fp32(32)), noise(32, 96)
    exact, high, seen = upscaler.upscale(low), np.zeros((64, 192, 3), np.uint8), Log()

    def on_part(px: int) -> None:
        seen.append(px)
        if len(seen) == 2:
            raise error("mine")

    def work() -> None:
        if is_strip:
            upscaler.upscale_strip(low, Span(0, 0, 32, 32), high, 32, on_part)
        else:
            upscaler.upscale_rows(ArrayRows(low), high, on_part=on_part)

    with running_on(kind), pytest.raises(error, match="mine"):
        work()
    assert len(seen) == 2
    assert upscaler.statistics.out_of_memory == 0
    assert np.array_equal(upscaler.upscale(low), exact), "it is free for the next picture"
    assert len(seen) == 2, "which is not reported to the last one's caller"


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
@pytest.mark.parametrize("kind", ["host", "ahead", "batches"])
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


# -------------------------------------------------------------------------------------------------------------- devices


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
        monkeypatch.setattr(memory, "free_host_bytes", lambda: free)
        return Upscaler(model, fp32(None)).tile_px

    tiles = [tile(free) for free in (0, 50 << 20, 200 << 20, 1 << 40)]
    assert tiles == sorted(tiles)
    assert tiles[0] >= 16
    assert tiles[1] < tiles[2]
    assert tiles[-1] == tile(1 << 41) <= protocol.MAX_WINDOW_PX - 2 * model.halo_px


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


def test_a_device_beside_the_host_runs_the_next_tile_while_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, started, written = 8, threading.Semaphore(0), Log()

    class Noted(Nearest):
        def subpixels(self, low: torch.Tensor) -> torch.Tensor:
            started.release()
            return super().subpixels(low)

    join = pixels.join

    def joined(*arguments: Any) -> torch.Tensor:
        written.append(len(written))
        following = 2 if len(written) == 1 else 1 if len(written) < tiles else 0
        assert all(started.acquire(timeout=5) for _ in range(following))
        return join(*arguments)

    upscaler = Upscaler(model_of(Noted(2)), fp32(tile_px=16))
    while started.acquire(blocking=False):
        pass
    monkeypatch.setattr(pixels, "join", joined)
    low = noise(10, 16 * tiles)
    with running_on("ahead"):
        assert np.array_equal(upscaler.upscale(low), doubled(low))
    assert len(written) == tiles
