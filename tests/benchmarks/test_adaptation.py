"""The worn sets of the benchmark of unpaired adaptation: repeatable, without originals, and worn as it says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import adaptation
from benchmarks.adaptation import Setup
from srgan_cli.cli.train import train
from srgan_cli.imaging.bicubic import bicubic


def places(root: Path) -> Setup:
    return Setup(root / "photos", root / "test", root / "vgg.safetensors", root / "out", "1m", 1)


def photos(root: Path) -> None:
    rng = np.random.default_rng(0)
    folders = [root / "photos", *(root / "test" / name / "x4" / "high" for name in ("Set14", "BSD100"))]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(12):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            for part in range(2):
                coarse.resize((66, 64), Image.Resampling.BICUBIC).save(folder / f"photo{number}_{part}.png")


def test_worn_pictures_show_other_photographs(tmp_path: Path) -> None:
    photos(tmp_path)
    adaptation.make_sets(places(tmp_path))
    names = ("sharp", "mine", "sharp-low")
    sharp, mine, low = ({path.stem for path in (tmp_path / "out" / name).iterdir()} for name in names)
    assert sharp == low
    assert mine
    assert not {name.rpartition("_")[0] for name in sharp} & {name.rpartition("_")[0] for name in mine}
    with Image.open(next((tmp_path / "out" / "Set14" / "low").iterdir())) as picture:
        assert (picture.format, picture.size) == ("JPEG", (16, 16))
    with Image.open(next((tmp_path / "out" / "Set14" / "high").iterdir())) as picture:
        assert picture.size == (64, 64)


def test_the_chain_blurs_more_across_than_down_and_casts() -> None:
    edges = np.zeros((256, 256, 3), np.uint8)
    edges[:128, :128] = edges[128:, 128:] = 200
    made = np.asarray(Image.open(io.BytesIO(adaptation.worn(edges, 3))), np.float64)
    assert adaptation.worn(edges, 3) == adaptation.worn(edges, 3)
    assert adaptation.worn(edges, 3) != adaptation.worn(edges, 4)
    across, down = made[8:24].mean(axis=(0, 2)), made[:, 8:24].mean(axis=(1, 2))
    assert np.abs(np.diff(across)).max() < 0.75 * np.abs(np.diff(down)).max()
    flat = np.full((256, 256, 3), 120, np.uint8)
    cast = np.asarray(Image.open(io.BytesIO(adaptation.worn(flat, 3))), np.float64).mean(axis=(0, 1))
    assert np.abs(cast - np.array([123.6, 120.0, 114.0])).max() < 1.5
    assert bicubic(flat, 64, 64).shape == made.shape


def test_both_trainings_differ_in_their_low_pictures_only(tmp_path: Path) -> None:
    adapt, pairs = (adaptation._options(places(tmp_path), name) for name in ("adapt", "pairs"))
    assert adapt[:2] == ["--unpaired-lr-dir", str(tmp_path / "out" / "mine")]
    assert pairs[:2] == ["--lr-dir", str(tmp_path / "out" / "sharp-low")]
    assert "adversarial.batch=8" in pairs
    for options in (adapt, pairs):
        assert {"--budget", "--threads", "--vgg-weights"} <= set(options)
        train.make_context("train", [*options, "--print-config"])  # both are options of the command
