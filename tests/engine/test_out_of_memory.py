"""Out of memory: the tile becomes smaller, and nothing else changes."""

from __future__ import annotations

import gc
import weakref
from typing import Any, cast

import numpy as np
import pytest
import torch

from srgan_cli.config import EngineOptions
from srgan_cli.engine import bands
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError, OutOfMemoryError
from tests.engine.engines import doubled, fp32, largest_difference, noise, running_on
from tests.faults import (
    CountingRows,
    Log,
    Nearest,
    OutOfMemoryAbove,
    Raising,
    WrongInHalf,
    model_of,
    tiny_model,
)


@pytest.mark.parametrize("kind", ["host", "ahead", "batches"])
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


class Holding(Nearest):
    """Holds memory of its own when it runs out, as layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.held, self.still_held = Log(), Log()

    def subpixels(self, low: torch.Tensor) -> torch.Tensor:
        self.still_held.append(any(one() is not None for one in self.held))
        features = low + 0
        if low.shape[2] * low.shape[3] > 40 * 40:
            self.held.append(weakref.ref(features))
            raise torch.OutOfMemoryError("no")
        return super().subpixels(features)


@pytest.mark.parametrize("kind", ["host", "ahead", "batches"])
def test_memory_is_free_again_before_a_smaller_tile_is_tried(kind: str) -> None:
    network, low = Holding(), noise(64, 128)
    upscaler = Upscaler(model_of(network), fp32(64))
    gc.collect()
    gc.disable()  # nothing must wait for it
    try:
        with running_on(kind):
            high = upscaler.upscale(low)
    finally:
        gc.enable()
    assert np.array_equal(high, doubled(low))
    assert network.held
    assert not any(network.still_held)


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
    cast(Any, upscaler.chain._prepared[0]).network.subpixels = subpixels
    high = upscaler.upscale(noise(90, 80))
    assert upscaler.statistics.out_of_memory >= 1
    assert largest_difference(high, exact) <= 1


@pytest.mark.parametrize("kind", ["host", "ahead", "batches", "blended"])
@pytest.mark.parametrize("tile_px", [None, 64, 256])
def test_out_of_memory_at_any_size_is_an_error(kind: str, tile_px: int | None) -> None:
    network = OutOfMemoryAbove(100, halo_px=None if kind == "blended" else 0)
    with running_on(kind), pytest.raises(OutOfMemoryError, match="memory") as caught:
        Upscaler(model_of(network), fp32(tile_px)).upscale(noise(200, 200))
    assert caught.value.exit_code == 5


def test_out_of_memory_in_the_canary_is_an_error_too(fast_bf16: None) -> None:
    with pytest.raises(OutOfMemoryError, match="memory"):
        Upscaler(model_of(OutOfMemoryAbove(100)), EngineOptions("cpu", tile_px=16))


@pytest.mark.parametrize("kind", ["host", "ahead", "batches", "blended"])
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
    monkeypatch.setattr(bands.HostRunner, "start", lambda *args: bands.Pending(real(*args).rows, 1, finish, 0))
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
