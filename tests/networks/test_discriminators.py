"""Each discriminator against its formula in float64 numpy, and the requirements of adversarial training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from srgan_cli.errors import SettingsError
from srgan_cli.networks.discriminators import Discriminator, DiscriminatorKind, build_discriminator
from srgan_cli.networks.generators import build

Array = npt.NDArray[np.float64]
KINDS: tuple[DiscriminatorKind, ...] = ("vgg", "patch", "unet")


def made(kind: DiscriminatorKind, channels: int = 2, crop_px: int = 16, seed: int = 0) -> Discriminator:
    """In float64, with biases and norms that are not 0 and 1, so that leaving one out would show."""
    torch.manual_seed(seed)
    discriminator = build_discriminator(kind, channels, crop_px).double()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return discriminator


def pictures(crop_px: int = 16, count: int = 3, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, crop_px, crop_px, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- the formulas, in numpy


def convolved(x: Array, weight: Array, bias: Array | None, stride: int) -> Array:
    kernel = weight.shape[-1]
    margin = (kernel - 1) // 2
    x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]
    result = np.einsum("nchwij,ocij->nohw", windows, weight)
    return result if bias is None else result + bias[:, None, None]


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x)


def normalised(x: Array, gain: Array, shift: Array) -> Array:
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * gain[:, None, None] + shift[:, None, None]


def doubled(x: Array) -> Array:
    """Bilinear: a pixel's halves lie a quarter towards its neighbours."""
    for axis in (2, 3):
        before = np.concatenate([x.take([0], axis), x], axis).take(range(x.shape[axis]), axis)
        after = np.concatenate([x, x.take([-1], axis)], axis).take(range(1, x.shape[axis] + 1), axis)
        pair = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pair.reshape([*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]])
    return x


class Plain:
    """A discriminator's numbers by name, and its layers by formula."""

    def __init__(self, discriminator: Discriminator) -> None:
        self.numbers = {key: tensor.detach().numpy() for key, tensor in discriminator.state_dict().items()}

    def conv(self, x: Array, name: str, stride: int = 1) -> Array:
        weight, bias = self.numbers[f"{name}.weight"], self.numbers.get(f"{name}.bias")
        if f"{name}.left" in self.numbers:
            matrix = weight.reshape(len(weight), -1)
            weight = weight / (self.numbers[f"{name}.left"] @ matrix @ self.numbers[f"{name}.right"])
        return convolved(x, weight, bias, stride)

    def dense(self, x: Array, name: str) -> Array:
        return x @ self.numbers[f"{name}.weight"].T + self.numbers[f"{name}.bias"]

    def vgg(self, x: Array) -> list[Array]:
        layers = []
        for place in range(8):
            x = self.conv(x, f"convs.{place}", 2 if place % 2 else 1)
            if place:
                x = normalised(x, self.numbers[f"norms.{place}.weight"], self.numbers[f"norms.{place}.bias"])
            x = leaky(x)
            layers.append(x)
        layers.append(leaky(self.dense(x.reshape(len(x), -1), "dense")))
        return [*layers, self.dense(layers[-1], "last")]

    def patch(self, x: Array) -> list[Array]:
        layers = []
        for place, stride in enumerate((2, 2, 2, 1)):
            x = leaky(self.conv(x, f"convs.{place}", stride))
            layers.append(x)
        return [*layers, self.conv(x, "last")]

    def unet(self, x: Array) -> list[Array]:
        x0 = leaky(self.conv(x, "first"))
        x1 = leaky(self.conv(x0, "down.0", 2))
        x2 = leaky(self.conv(x1, "down.1", 2))
        x3 = leaky(self.conv(x2, "down.2", 2))
        y2 = leaky(self.conv(doubled(x3), "up.0"))
        y1 = leaky(self.conv(doubled(y2 + x2), "up.1"))
        y0 = leaky(self.conv(doubled(y1 + x1), "up.2"))
        z1 = leaky(self.conv(y0 + x0, "smooth.0"))
        z2 = leaky(self.conv(z1, "smooth.1"))
        return [x0, x1, x2, x3, y2, y1, y0, z1, z2, self.conv(z2, "last")]


@pytest.mark.parametrize("kind", KINDS)
def test_each_is_its_formula(kind: DiscriminatorKind) -> None:
    discriminator = made(kind)
    expected = getattr(Plain(discriminator), kind)(2 * pictures().numpy() - 1)
    verdict = discriminator(pictures())
    assert len(verdict.features) == len(expected) - 1
    for ours, theirs in zip([*verdict.features, verdict.logits], expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, atol=1e-12)


def test_the_papers_sizes() -> None:
    discriminator = build_discriminator("vgg", 64, 96)
    shapes = {key: tuple(parameter.shape) for key, parameter in discriminator.named_parameters()}
    widths = [shapes[f"convs.{place}.weight"][0] for place in range(8)]
    assert widths == [64, 64, 128, 128, 256, 256, 512, 512]
    assert shapes["dense.weight"] == (1024, 512 * 6 * 6)
    assert shapes["last.weight"] == (1, 1024)


@pytest.mark.parametrize(("kind", "shape"), [("vgg", (3, 1)), ("patch", (3, 1, 6, 6)), ("unet", (3, 1, 48, 48))])
def test_how_many_verdicts_there_are(kind: DiscriminatorKind, shape: tuple[int, ...]) -> None:
    assert made(kind, crop_px=48)(pictures(48)).logits.shape == shape


def test_a_patch_is_54_px_wide() -> None:
    x = pictures(96, count=1).requires_grad_()
    made("patch")(x).logits[0, 0, 6, 6].backward()
    assert x.grad is not None
    rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 54
    assert (rows[0] + rows[-1]) / 2 == 6 * 8 + 3.5  # the middle of the 8×8 px it stands for


# --------------------------------------------------------------------------------------------------------- in training


@pytest.mark.parametrize("kind", ["patch", "unet"])
def test_spectral_norms_become_1_and_only_advance_moves_them(kind: DiscriminatorKind) -> None:
    discriminator = made(kind, channels=4)
    for _ in range(400):
        discriminator.advance()
    before = {key: tensor.clone() for key, tensor in discriminator.state_dict().items()}
    discriminator.train()(pictures())
    for key, tensor in discriminator.state_dict().items():
        assert torch.equal(tensor, before[key])
    for name in [key.removesuffix(".left") for key in before if key.endswith(".left")]:
        matrix = before[f"{name}.weight"].flatten(1).numpy()
        estimate = before[f"{name}.left"].numpy() @ matrix @ before[f"{name}.right"].numpy()
        assert estimate == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-5)


def test_one_advance_follows_small_steps() -> None:
    discriminator = made("patch", channels=8)
    conv: Any = discriminator.convs[1]  # type: ignore[index]
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        with torch.no_grad():
            conv.weight += 1e-3 * torch.randn(conv.weight.shape, generator=generator, dtype=torch.float64)
        discriminator.advance()
    matrix = conv.weight.detach().flatten(1)
    assert float(conv.left @ matrix @ conv.right) == pytest.approx(float(torch.linalg.matrix_norm(matrix, 2)), rel=0.02)


def test_gradients_of_an_earlier_pass_survive_an_advance() -> None:
    discriminator = made("patch")
    total = discriminator(pictures()).logits.sum()
    discriminator.advance()
    total.backward()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_pass_through_frozen_weights(kind: DiscriminatorKind) -> None:
    discriminator = made(kind).requires_grad_(False)
    x = pictures().requires_grad_()
    discriminator(x).logits.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in discriminator.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_all_weights_get_finite_gradients_in_half_precision(kind: DiscriminatorKind) -> None:
    discriminator = made(kind).float()
    with torch.autocast("cpu", torch.bfloat16):
        half = discriminator(pictures().float()).logits
    assert half.dtype == torch.bfloat16
    whole = discriminator(pictures().float()).logits.detach()
    assert (half - whole).abs().max() < 0.05 * max(1.0, float(whole.abs().max()))
    half.float().square().mean().backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_the_fresh_weights(kind: DiscriminatorKind) -> None:
    first, second, other = (made(kind, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(("kind", "crop_px"), [("vgg", 24), ("vgg", 0), ("patch", 20), ("unet", 4)])
def test_crops_that_cannot_be_cut_down_are_refused(kind: DiscriminatorKind, crop_px: int) -> None:
    with pytest.raises(SettingsError, match=f"the {kind} discriminator needs crops of a multiple of"):
        build_discriminator(kind, 2, crop_px)


def test_other_sizes_than_built_for() -> None:
    with pytest.raises(SettingsError, match=r"judges only crops of 16 px, not 32×32; .*small_crop_px"):
        made("vgg", crop_px=16)(pictures(32))
    with pytest.raises(SettingsError, match="multiples of 8 px, not 20×20"):
        made("unet", crop_px=16)(pictures(20))
    assert made("unet", crop_px=16)(pictures(32)).logits.shape == (3, 1, 32, 32)


def test_a_patch_discriminator_is_cheap_beside_the_generator() -> None:
    def operations(network: torch.nn.Module, x: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            result = network(x)
            (result.logits if isinstance(network, Discriminator) else result).sum().backward()
        return counter.get_total_flops()

    generator = build("compact", {"scale": 4, "features": 64, "blocks": 8})
    ours = operations(build_discriminator("patch", 32, 128), torch.zeros(1, 3, 128, 128))
    assert ours < 0.25 * operations(generator, torch.zeros(1, 3, 32, 32))
