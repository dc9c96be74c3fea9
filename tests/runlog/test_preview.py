"""The contact sheet: the right crops in the right places, with their descriptions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srgan_cli.dataset.codecs import Compression
from srgan_cli.dataset.degradation import Degradation, Round, SensorNoise
from srgan_cli.dataset.kernels import Blur
from srgan_cli.errors import NothingToDoError, SettingsError, TrainingError
from srgan_cli.imaging.bicubic import bicubic
from srgan_cli.runlog.preview import PreviewRow, check_target, contact_sheet, described, preview
from srgan_cli.training_config import TrainConfig
from srgan_cli.training_presets import preset

GAP_PX = 12


def save_pictures(folder: Path, *, count: int = 3, width: int = 90, height: int = 80) -> list[np.ndarray]:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    result = []
    for i in range(count):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        result.append(pixels)
    return result


def settings(folder: Path, name: str = "srgan", **data: object) -> TrainConfig:
    crops = {"crop_px": 32}
    changes: dict[str, Any] = {"data": {"high_dirs": [str(folder)], "levels": [1.0], **data}}
    return preset(name, {**changes, "fidelity": crops, "adversarial": crops})


def cell(sheet: Image.Image, column: int, row_px: int, side_px: int) -> np.ndarray:
    left, top = GAP_PX + column * (side_px + GAP_PX), GAP_PX + row_px
    return np.array(sheet.crop((left, top, left + side_px, top + side_px)))


def test_a_sheet_has_high_and_low_side_by_side(tmp_path: Path) -> None:
    save_pictures(tmp_path / "high")
    preview(settings(tmp_path / "high"), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        side_px = 80 * 3  # the crop is as large as the smallest picture allows; each of its pixels drawn as 3x3
        assert sheet.mode == "RGB"
        assert sheet.width == 2 * (side_px + GAP_PX) + GAP_PX
        high = cell(sheet, 0, 0, side_px)[1::3, 1::3]
        low = cell(sheet, 1, 0, side_px)[6::12, 6::12]
    np.testing.assert_array_equal(low, bicubic(high, 20, 20))


def test_photo_has_several_draws_and_repeats_itself(tmp_path: Path) -> None:
    save_pictures(tmp_path / "high")
    config = settings(tmp_path / "high", "photo")
    preview(config, tmp_path / "one.png")
    preview(config, tmp_path / "two.png")
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert one.width > 4 * 240
        np.testing.assert_array_equal(one, two)


def test_pairs_are_shown_as_they_are(tmp_path: Path) -> None:
    high = save_pictures(tmp_path / "high", count=1, width=88)[0]
    (tmp_path / "low").mkdir()
    small = bicubic(high, 22, 20)
    Image.fromarray(small).save(tmp_path / "low" / "0.png")
    save_pictures(tmp_path / "val", count=1)
    config = settings(tmp_path / "high", low_dirs=[str(tmp_path / "low")], val_dir=str(tmp_path / "val"))
    preview(config, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        np.testing.assert_array_equal(cell(sheet, 0, 0, 240)[1::3, 1::3], high[:, 4:84])
        np.testing.assert_array_equal(cell(sheet, 1, 0, 240)[6::12, 6::12], small[:, 1:21])


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    save_pictures(tmp_path / "high")
    with pytest.raises(TrainingError, match=r"sheet\.nonsense"):
        preview(settings(tmp_path / "high"), tmp_path / "sheet.nonsense")
    with pytest.raises(TrainingError, match="cannot be written"):
        preview(settings(tmp_path / "high"), tmp_path / "no" / "sheet.png")
    with pytest.raises(NothingToDoError):
        preview(settings(tmp_path / "nothing"), tmp_path / "sheet.png")


def test_rows_may_have_different_numbers_of_draws_and_long_labels() -> None:
    high, low = np.zeros((40, 40, 3), np.uint8), np.full((10, 10, 3), 200, np.uint8)
    rows = [PreviewRow("a", high, ((low, ("w" * 200,)),)), PreviewRow("b\n", high, ((low, ("x",)), (low, ("y", "z"))))]
    sheet = contact_sheet(rows)
    assert sheet.width == 3 * (240 + GAP_PX) + GAP_PX
    assert (cell(sheet, 1, 0, 240) == 200).all()
    margin = np.array(sheet)[:, -GAP_PX:]
    assert (margin == margin[0, 0]).all()  # the long label was cut


def test_words_tell_all_that_was_drawn() -> None:
    assert described(Degradation.BICUBIC) == ("bicubic only",)
    first = Round(
        blur=Blur("gaussian", 1.23, 0.4, narrow=0.5),
        factor=0.631,
        filter="area",
        noise=SensorNoise(4.96, 0.0, grey=True, seed=1),
        compression=Compression("JPEG", 62, halved_chroma=True, grid_px=(0, 0)),
    )
    last = Round(blur=None, factor=None, filter="lanczos", noise=None, compression=None)
    assert described(Degradation((first, last))) == (
        "oval blur 1.2 px, area to 0.63",
        "   grey noise 5.0, JPEG 62 4:2:0",
        "lanczos to the low size",
        "   no noise, not compressed",
    )


def test_a_photo_is_not_drawn_over(tmp_path: Path) -> None:
    save_pictures(tmp_path / "high")
    config = settings(tmp_path / "high")
    photo = next((tmp_path / "high").iterdir())
    before = photo.read_bytes()
    with pytest.raises(SettingsError, match="not a sheet of an earlier preview"):
        preview(config, photo)
    assert photo.read_bytes() == before
    preview(config, tmp_path / "sheet.png")
    preview(config, tmp_path / "sheet.png")  # a sheet may be drawn again


def test_a_picture_too_large_to_be_looked_at_is_no_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(SettingsError, match="is not a sheet"):
        check_target(tmp_path / "large.png")
