"""The losses against faults of adversarial generators: `grid`, `spectrum`, `chroma` and `flat`."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

from srgan_cli.training import losses

# ----------------------------------------------------------------------------------------------------------------- grid


def test_grid_is_the_mean_difference_at_each_place_of_a_low_pixel() -> None:
    rng = np.random.default_rng(5)
    result, high = (torch.from_numpy(rng.random((2, 3, 48, 64))) for _ in range(2))
    difference = (result - high).numpy()
    found = []
    for top in (0, 4):  # neighbourhoods of 8 low pixels, 4 apart, in a low picture of 12 × 16
        for left in (0, 4, 8):
            window = difference[:, :, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32]
            places = window.reshape(2, 3, 8, 4, 8, 4).mean(axis=(2, 4))
            found.append(np.abs(places).mean())
    assert float(losses.grid(result, high, 4)) == pytest.approx(np.mean(found), rel=1e-12)


def test_grid_sees_dots_and_lets_detail_pass() -> None:
    torch.manual_seed(0)
    flat = torch.full((1, 3, 64, 64), 0.5)
    dots = flat.clone()
    dots[:, :, ::4, ::4] += 0.16
    noise = flat + 0.04 * torch.randn(1, 3, 64, 64)  # of the same energy
    assert float(losses.grid(dots, flat, 4)) > 2 * float(losses.grid(noise, flat, 4))
    assert float(losses.grid(dots, dots, 4)) == 0.0


# ------------------------------------------------------------------------------------------------------------- spectrum


def test_spectrum_is_the_mean_excess_of_log_power_over_frequencies() -> None:
    rng = np.random.default_rng(6)
    result, high = rng.random((2, 3, 48, 64)), rng.random((2, 3, 48, 64)) / 2
    taper = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(32) / 32)] * 2)

    def mean_log_power(pictures: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        grey = np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], pictures)
        windows = [one[y : y + 32, x : x + 32] for one in grey for y in (0, 16) for x in (0, 16, 32)]
        spectra = [np.abs(np.fft.rfft2((w - w.mean()) * taper)) ** 2 / (taper**2).sum() for w in windows]
        return np.log(np.array(spectra) + 1 / 255**2).mean(axis=0)

    excess = np.maximum(0, mean_log_power(result) - mean_log_power(high)).mean()
    found = losses.spectrum(torch.from_numpy(result), torch.from_numpy(high))
    assert float(found) == pytest.approx(excess, rel=1e-5)
    assert float(found) == pytest.approx(2 * math.log(2), rel=0.1)  # twice the amplitude at every frequency


def test_spectrum_sees_hatching_that_grid_cannot_and_lets_less_detail_pass() -> None:
    torch.manual_seed(0)
    high = 0.5 + 0.02 * torch.randn(2, 3, 64, 64)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    hatching = 0.02 * torch.sin(2 * math.pi * (rows + columns) * 0.41)
    assert float(losses.spectrum(high + hatching, high)) > 0.02
    assert float(losses.spectrum((high + 0.5) / 2, high)) == 0.0
    assert float(losses.grid(high + hatching, high, 4)) < 0.15 * 0.02
    result = (high + hatching).requires_grad_()
    losses.spectrum(result, high).backward()
    assert result.grad is not None
    assert float((result.grad * hatching).sum()) > 0  # downhill is away from the hatching


# -------------------------------------------------------------------------------------------------- colour, flat places


def test_chroma_sees_colour_and_no_luminance() -> None:
    high = torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(losses.chroma(high + 0.1, high)) == pytest.approx(0.0, abs=1e-5)
    red = high + torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)[:, None, None]
    assert float(losses.chroma(red, high)) == pytest.approx((0.0168736 + 0.05) / 2, rel=1e-4)


def test_flat_places_weigh_and_texture_does_not() -> None:
    flat, rng = torch.full((1, 3, 40, 40), 0.5, dtype=torch.float64), torch.Generator().manual_seed(0)
    texture = torch.rand(1, 1, 40, 40, generator=rng, dtype=torch.float64).expand(1, 3, 40, 40)
    assert float(losses.flat(flat + 0.1, flat)) == pytest.approx(0.1, rel=1e-5)
    assert float(losses.flat(texture + 0.1, texture)) < 1e-6
    assert float(losses.flat(texture, texture)) == 0.0
