"""Pairs that are not aligned: measured against known shifts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.config import EngineOptions
from srgan_cli.dataset.alignment import Shift, sentence, shift
from srgan_cli.dataset.scan import scan
from srgan_cli.evaluation.session import EvaluateOptions, evaluate_models
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.imaging.image import Pixels
from srgan_cli.training_data_config import DataSettings
from tests.faults import save_tiny


def scene(seed: int, side: int = 256) -> Pixels:
    """Patches and edges at every size, larger than what is cut out of it."""
    dice = np.random.default_rng(seed)
    result = np.full((side, side, 3), 128.0)
    for _ in range(400):
        y, x = dice.integers(0, side, 2)
        h, w = dice.integers(2, 40, 2)
        result[y : y + h, x : x + w] = dice.integers(0, 256, 3)
    return result.astype(np.uint8)


def pair(seed: int, scale: int, dx: int, dy: int) -> tuple[Pixels, Pixels]:
    """The low picture shows what lies `dx`, `dy` px further left and up in the high one, so it looks shifted so far."""
    whole = scene(seed)
    high = whole[32 + dy : 224 + dy, 32 + dx : 224 + dx]
    return bicubic(whole[32:224, 32:224], 192 // scale, 192 // scale), high


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (0, -2), (3, 2), (-4, 4)])
def test_shifts_are_measured_to_a_quarter_of_a_px(dx: int, dy: int, scale: int) -> None:
    for seed in range(4):
        found = shift(*pair(seed, scale, dx, dy))
        assert found is not None
        assert abs(found.x - dx) < 0.25
        assert abs(found.y - dy) < 0.25
        assert found.is_large == (max(abs(dx), abs(dy)) >= 1)


def test_decimation_is_a_shift_of_half_a_block() -> None:
    high = scene(1)[:192, :192]
    found = shift(np.ascontiguousarray(high[::4, ::4]), high)
    assert found is not None
    assert found.is_large


def test_nothing_is_said_of_what_tells_nothing() -> None:
    flat = np.full((192, 192, 3), 90, np.uint8)
    assert shift(flat[:48, :48], flat) is None
    assert shift(flat[:8, :8], flat[:32, :32]) is None
    others = [shift(pair(seed, 4, 0, 0)[0], pair(seed + 50, 4, 0, 0)[1]) for seed in range(8)]
    assert sum(one is not None for one in others) <= 1
    assert sentence([("a", Shift(0.3, 0.5))], 1) is None


def folders(folder: Path, dx: int) -> tuple[Path, Path]:
    for seed in range(4):
        low, high = pair(seed, 4, dx if seed else 0, 0)
        for kind, pixels in (("low", low), ("high", high)):
            (folder / kind).mkdir(exist_ok=True)
            name = f"{seed}_bicLRx4.png" if kind == "low" else f"{seed}.png"
            Pillow.fromarray(pixels).save(folder / kind / name)
    return folder / "high", folder / "low"


@pytest.mark.parametrize("dx", [0, 2])
def test_train_and_evaluate_report_them(dx: int, tmp_path: Path) -> None:
    high, low = folders(tmp_path, dx)
    settings = DataSettings(high_dirs=(str(high),), low_dirs=(str(low),), val_fraction=0.0, cache_dir=str(tmp_path))
    notes = scan(settings, scale=4, crop_px=32).notes
    model = save_tiny(tmp_path / "tiny.safetensors", 4)
    engine = EngineOptions(device="cpu", precision="fp32")
    report = evaluate_models(EvaluateOptions(high, (str(model),), low, metrics=(), engine=engine))
    assert len(report.methods["bicubic"].pictures) == 4
    for said in (notes, report.notes):
        shifted = [
            one
            for one in said
            if "3 of the 4 pairs" in one and "shifted by +2.0, " in one.replace("+1.9", "+2.0").replace("+2.1", "+2.0")
        ]
        assert len(shifted) == (1 if dx else 0)
        assert bool(said) == bool(dx)
