"""The fused kernels compute what PyTorch's do: on a GPU, and in Triton's interpreter on any CPU."""

from __future__ import annotations

import copy
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from srgan_cli.engine.backends import fused
from srgan_cli.networks.compact import Compact, CompactBlock, CompactConfig
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.srresnet import SRResNet, SRResNetConfig

_PROGRAM = """
import torch
from tests.engine.backends.test_fused import lively
from srgan_cli.engine.backends import fused

torch.manual_seed(1)
fused.MIN_VALUES = 0
cases = (
    (32, torch.float32, 1e-5, True, (3, 70)), (64, torch.float16, 1e-2, True, (3, 70)),
    (32, torch.float32, 1e-5, False, (3, 70)), (32, torch.float32, 1e-5, True, (1, 130)),
    (32, torch.float32, 1e-5, False, (1, 130)), (32, torch.float32, 1e-5, True, (1, 1)),
    (32, torch.float32, 1e-5, False, (2, 1)),
)
for features, dtype, tolerance, by_blocks, size in cases:
    network = lively(features).to(dtype)
    low = torch.rand(2, 3, *size)
    with torch.inference_mode():
        plain = network.subpixels(low)
        fused.fuse(network, by_blocks=by_blocks)
        print(features, float((network.subpixels(low) - plain).abs().max()) / tolerance)
"""


def lively(features: int, *, noise: bool = False) -> Compact:
    """Two blocks whose biases, slopes and residual branches all matter."""
    network = Compact(CompactConfig(2, features, 2, noise)).eval().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for block in cast("Iterable[CompactBlock]", network.body):
            block.conv2.weight.mul_(5.0)
            for name, values in block.named_parameters():
                if name != "conv1.weight" and name != "conv2.weight":
                    values.uniform_(-0.5, 0.5)
    return network


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_the_kernel_in_the_interpreter_gives_the_convolution_with_all_that_follows() -> None:
    root = Path(__file__).parents[3]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", _PROGRAM], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    differences = [float(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(differences) == 7
    assert max(differences) < 1.0


def test_only_half_precision_on_a_recent_gpu_is_fused() -> None:
    for network in (lively(32), lively(32).to(torch.bfloat16), SRResNet(SRResNetConfig(2, 8, 1))):
        assert fused.fastest(network, lambda: pytest.fail("was copied")) is network


def never(*_args: object) -> Tensor:
    raise RuntimeError("as a compiler or driver does")


def off(plain: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda low: plain(low) + 0.1


@pytest.mark.parametrize("kind", ["good", "slower", "wrong", "not finite", "failing"])
def test_only_what_works_agrees_and_is_faster_is_used(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, other = lively(32), lively(32)
    other.load_state_dict(network.state_dict())
    faults = {"wrong": off(other.subpixels), "not finite": lambda low: low.new_full((1,), torch.nan), "failing": never}
    if kind in faults:
        monkeypatch.setattr(other, "subpixels", faults[kind])
    seconds = {id(network): 2.0, id(other): 3.0 if kind == "slower" else 1.0}
    monkeypatch.setattr(fused, "_is_suitable", lambda _network: True)
    monkeypatch.setattr(fused, "_capability", lambda _device: (9, 0))
    monkeypatch.setattr(fused, "_TRIAL_PX", 16)
    monkeypatch.setattr(fused, "_seconds", lambda one, _low: seconds[id(one)])
    before = torch.get_rng_state()
    assert fused.fastest(network, lambda: other) is (other if kind == "good" else network)
    assert torch.equal(torch.get_rng_state(), before), "the caller's random numbers are not used up"


@pytest.mark.gpu
@pytest.mark.parametrize("features", [32, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(1, 1), (3, 129), (300, 257)])
@pytest.mark.parametrize("by_blocks", [True, False])
def test_fused_layers_agree(
    features: int, dtype: torch.dtype, size: tuple[int, int], by_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.get_device_capability() < ((9, 0) if by_blocks else (8, 0)):
        pytest.skip("this GPU is too old")
    monkeypatch.setattr(fused, "MIN_VALUES", 0)
    torch.manual_seed(2)
    plain = lively(features, noise=True).to("cuda", dtype)
    other = copy.deepcopy(plain)
    fused.fuse(other, by_blocks=by_blocks)
    low, noise = torch.rand(2, 3, *size, device="cuda"), Noise(3).at([(0, 0), (5, 9)])
    with torch.inference_mode():
        for one, two in (
            (plain.subpixels(low), other.subpixels(low)),
            (plain.drawn(low, noise), other.drawn(low, noise)),
        ):
            assert torch.isfinite(two).all()
            assert float((one - two).abs().max()) < (0.02 if dtype == torch.float16 else 0.15)


class Plain(Compact):
    """The network as PyTorch runs it."""


@pytest.mark.gpu
def test_layers_that_agree_and_are_faster_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU is too old")

    monkeypatch.setattr(fused, "_seconds", lambda network, _low: 1.0 if isinstance(network, Plain) else 0.5)
    network = Plain(CompactConfig(2, 64, 2)).to("cuda", torch.float16)
    other = Compact(CompactConfig(2, 64, 2)).to("cuda", torch.float16)
    other.load_state_dict(network.state_dict())
    assert fused.fastest(network, lambda: other) is other
    assert all(isinstance(block, fused.FusedBlock) for block in other.body)
