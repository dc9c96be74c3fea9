"""The engine on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from srgan_cli.config import EngineOptions
from srgan_cli.engine.rows import ArrayRows
from srgan_cli.engine.upscaler import Upscaler
from tests.engine.engines import CHAINS, cuda, doubled, fp32, largest_difference, noise
from tests.faults import (
    Blurring,
    Nearest,
    OutOfMemoryAbove,
    WrongInHalf,
    model_of,
    tiny_model,
)


@pytest.fixture
def exact_cuda() -> Iterator[None]:
    """TF32 would round the convolutions' inputs to 10 bits."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


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
    high: npt.NDArray[Any] = np.zeros((2800, 3600, channels), dtype)
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
