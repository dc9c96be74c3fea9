"""The networks compute what the paper (or their docstring) says, have the stated receptive field, and fold exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.networks import generators, layers
from srgan_cli.networks.generators import (
    SRVGG,
    Compact,
    CompactConfig,
    Generator,
    SRResNet,
    SRResNetConfig,
    SRVGGConfig,
    bilinear_subpixels,
    build,
    fold,
    not_finite,
)
from tests.faults import stirred, tail

SCALES = (2, 3, 4, 8)
TINY: dict[str, dict[str, object]] = {
    "srresnet": {"features": 3, "blocks": 1},
    "compact": {"features": 3, "blocks": 2},
    "srvgg": {"features": 3, "blocks": 2},
}


def tiny(architecture: str, scale: int, **more: object) -> Generator:
    """A small generator in float64 with weights large enough that every path through it counts."""
    torch.manual_seed(scale)
    return stirred(build(architecture, {**TINY[architecture], "scale": scale, **more})).double().eval()


def difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max())


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize("scale", SCALES)
def test_an_output_is_scale_times_as_large(architecture: str, scale: int) -> None:
    generator = tiny(architecture, scale)
    high = generator(torch.rand(2, 3, 5, 7, dtype=torch.float64))
    assert high.shape == (2, 3, 5 * scale, 7 * scale)
    assert generator.scale == scale


def test_the_papers_size() -> None:
    generator = SRResNet(SRResNetConfig(batch_norm=True))
    # 64 features and 16 blocks: counted by hand from fig. 4, biases and one slope per PReLU included.
    block = 2 * (64 * 64 * 9 + 64) + 2 * 2 * 64 + 1
    up = 64 * 256 * 9 + 256 + 1
    expected = (3 * 64 * 81 + 64 + 1) + 16 * block + (64 * 64 * 9 + 64 + 2 * 64) + 2 * up + (64 * 3 * 81 + 3)
    assert sum(p.numel() for p in generator.parameters()) == expected
    assert generator.halo_px == 40
    assert Compact(CompactConfig()).halo_px == 19
    assert SRVGG(SRVGGConfig()).halo_px == 18


def farthest(generator: Generator, side: int) -> int:
    """The farthest input px, from the centre px, that has a say in any output px of the centre px's block."""
    low = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    centre, scale = side // 2, generator.scale
    block = generator(low)[:, :, centre * scale : (centre + 1) * scale, centre * scale : (centre + 1) * scale]
    (gradient,) = torch.autograd.grad((block * torch.rand_like(block)).sum(), low)
    rows, columns = torch.nonzero(gradient.abs().sum((0, 1)), as_tuple=True)
    reaches = {int((centre - rows).max()), int((rows - centre).max())}
    reaches |= {int((centre - columns).max()), int((columns - centre).max())}
    assert len(reaches) == 1, "the receptive field is a square around the pixel"
    return reaches.pop()


@pytest.mark.parametrize("architecture", TINY)
@pytest.mark.parametrize("scale", SCALES)
def test_the_halo_is_the_receptive_field(architecture: str, scale: int) -> None:
    generator = tiny(architecture, scale)
    assert generator.halo_px is not None
    assert farthest(generator, 2 * generator.halo_px + 5) == generator.halo_px


@pytest.mark.parametrize("scale", SCALES)
def test_folding_leaves_the_halo_as_it_is(scale: int) -> None:
    generator = fold(tiny("srresnet", scale))
    assert generator.halo_px is not None
    assert farthest(generator, 2 * generator.halo_px + 5) == generator.halo_px


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (7, 5), (12, 13)])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_folded_network_computes_the_same_to_the_border(batch_norm: bool, scale: int, size: tuple[int, int]) -> None:
    generator = tiny("srresnet", scale, batch_norm=batch_norm)
    folded = fold(generator)
    low = torch.rand(2, 3, *size, dtype=torch.float64)
    assert difference(folded(low), generator(low)) < 1e-9
    assert folded.shuffle == (3 if scale == 3 else 2)
    assert folded.subpixels(low).shape == (
        2,
        3 * folded.shuffle**2,
        size[0] * scale // folded.shuffle,
        size[1] * scale // folded.shuffle,
    )
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert generator.shuffle == 1, "folding makes a copy"
    assert difference(fold(folded)(low), generator(low)) < 1e-9, "folding twice does no harm"


@pytest.mark.parametrize("architecture", ["compact", "srvgg"])
def test_a_network_without_more_to_fold_computes_the_same(architecture: str) -> None:
    generator = tiny(architecture, 4).train()
    low = torch.rand(1, 3, 6, 5, dtype=torch.float64)
    folded = fold(generator)
    assert difference(folded(low), generator(low)) == 0.0
    assert not folded.training
    assert generator.training


@settings(max_examples=30, deadline=None)
@given(scale=st.sampled_from((1, 2, 3, 4, 5, 8)), height=st.integers(1, 9), width=st.integers(1, 9))
def test_bilinear_subpixels_are_bilinear_enlargement(scale: int, height: int, width: int) -> None:
    low = torch.rand(2, 3, height, width)
    expected = F.interpolate(low, scale_factor=float(scale), mode="bilinear", align_corners=False)
    assert difference(F.pixel_shuffle(bilinear_subpixels(low, scale), scale), expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("architecture", "mode", "tolerance"), [("compact", "bilinear", 1e-6), ("srvgg", "nearest", 0.0)]
)
def test_the_enlargement_is_added_in_single_precision(
    architecture: str, mode: str, tolerance: float, dtype: torch.dtype
) -> None:
    generator = build(architecture, {"features": 4, "blocks": 1})
    with torch.no_grad():
        tail(generator).weight.zero_()
    low = torch.rand(1, 3, 8, 8)
    high = fold(generator).to(dtype)(low)
    assert high.dtype == torch.float32
    # What is left is the enlargement, and none of it went through half precision.
    assert difference(high, F.interpolate(low, scale_factor=4.0, mode=mode)) <= tolerance


@pytest.mark.parametrize("features", [4, 16])
def test_srvgg_is_the_network_that_others_know(features: int) -> None:
    """The released layout, by another implementation of it."""
    spandrel = pytest.importorskip("spandrel")
    torch.manual_seed(0)
    generator = build("srvgg", {"scale": 3, "features": features, "blocks": 2}).eval()
    with torch.no_grad():
        tail(generator).weight.mul_(10)
    theirs = spandrel.MAIN_REGISTRY.load(generator.state_dict())
    low = torch.rand(2, 3, 9, 7)
    assert (theirs.architecture.id, theirs.scale, theirs.tags) == ("Compact", 3, [f"{features}nf", "2nc"])
    with torch.no_grad():
        assert difference(theirs.model(low), generator(low)) < 1e-6


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_srresnet_ends_in_single_precision(dtype: torch.dtype, folded: bool) -> None:
    unfolded = SRResNet(SRResNetConfig(features=4, blocks=1))
    generator: Any = (fold(unfolded) if folded else unfolded).eval()
    before = generator.tail.weight.detach().clone()
    low = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        single = generator(low)
        half = generator.to(dtype=dtype, memory_format=torch.channels_last)
        assert half.head.weight.dtype == dtype
        assert half.tail.weight.dtype == torch.float32
        assert torch.equal(half.tail.weight, before), "the last layer never went through half precision"
        assert half.tail.weight.is_contiguous(memory_format=torch.channels_last)
        assert half(low).dtype == torch.float32
    assert difference(half(low), single) < 0.05
    assert difference(half(low), half(low).to(dtype).float()) > 0, "the output has more bits than half precision"


@pytest.mark.parametrize("architecture", TINY)
def test_autocast_leaves_the_last_step_alone(architecture: str) -> None:
    generator = build(architecture, {**TINY[architecture], "scale": 4})
    low = torch.rand(1, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        high = generator(low)
    assert high.dtype == torch.float32
    high.mean().backward()
    assert all(parameter.grad is not None for parameter in generator.parameters())


@pytest.mark.parametrize("architecture", TINY)
def test_a_fresh_network_starts_near_a_plain_picture(architecture: str) -> None:
    torch.manual_seed(0)
    generator = build(architecture, {"scale": 4, "features": 16, "blocks": 8})
    high = generator(torch.full((1, 3, 24, 24), 0.5)).detach()
    assert float(high.min()) > 0.0
    assert float(high.max()) < 1.0


@pytest.mark.parametrize("architecture", TINY)
def test_a_network_learns(architecture: str) -> None:
    torch.manual_seed(0)
    generator = build(architecture, {**TINY[architecture], "scale": 2})
    low, high = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    optimiser = torch.optim.Adam(generator.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = F.l1_loss(generator(low), high)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("architecture", "config", "words"),
    [
        ("esrgan", {}, "unknown architecture 'esrgan'"),
        ("compact", {"scale": 0}, "scale must be"),
        ("compact", {"scale": "4"}, "scale must be"),
        ("compact", {"scale": True}, "scale must be"),
        ("compact", {"features": 10**9}, "features must be"),
        ("compact", {"blocks": -1}, "blocks must be"),
        ("compact", {"batch_norm": True}, "no setting 'batch_norm'"),
        ("srvgg", {"batch_norm": False}, "no setting 'batch_norm'"),
        ("srvgg", {"blocks": 300}, "blocks must be"),
        ("srresnet", {"scale": 5}, "2, 3, 4 or 8"),
        ("srresnet", {"scale": 2.0}, "scale must be"),
        ("srresnet", {"features": None}, "features must be"),
        ("srresnet", {"batch_norm": 1}, "true or false"),
    ],
)
def test_a_senseless_configuration_is_refused(architecture: str, config: dict[str, object], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        build(architecture, config)


def test_halo_arithmetic() -> None:
    assert generators.halo_px([]) == 0
    assert generators.halo_px([(3, 1)]) == 1
    # One reach of half a px is seen from a whole one.
    assert generators.halo_px([(3, 2)]) == 1
    assert generators.halo_px([(9, 1), *[(3, 1)] * 33, (3, 1), (3, 2), (9, 4)]) == 40


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_an_overflow_is_seen_through_a_clip(bad: float) -> None:
    pictures = torch.rand(3, 3, 5, 4)
    pictures[1, 2, 0, 3] = bad
    marked = pictures.clamp(0, 1) + not_finite(pictures)
    assert [bool(torch.isfinite(picture).all()) for picture in marked] == [True, False, True]
    assert torch.equal(marked[::2], pictures[::2])


def test_the_quick_prelu_has_the_gradients_of_pytorchs() -> None:
    torch.manual_seed(0)
    ours, theirs = layers.PReLU(5).double(), nn.PReLU(5).double()
    slopes = torch.tensor([0.25, -0.5, 0.0, 1.0, 2.0], dtype=torch.float64)
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    gradient = torch.randn_like(x)
    found = []
    for act in (ours, theirs):
        act.weight.data.copy_(slopes)
        given = x.clone().requires_grad_()
        act(given).backward(gradient)
        found.append((given.grad, act.weight.grad))
    torch.testing.assert_close(found[0], found[1])
