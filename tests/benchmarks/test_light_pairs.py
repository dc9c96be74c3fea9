"""Lightly worn pairs are stored beside the teacher's, and match each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import light_pairs


@pytest.mark.parametrize(("scale", "taught"), [(4, "taught"), (2, "taught-x2")])
def test_pairs_fit_and_are_lightly_worn(tmp_path: Path, scale: int, taught: str) -> None:
    random = np.random.default_rng(1)
    photos = tmp_path / "photos"
    for folder in (photos, tmp_path / "low", tmp_path / taught):
        folder.mkdir()
    soft = Image.fromarray(random.integers(0, 256, (7, 8, 3), np.uint8)).resize((640, 560), Image.Resampling.BICUBIC)
    for name in ("a.jpg", "b.png", "c.png", "d.png", "e.png"):
        soft.save(photos / name)
    soft.resize((96, 96)).save(tmp_path / "low" / "1-00000.png")
    soft.resize((96 * scale, 96 * scale)).save(tmp_path / taught / "1-00000.png")
    assert light_pairs.make(sorted(photos.iterdir()), tmp_path, scale) == 6
    out = tmp_path / f"mixed-x{scale}"
    names = sorted(path.name for path in (out / "low").iterdir())
    assert names == sorted(path.name for path in (out / "high").iterdir())
    changed = []
    for name in names:
        with Image.open(out / "low" / name) as low, Image.open(out / "high" / name) as high:
            assert high.size == (low.width * scale, low.height * scale)
            if name.startswith("m"):
                again = np.asarray(high.resize(low.size, Image.Resampling.BICUBIC), np.float32)
                changed.append(float(np.abs(np.asarray(low, np.float32) - again).mean()))
    assert max(changed) < 8, "lightly worn"
    assert max(changed) > 1.3 * min(changed), "not all alike"
    assert (out / "finished").exists()
