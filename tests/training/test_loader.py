"""Batches for the networks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from srgan_cli.dataset.cache import build_cache
from srgan_cli.dataset.scan import scan
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.training.loader import BatchLoader
from srgan_cli.training.processes import Processes
from srgan_cli.training.run import begin
from srgan_cli.training.sources import Sources
from srgan_cli.training.state import State
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import from_mapping


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def config(photos: Path, kind: str) -> TrainConfig:
    return from_mapping(
        {
            "phase": "fidelity",
            "generator": {"scale": 2, "features": 4, "blocks": 0},
            "data": {"high_dirs": [str(photos)], "levels": [1.0], "val_fraction": 0.0},
            "fidelity": {"batch": 3, "crop_px": 16},
            "degradation": {"kind": kind},
            "compute": {"device": "cpu", "precision": "fp32"},
        }
    )


def batches(settings: TrainConfig, state: State, count: int, **more: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    looked = scan(settings.data, scale=2, crop_px=16)
    cache = build_cache(looked.train, settings.data, scale=2, crop_px=16)
    loader = BatchLoader(begin(settings, Processes()), state, 16, Sources(looked, cache), **more)
    try:
        made = [next(loader) for _ in range(count)]
        return [(one.low, one.high) for one in made]
    finally:
        loader.close()


@pytest.mark.parametrize("kind", ["bicubic", "photo"])
def test_batches_made_ahead_are_the_same(photos: Path, kind: str) -> None:
    settings = config(photos, kind)
    ahead, at_once = (batches(settings, State(), 4, ahead=way) for way in (True, False))
    for (low, high), (other_low, other_high) in zip(ahead, at_once, strict=True):
        assert torch.equal(low, other_low)
        assert torch.equal(high, other_high)


def test_a_feed_from_a_later_step_goes_on_where_another_would_be(photos: Path) -> None:
    settings = config(photos, "photo")
    early, late = batches(settings, State(), 4), batches(settings, State(step=2), 2)
    assert torch.equal(early[2][0], late[0][0])
    assert torch.equal(early[3][1], late[1][1])


def test_after_a_rollback_other_crops_come(photos: Path) -> None:
    settings = config(photos, "bicubic")
    assert not torch.equal(batches(settings, State(), 1)[0][1], batches(settings, State(rollbacks=1), 1)[0][1])


def test_low_is_matlabs_bicubic_of_high(photos: Path) -> None:
    low, high = batches(config(photos, "bicubic"), State(), 1)[0]
    for small, large in zip(low, high, strict=True):
        pixels = (large * 255).round().byte().permute(1, 2, 0).numpy()
        expected = torch.from_numpy(bicubic(pixels, 8, 8)).permute(2, 0, 1)
        assert torch.equal((small * 255).round().byte(), expected)


def test_grey_is_without_colours_in_both(photos: Path) -> None:
    settings = config(photos, "photo")
    grey = dataclasses.replace(settings, data=dataclasses.replace(settings.data, grey=True))
    for (low, high), (grey_low, grey_high) in zip(
        batches(settings, State(), 2), batches(grey, State(), 2), strict=True
    ):
        for coloured, plain in ((low, grey_low), (high, grey_high)):
            assert torch.equal(plain[:, 0], plain[:, 2])
            expected = (coloured * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1)
            torch.testing.assert_close(plain[:, 1], expected)
