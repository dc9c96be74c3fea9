"""Programs with spandrel open srgan's files once srgan_cli is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import srgan_cli
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import load_model, save_weights
from tests.faults import tiny_generator

spandrel = pytest.importorskip("spandrel")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("architecture", "config"), [("compact", {}), ("srresnet", {"batch_norm": True}), ("srresnet", {})]
)
def test_spandrel_opens_our_architectures(
    tmp_path: Path, architecture: str, config: dict[str, Any], scale: int
) -> None:
    srgan_cli.register_with_spandrel()
    srgan_cli.register_with_spandrel()  # twice does no harm
    path = tmp_path / "a.safetensors"
    save_weights(path, tiny_generator(architecture, scale, **config), Card("a", "a"))
    theirs = spandrel.ModelLoader().load_from_file(path)
    assert (theirs.architecture.id, theirs.scale, theirs.purpose) == (f"srgan-{architecture}", scale, "SR")
    assert theirs.tags == ["8nf", "1nb"]
    low = torch.rand(1, 3, 9, 8)
    with torch.no_grad():
        expected = load_model(path).network(low).clamp(0, 1)
        torch.testing.assert_close(theirs(low), expected, atol=1e-5, rtol=0)
        assert float((theirs.to(torch.bfloat16)(low.bfloat16()).float() - expected).abs().max()) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", ["import spandrel, srgan_cli", "import srgan_cli, spandrel; srgan_cli.register_with_spandrel()"]
)
def test_importing_is_enough_where_spandrel_came_first(code: str) -> None:
    tell = "print([s.architecture.id for s in spandrel.MAIN_REGISTRY.architectures() if 'srgan' in s.architecture.id])"
    done = subprocess.run([sys.executable, "-c", f"{code}; {tell}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['srgan-compact', 'srgan-srresnet']"


def test_without_spandrel_nothing_is_registered_nor_loaded() -> None:
    code = "import srgan_cli, sys; print('spandrel' in sys.modules or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
