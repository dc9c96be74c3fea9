"""Half precision, its canary, and tiles that are recomputed in fp32."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch

from srgan_cli.config import EngineOptions
from srgan_cli.engine.backends.pytorch import cpu_convolves
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import SrganError
from tests.engine.engines import doubled, fp32, largest_difference, noise, running_on
from tests.faults import (
    Log,
    Nearest,
    Never,
    WrongInHalf,
    model_of,
    tiny_model,
)


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


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_without_onednn_no_half_precision_is_quick() -> None:
    assert cpu_convolves(torch.float32)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not cpu_convolves(torch.bfloat16)
        assert not cpu_convolves(torch.float16)


def test_a_precision_that_was_named_is_obeyed() -> None:
    upscaler = Upscaler(model_of(WrongInHalf(0.1)), EngineOptions("cpu", "bf16"))
    assert upscaler.compute.precision == "bf16"


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_model_that_cannot_do_half_runs_in_fp32_and_says_why(precision: Any) -> None:
    model = model_of(Nearest(), supports_half=False, supports_bf16=False)
    upscaler = Upscaler(model, EngineOptions("cpu", precision))
    assert upscaler.compute.precision == "fp32"
    assert any(precision in reason for reason in upscaler.compute.reasons)


@pytest.mark.parametrize("kind", ["host", "ahead", "batches", "blended"])
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


class Alone(WrongInHalf):
    """Notes how many windows run at the same time, in all of its copies."""

    def __init__(self) -> None:
        super().__init__(float("nan"), only_bright=True)
        self.running, self.most = Log(), Log()

    def subpixels(self, low: torch.Tensor) -> torch.Tensor:
        self.running.append(1)
        time.sleep(0.02)
        self.most.append(len(self.running))
        self.running.pop()
        return super().subpixels(low)


def test_a_device_never_runs_a_tile_in_half_and_another_in_fp32_at_the_same_time() -> None:
    network, low = Alone(), noise(16, 96)
    low[:, 16:48] = 255
    with running_on("ahead"):
        upscaler = Upscaler(model_of(network), EngineOptions("cpu", "bf16", 16))
        assert np.array_equal(upscaler.upscale(low), doubled(low))
    assert upscaler.statistics.redone_in_fp32 == 2
    assert max(network.most) == 1


@pytest.mark.parametrize("kind", ["host", "ahead", "batches", "blended"])
def test_a_model_that_is_never_finite_is_an_error_and_no_picture(kind: str) -> None:
    model = model_of(Never(halo_px=None if kind == "blended" else 0))
    with running_on(kind), pytest.raises(SrganError, match="finite"):
        Upscaler(model, fp32(64)).upscale(noise(20, 20))
