"""Muon's step against the singular value decomposition that it approximates, its other part against torch's AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from srgan_cli.networks.generators import build
from srgan_cli.training.muon import Muon, is_hidden, orthogonal


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 576), (32, 288), (48, 32), (8, 8)])
def test_all_directions_are_kept_and_get_about_the_same_length(shape: tuple[int, int]) -> None:
    ill = _random(*shape) * torch.logspace(0, -2, shape[1])  # columns from 1 to .01
    u, values, v = torch.linalg.svd(ill, full_matrices=False)
    inside = u.mT @ orthogonal(ill[None])[0] @ v.mT
    lengths = inside.diagonal()
    assert (inside - torch.diag(lengths)).abs().max() < 1e-3  # the same singular vectors
    strong = values > values[0] * 0.02  # far weaker ones do not get there in five iterations
    assert strong.sum() > 2
    assert lengths[strong].min() > 0.5
    assert lengths.max() < 1.3


def test_a_step_of_a_kernel_is_as_long_as_the_rate_says_whatever_its_gradient() -> None:
    lengths = []
    for size in (1e-2, 1.0, 1e4):
        kernel = nn.Parameter(_random(16, 8, 3, 3))
        before = kernel.detach().clone()
        kernel.grad = _random(16, 8, 3, 3, seed=1) * size
        Muon([kernel], learning_rate=0.01).step()
        lengths.append(float((kernel.detach() - before).norm()))
    assert lengths[0] == pytest.approx(lengths[2], rel=1e-3)
    assert lengths[1] == pytest.approx(0.01 * 0.2 * 72**0.5 * 16**0.5, rel=0.2)  # 16 directions of 0.2 * sqrt(72)


def test_everything_else_is_adamw() -> None:
    ours = [nn.Parameter(_random(12)), nn.Parameter(_random(16, 3, 3, 3)), nn.Parameter(_random(1, 5))]
    theirs = copy.deepcopy(ours)
    optimizers = (
        Muon(ours, learning_rate=1e-2, betas=(0.9, 0.99), weight_decay=0.1),
        torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1),
    )
    for step in range(5):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            one.grad = other.grad = _random(*one.shape, seed=10 * step + number)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("architecture", "others"),
    [("compact", {"head"}), ("srvgg", {"body.0"}), ("srresnet", {"head", "tail"})],
)
def test_which_kernels_are_hidden(architecture: str, others: set[str]) -> None:
    network = build(architecture, {"features": 16, "blocks": 2})
    kernels = {name: p for name, p in network.named_parameters() if p.dim() == 4}
    left_out = {name for name, kernel in kernels.items() if not is_hidden(kernel)}
    assert {name.removesuffix(".weight") for name in left_out} == others


def test_it_continues_from_its_state_to_the_bit() -> None:
    def learn(optimizer: Muon, parameters: list[nn.Parameter], steps: range) -> None:
        for step in steps:
            for number, parameter in enumerate(parameters):
                parameter.grad = _random(*parameter.shape, seed=10 * step + number)
            optimizer.step()

    at_once = [nn.Parameter(_random(16, 8, 3, 3)), nn.Parameter(_random(7))]
    halves = copy.deepcopy(at_once)
    learn(Muon(at_once, 0.01), at_once, range(6))
    first = Muon(halves, 0.01)
    learn(first, halves, range(3))
    second = Muon(halves, 0.01)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    learn(second, halves, range(3, 6))
    assert all(torch.equal(one, other) for one, other in zip(at_once, halves, strict=True))
