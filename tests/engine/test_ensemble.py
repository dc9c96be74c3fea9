"""The mean over eight mirrored and turned copies: the same with and without tiles, turned with its picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from srgan_cli.config import EngineOptions
from srgan_cli.engine import bands
from srgan_cli.engine.backends.pytorch import PyTorch
from srgan_cli.engine.ensemble import Ensemble
from srgan_cli.engine.rows import ArrayRows
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.reading import read_image
from srgan_cli.networks.weights import load_model
from tests.engine.engines import CHAINS, WHOLE, Pixels, fp32, largest_difference, noise, running_on
from tests.engine.test_variation import model as noisy_model
from tests.faults import Nearest, model_of, tiny_model

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "coffee.png"


def averaged(tile_px: int = WHOLE) -> EngineOptions:
    return replace(fp32(tile_px), ensemble=True)


def turned(picture: Pixels, number: int) -> Pixels:
    mirrored = picture[:, ::-1] if number & 4 else picture
    return np.ascontiguousarray(np.rot90(mirrored, number & 3))


@pytest.mark.parametrize("name", [name for name, models in CHAINS.items() if len(models) == 1])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_it_is_the_mean_of_the_results_for_the_turned_pictures(name: str, channels: int) -> None:
    """Up to rounding, and where nothing overshoots: the mean is taken before the colours are limited."""
    low = noise(13, 9, channels, np.uint16) // 2 + 16384
    plain = Upscaler(CHAINS[name], fp32())
    results = [turned_back(plain.upscale(turned(low, number)), number).astype(float) for number in range(8)]
    mean = Upscaler(CHAINS[name], averaged()).upscale(low)
    inside = np.logical_and.reduce([(one > 0) & (one < 65535) for one in results])
    assert inside.sum() > 100
    assert np.abs(mean - np.mean(results, axis=0))[inside].max() <= 2


def turned_back(picture: Pixels, number: int) -> Pixels:
    back = np.rot90(picture, -(number & 3))
    return back[:, ::-1] if number & 4 else back


@pytest.mark.parametrize("name", CHAINS)
def test_a_turned_picture_has_a_turned_result_and_tiles_change_nothing(name: str) -> None:
    low = noise(40, 23)
    whole = Upscaler(CHAINS[name], averaged()).upscale(low)
    tiled = Upscaler(CHAINS[name], averaged(16))
    for number in (0, 3, 6):
        assert largest_difference(turned_back(tiled.upscale(turned(low, number)), number), whole) <= 1
    assert largest_difference(whole, Upscaler(CHAINS[name], fp32()).upscale(low)) > 1


@pytest.mark.parametrize("kind", ["ahead", "batches"])
def test_other_runners_give_the_same(kind: str) -> None:
    low = noise(60, 50, 4)
    upscaler = Upscaler(tiny_model("compact", 2), averaged(16))
    whole = upscaler.upscale(low)
    with running_on(kind):
        assert largest_difference(upscaler.upscale(low), whole) <= 1


def test_models_whose_tiles_are_blended_and_grey_ones() -> None:
    low = noise(90, 70)
    blended = Upscaler(model_of(Nearest(2, halo_px=None)), averaged(64)).upscale(low)
    assert np.array_equal(blended, low.repeat(2, 0).repeat(2, 1))


def test_noise_is_not_averaged() -> None:
    low = noise(20, 30)
    upscaler = Upscaler(noisy_model(), averaged())
    assert not upscaler.has_noise
    assert upscaler.varied(5) is upscaler
    silent = Upscaler(noisy_model(), fp32()).varied(0, 0.0)
    assert largest_difference(upscaler.upscale(low), silent.upscale(low)) > 0
    assert np.array_equal(upscaler.upscale(low), upscaler.upscale(low))


def test_a_tile_that_overflows_is_averaged_again_in_fp32() -> None:
    chain = Upscaler(tiny_model("compact", 2), averaged()).chain
    exact = chain.exact()
    assert exact.is_ensemble
    picture = torch.rand(1, 3, 8, 9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(exact.high(picture), chain.high(picture))


def test_progress_goes_through_all_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    upscaler, low = Upscaler(CHAINS["x2 then x4"], averaged()), noise(40, 30)
    reports: list[int] = []
    high = np.zeros((40 * 8, 30 * 8, 3), np.uint8)
    upscaler.upscale_rows(ArrayRows(low), high, on_part=reports.append)
    assert reports == sorted(reports)
    assert reports[-1] == 40 * 30
    assert len(set(reports)) > 30
    assert max(np.diff([0, *reports])) < 40 * 30 / 8, "each copy has its share"


def test_an_error_leaves_no_report_behind() -> None:
    class Failing:
        shuffle, work, on_fraction = 2, 1, None

        def subpixels(self, _low: Tensor) -> Tensor:
            raise RuntimeError("a fault was injected")

    one = Failing()
    ensemble = Ensemble(one, one)
    ensemble.on_fraction = lambda _fraction: None
    with pytest.raises(RuntimeError):
        ensemble.subpixels(torch.zeros(1, 3, 4, 4))
    assert one.on_fraction is None


@pytest.mark.parametrize("name", ["fidelity-x4", "fast-x4"])
def test_it_is_closer_to_the_original(name: str) -> None:
    high = read_image(EXAMPLE, max_pixels=10**7).pixels[:128, 150:278]
    low, model = bicubic(high, 32, 32), load_model(name)
    errors = [
        float(np.square(Upscaler(model, options).upscale(low).astype(float) - high).mean())
        for options in (fp32(), averaged())
    ]
    assert errors[1] < 0.995 * errors[0]


def test_it_needs_no_more_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = []
    real = PyTorch.prepare
    monkeypatch.setattr(PyTorch, "prepare", lambda self, model: prepared.append(model) or real(self, model))
    Upscaler(tiny_model("compact", 2), averaged())
    assert len(prepared) == 1


def test_a_second_upscaler_shares_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, low = tiny_model("compact", 2), noise(30, 20)
    plain = Upscaler(model, fp32(16))
    before = plain.upscale(low)
    with monkeypatch.context() as patch:
        patch.setattr(PyTorch, "prepare", lambda *_: pytest.fail("the networks are there"))
        shared = plain.averaged()
    assert shared.options.ensemble
    assert shared.averaged() is shared
    assert np.array_equal(shared.upscale(low), Upscaler(model, averaged(16)).upscale(low))
    assert np.array_equal(plain.upscale(low), before)
    assert not Upscaler(noisy_model(), fp32()).averaged().has_noise
