"""srgan from Python, as in the README."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pillow

import srgan_cli
from srgan_cli import EngineOptions, Size, UpscaleOptions, Upscaler, WriteOptions, load_model, upscale_file
from srgan_cli.errors import (
    DeviceError,
    OutOfMemoryError,
    SettingsError,
    SrganError,
    UnreadablePictureError,
    UnwritablePictureError,
    WeightsError,
)
from srgan_cli.imaging import writing
from tests.faults import disk_full, save_tiny
from tests.upscaling.pictures import cut_short, picture, tree

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SRGAN_TEST_DATA", ROOT / "../shared/data"))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> UpscaleOptions:
    file = save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors", 4, features=4)
    return UpscaleOptions(model=str(file), engine=EngineOptions("cpu", "fp32"))


def test_a_file_becomes_a_larger_file(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.jpg")
    target = upscale_file(source, tmp_path / "out.png", options)
    assert target == tmp_path / "out.png"
    with Pillow.open(target) as result:
        assert (result.size, result.format) == ((48, 36), "PNG")
    assert tree(tmp_path) == {"in.jpg", "out.png"}, "and nothing else is left"


def test_names_may_be_text(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.jpg")
    assert upscale_file(str(source), str(tmp_path / "out.png"), options) == tmp_path / "out.png"


def test_a_folder_as_target(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.jpg")
    (tmp_path / "out").mkdir()
    for more in ({}, {"overwrite": True}, {"skip_existing": True}, {"resume": True}):
        settings = UpscaleOptions(model=options.model, engine=options.engine, **more)  # type: ignore[arg-type]
        assert upscale_file(source, tmp_path / "out", settings) == tmp_path / "out/in.jpg"


def test_sizes_and_encodings(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.png")
    settings = UpscaleOptions(
        model=options.model, engine=options.engine, size=Size(scale=2), write=WriteOptions(quality=50)
    )
    with Pillow.open(upscale_file(source, tmp_path / "out.jpg", settings)) as result:
        assert (result.size, result.format) == ((24, 18), "JPEG")


def test_a_photo_with_the_model_that_is_bundled(tmp_path: Path) -> None:
    source = ROOT / "examples" / "cat.jpg"
    with Pillow.open(source) as photo:
        photo.crop((0, 0, 64, 48)).save(tmp_path / "crop.png")
    upscale_file(tmp_path / "crop.png", tmp_path / "out.png", UpscaleOptions(model="fidelity"))
    model = load_model("fidelity")
    with Pillow.open(tmp_path / "crop.png") as small, Pillow.open(tmp_path / "out.png") as large:
        low, high = np.asarray(small), np.asarray(large)
    assert high.shape == (48 * model.scale, 64 * model.scale, 3)
    again = Upscaler(model).upscale(low)
    assert np.abs(again.astype(int) - high).max() <= 1
    means = high.reshape(48, model.scale, 64, model.scale, 3).mean((1, 3))
    assert np.abs(means - low).mean() < 4, "it is the same picture"


@pytest.mark.skipif(not (DATA / "test").is_dir(), reason="the test pictures are not here")
def test_a_real_picture_is_enlarged_better_than_by_bicubic(tmp_path: Path) -> None:
    source = sorted(path for path in (DATA / "test").rglob("*.png"))[0]
    with Pillow.open(source) as photo:
        high = photo.convert("RGB").crop((0, 0, 160, 160))
    low = high.resize((40, 40), Pillow.Resampling.BICUBIC)
    truth = np.asarray(high).astype(float)[8:-8, 8:-8]

    def error(result: Any) -> float:
        return float(np.square(np.asarray(result).astype(float)[8:-8, 8:-8] - truth).mean())

    ours = Upscaler(load_model("fidelity-x4")).upscale(np.asarray(low))
    assert error(ours) < error(low.resize((160, 160), Pillow.Resampling.BICUBIC))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_keep_their_kind(options: UpscaleOptions, channels: int, dtype: type) -> None:
    low: npt.NDArray[Any] = np.full((6, 5, channels), np.iinfo(dtype).max // 3, dtype)
    high = Upscaler(load_model(options.model), options.engine).upscale(low)
    assert high.shape == (24, 20, channels)
    assert high.dtype == dtype


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["missing.png", "empty.png", "text.png", "cut.jpg"])
def test_what_cannot_be_read(tmp_path: Path, options: UpscaleOptions, name: str) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    cut_short(tmp_path / "cut.jpg")
    with pytest.raises(UnreadablePictureError):
        upscale_file(tmp_path / name, tmp_path / "out.png", options)
    assert not (tmp_path / "out.png").exists()


def test_what_cannot_be_written(tmp_path: Path, options: UpscaleOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    clear = picture(tmp_path / "clear.png", mode="RGBA")
    with pytest.raises(UnwritablePictureError, match="background=COLOUR"):
        upscale_file(clear, tmp_path / "out.jpg", options)
    monkeypatch.setattr(writing, "encode", disk_full)
    with pytest.raises(UnwritablePictureError, match="full"):
        upscale_file(clear, tmp_path / "out.png", options)
    assert tree(tmp_path) == {"clear.png"}


def test_settings_that_make_no_sense(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.png")
    picture(tmp_path / "there.png")
    for target in (source, tmp_path / "there.png", tmp_path / "out.xyz"):
        with pytest.raises(SettingsError):
            upscale_file(source, target, options)
    with pytest.raises(SettingsError):
        upscale_file(tmp_path, tmp_path / "out.png", options)
    with pytest.raises(SettingsError):
        upscale_file("-", tmp_path / "out.png", options)


def test_models_and_devices_that_are_not_there(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.png")
    with pytest.raises(WeightsError, match="no-such-model"):
        upscale_file(source, tmp_path / "out.png", UpscaleOptions(model="no-such-model"))
    with pytest.raises(DeviceError, match="cuda:99"):
        upscale_file(source, tmp_path / "out.png", UpscaleOptions(model=options.model, engine=EngineOptions("cuda:99")))
    assert tree(tmp_path) == {"in.png"}


@pytest.mark.parametrize(
    ("error", "code"),
    [(SrganError, 1), (UnreadablePictureError, 1), (UnwritablePictureError, 1), (SettingsError, 2), (WeightsError, 4),
     (DeviceError, 5), (OutOfMemoryError, 5), (srgan_cli.errors.NothingToDoError, 3),
     (srgan_cli.errors.InterruptedRunError, 130)],
)  # fmt: skip
def test_every_error_has_its_exit_code_and_is_an_srgan_error(error: type[SrganError], code: int) -> None:
    assert issubclass(error, srgan_cli.SrganError)
    assert error.exit_code == code
