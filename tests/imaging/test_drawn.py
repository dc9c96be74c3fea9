"""`signs.drawn_of`: drawings whose lines happen to lie on a JPEG's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli.imaging.signs import blocking_of, drawn_of, find_signs
from tests.imaging import samples
from tests.imaging.test_signs import Array, decoded, jpeg, luma, photo


def drawing() -> Array:
    """Discs with smooth edges on grey paper, and frames whose lines lie on a grid of 8 px by chance."""
    from PIL import ImageDraw

    large = Pillow.new("RGB", (4 * 320, 4 * 240), (230, 228, 220))
    draw = ImageDraw.Draw(large)
    for x, y in ((40, 100), (400, 150), (800, 90)):
        draw.ellipse((x, y, x + 300, y + 300), (180, 60, 40))
    for x, y in ((32, 480), (480, 512), (864, 544)):
        draw.rectangle((x, y, x + 319, y + 255), (206, 204, 196))
    return np.asarray(large.resize((320, 240), Pillow.Resampling.BOX))


def tiles() -> Array:
    """Tiles in few tones, laid on a grid of 8 px: its coefficients are multiples of the tones' difference."""
    from PIL import ImageDraw

    rng = np.random.default_rng(1)
    large = Pillow.new("L", (4 * 320, 4 * 320), 228)
    draw = ImageDraw.Draw(large)
    for _ in range(60):
        x, y, width, height = (32 * int(value) for value in rng.integers((0, 0, 1, 1), (38, 38, 10, 10)))
        draw.rectangle((x, y, x + width - 1, y + height - 1), 25 * int(rng.integers(10)))
    for x, y in rng.integers(0, 1000, (3, 2)).tolist():
        draw.ellipse((x, y, x + 200, y + 200), 0)
    return np.asarray(large.resize((320, 320), Pillow.Resampling.BOX).convert("RGB"))


def test_what_looks_like_a_quantisers_steps_in_a_drawing_is_no_earlier_jpeg(tmp_path: Path) -> None:
    for name, pixels in (("tiles", tiles()), ("jpeg", decoded(jpeg(tiles(), 50)))):
        Pillow.fromarray(pixels).save(tmp_path / f"{name}.png")
    clean, once = (find_signs(tmp_path / f"{name}.png", max_pixels=samples.MANY) for name in ("tiles", "jpeg"))
    assert clean.earlier_quality is not None
    assert clean.was_jpeg_of is None
    assert once.was_jpeg_of == once.earlier_quality == pytest.approx(50, abs=3)


@pytest.mark.parametrize("cut", [(0, 0), (3, 5)])
def test_areas_of_one_colour_up_to_their_edges_are_drawn(cut: tuple[int, int]) -> None:
    def cropped(pixels: Array) -> Array:
        return luma(pixels[cut[0] :, cut[1] :])

    assert blocking_of(cropped(drawing())) > 1.2, "as an old JPEG"
    assert drawn_of(cropped(drawing())) > 0.6
    for quality in (30, 50, 75, 90):
        assert drawn_of(cropped(decoded(jpeg(drawing(), quality)))) < 0.15, quality
    assert drawn_of(cropped(photo())) == 0
    assert drawn_of(np.full((100, 100), 77, np.float32)) == 0
    assert drawn_of(cropped(drawing())[:31]) == 0, "too small to judge"
