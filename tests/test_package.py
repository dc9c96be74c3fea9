"""The package from outside: its public names, and what using them imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import srgan_cli


@pytest.mark.slow
def test_a_picture_is_upscaled_without_torchs_compiler(tmp_path: Path) -> None:
    """Importing it takes longer than torch does; it came in with the first initialisation on `meta`."""
    code = """
import sys
from pathlib import Path
import numpy as np
from srgan_cli import EngineOptions, Upscaler, load_model
from srgan_cli.networks.generators import build
from srgan_cli.networks.registry import Card
from srgan_cli.networks.weights import save_weights

path = Path(sys.argv[1])
save_weights(path, build("srresnet", {"features": 4, "blocks": 1, "batch_norm": True}), Card("x", "x", "", "MIT"))
low = np.zeros((8, 8, 3), np.uint8)
for source in ("fast-x4", "srgan-x4", path):
    Upscaler(load_model(source), EngineOptions(device="cpu")).upscale(low)
print([name for name in ("torch._dynamo", "torch.onnx", "torch._inductor", "sympy") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "paper.safetensors")],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in srgan_cli.__all__:
        assert getattr(srgan_cli, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = srgan_cli.no_such_name
