"""`--model auto` detects how a picture was treated; `--detail` interpolates two models; passes use the right ones."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from srgan_cli.cli import main
from srgan_cli.config import DEFAULT_DETAIL, EngineOptions, UpscaleOptions
from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.imaging.signs import MIN_DRAWN, Signs
from srgan_cli.networks import registry
from srgan_cli.networks.weights import load_generator, load_model
from srgan_cli.sizes import Size
from srgan_cli.upscaling import choice
from srgan_cli.upscaling.choice import CLEAN, WORN, ModelChoice, choose_model, judge
from srgan_cli.upscaling.session import Session, prepare, select
from srgan_cli.upscaling.single import upscale_file
from tests.bundle import bundle

EXAMPLE = Path(__file__).parents[2] / "examples" / "cat.jpg"
Saved = Callable[..., Path]


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("models") / "weights")


@pytest.fixture
def models(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundled models are tiny ones, which no test changes."""
    monkeypatch.setattr(registry, "weights_folder", lambda: tiny_models)
    return tiny_models


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A clean photograph: shrunk by half, so that its own JPEG is no longer seen."""
    picture = Image.open(EXAMPLE).convert("RGB")
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)


@pytest.fixture
def saved(tmp_path: Path, photo: Image.Image) -> Saved:
    def save(name: str, picture: Image.Image | None = None, **options: Any) -> Path:
        path = tmp_path / name
        (picture or photo).save(path, **options)
        return path

    return save


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(picture, float) + np.random.default_rng(1).normal(0, sigma, (*picture.size[::-1], 3))
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def enlarged(picture: Image.Image) -> Image.Image:
    return picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC)


def blocky(picture: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data)


# ---------------------------------------------------------------------------------------------------------- the choice


def test_what_was_worn_goes_to_photo_and_what_is_clean_does_not(saved: Saved, photo: Image.Image) -> None:
    cases = {
        saved("clean.png"): (CLEAN, "neither visibly compressed nor noisy"),
        saved("fine.jpg", quality=97): (CLEAN, "JPEG of quality 97, and no visible noise"),
        saved("coarse.jpg", quality=40): (WORN, "JPEG of quality 40"),
        saved("coarse.webp", quality=20): (WORN, "WebP of quality"),
        saved("lossless.webp", lossless=True): (CLEAN, "neither"),
        saved("noisy.png", noisy(photo, 12)): (WORN, "noisy: a standard deviation of about "),
        saved("enlarged.png", enlarged(noisy(photo, 12))): (WORN, "coarse grain"),
        saved("was-worse.jpg", blocky(photo, 40), quality=98): (WORN, "once"),
        saved("noisy.jpg", noisy(photo, 12), quality=98): (WORN, "noisy"),
        saved("was-jpeg.png", blocky(photo, 25)): (WORN, "it was once a JPEG of quality 2"),
    }
    for path, (model, why) in cases.items():
        found = choose_model(path, max_pixels=10**8)
        assert found.model == model, (path.name, found)
        assert why in found.why, (path.name, found)


def test_input_from_stdin_is_examined_too(saved: Saved) -> None:
    assert choose_model(saved("a.jpg", quality=30).read_bytes(), max_pixels=10**8).model == WORN


def test_unreadable_files_are_left_to_the_reader(tmp_path: Path) -> None:
    assert choose_model(tmp_path / "none.png", max_pixels=10**8).model == CLEAN
    (tmp_path / "broken.jpg").write_bytes(EXAMPLE.read_bytes()[:2000])
    assert choose_model(tmp_path / "broken.jpg", max_pixels=10**8).model in (CLEAN, WORN)


def test_each_sign_decides_at_its_threshold() -> None:
    clean = {"codec": None, "quality": None, "noise": 0.0, "grain": 0.0, "blocking": 1.0, "pixels": 10**6}

    def model(**signs: object) -> str:
        return judge(Signs(**{**clean, **signs})).model  # type: ignore[arg-type]

    for codec, limit in choice.WORN_QUALITY.items():
        assert model(codec=codec, quality=limit - 1) == WORN
        assert model(codec=codec, quality=limit) == CLEAN
        assert model(codec=codec) == CLEAN, "of unknown quality"
    assert model(noise=choice.WORN_NOISE) == WORN
    assert model(noise=choice.WORN_NOISE - 0.01) == CLEAN
    assert model(noise=4, grain=5.1) == WORN
    assert model(noise=4, grain=5.3) == model(noise=4, grain=11.9) == CLEAN, "texture is stronger at half the size"
    assert model(noise=choice.SURE_NOISE, grain=12) == WORN
    assert model(grain=choice.WORN_GRAIN) == WORN
    assert model(grain=choice.WORN_GRAIN - 0.01) == CLEAN
    assert model(noise=4, grain=12.1) == WORN, "of a scan that was enlarged"
    assert model(noise=4, grain=12.1, pixels=choice.MIN_PX_FOR_GRAIN) == WORN
    assert model(noise=4, grain=12.1, pixels=choice.MIN_PX_FOR_GRAIN - 1) == CLEAN, "too few to tell"
    assert model(blocking=choice.WORN_BLOCKING) == WORN
    assert model(blocking=choice.WORN_BLOCKING - 0.01) == CLEAN
    assert model(codec="JPEG", quality=98, blocking=choice.WORN_BLOCKING) == WORN, "saved again from something worse"
    assert model(earlier_quality=92) == WORN
    assert model(earlier_quality=92, drawn=MIN_DRAWN) == CLEAN
    assert model(blocking=choice.WORN_BLOCKING, drawn=MIN_DRAWN) == CLEAN
    assert model(blocking=choice.WORN_BLOCKING, drawn=MIN_DRAWN - 0.01) == WORN
    assert model(one_bit=True) == WORN
    assert model(dither=choice.WORN_DITHER) == WORN
    assert model(dither=choice.WORN_DITHER - 0.001) == CLEAN


def test_a_scan_of_one_bit_is_worn_and_a_grey_or_plain_one_is_not(saved: Saved, photo: Image.Image) -> None:
    grey = photo.convert("L")
    bits = grey.convert("1", dither=Image.Dither.NONE)
    found = choose_model(saved("bits.png", bits), max_pixels=10**8)
    assert (found.model, "two levels" in found.why) == (WORN, True)
    assert choose_model(saved("grey.png", grey), max_pixels=10**8).model == CLEAN
    assert choose_model(saved("white.png", Image.new("1", (64, 64), 1)), max_pixels=10**8).model == CLEAN


def with_palette(picture: Image.Image, colours: int) -> Image.Image:
    few = picture.quantize(colours, Image.Quantize.MEDIANCUT)
    return picture.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)


def drawing(*, smooth: bool) -> Image.Image:
    """A few shapes and letters in four colours, with or without the colours between them at their edges."""
    times = 4 if smooth else 1
    picture = Image.new("RGB", (160 * times, 120 * times), "white")
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "L" if smooth else "1"
    for number, fill in enumerate(("red", "blue", "green")):
        x = (8 + 48 * number) * times
        draw.ellipse((x, 8 * times, x + 40 * times, 48 * times), fill=fill, outline="black")
        draw.line((x, 50 * times, x + 40 * times, 70 * times), fill, width=times)
    for row in (72, 88, 104):
        draw.text((8 * times, row * times), "The quick brown fox", "black", ImageFont.load_default(11 * times))
    return picture.resize((160, 120), Image.Resampling.BOX)


def test_a_palette_is_worn_if_it_is_dithered(saved: Saved, photo: Image.Image) -> None:
    for name in ("few.png", "few.gif"):
        for colours in (16, 64, 256):
            found = choose_model(saved(name, with_palette(photo, colours)), max_pixels=10**8)
            assert found == ModelChoice(WORN, "few colours: dithered, or drawn without smooth edges"), (name, colours)
    full = saved("full.png", with_palette(photo, 64).convert("RGB"))
    assert choose_model(full, max_pixels=10**8).model == WORN, "whatever file it is in"
    grey = Image.fromarray(np.asarray(with_palette(photo, 16).convert("L")))
    assert choose_model(saved("grey.png", grey), max_pixels=10**8).model == WORN
    fine = photo.quantize(256, Image.Quantize.MEDIANCUT)
    assert choose_model(saved("fine.png", fine), max_pixels=10**8).model == CLEAN, "bands are invisible"


def test_a_drawing_is_clean_if_its_edges_are_smooth(saved: Saved) -> None:
    jagged, smooth = (choose_model(saved("a.png", drawing(smooth=how)), max_pixels=10**8) for how in (False, True))
    assert (jagged.model, "without smooth edges" in jagged.why) == (WORN, True)
    assert smooth.model == CLEAN
    palette = saved("palette.png", drawing(smooth=True).quantize(256))
    assert choose_model(palette, max_pixels=10**8).model == CLEAN


def test_lines_on_a_grid_of_8_px_are_no_old_jpeg(saved: Saved) -> None:
    large = Image.new("RGB", (1280, 960), (230, 228, 220))
    draw = ImageDraw.Draw(large)
    for x in (40, 440, 840):
        draw.ellipse((x, 100, x + 300, 400), (180, 60, 40))
        draw.rectangle((x // 32 * 32, 512, x // 32 * 32 + 319, 767), (206, 204, 196))
    page = large.resize((320, 240), Image.Resampling.BOX)
    assert choose_model(saved("page.png", page), max_pixels=10**8).model == CLEAN
    for quality in (50, 75):
        was_jpeg = choose_model(saved("page.png", blocky(page, quality)), max_pixels=10**8)
        assert (was_jpeg.model, "it was once" in was_jpeg.why) == (WORN, True)


# ---------------------------------------------------------------------------------------------------------------- a run


def test_a_folder_is_made_with_the_model_that_suits_each(
    models: Path, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean, worn = saved("clean.png"), saved("worn.jpg", quality=30)
    for arguments in (["--dry-run"], []):
        options = ["-o", str(tmp_path / "out"), "-m", "auto", "--json", "--strip", *arguments]
        code = main(["upscale", str(clean), str(worn), *options])
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        made = {Path(row["source"]).name: row for row in rows if row["event"] in ("planned", "done")}
        assert code == 0
        assert {name: row["model"] for name, row in made.items()} == {"clean.png": "srgan", "worn.jpg": "photo"}
        assert made["worn.jpg"]["why"] == "JPEG of quality 30"
    for name, model in (("clean.png", "srgan"), ("worn.jpg", "photo")):
        alone = tmp_path / f"alone-{name}"
        assert main(["upscale", str(tmp_path / name), "-o", str(alone), "-m", model, "--strip", "-q"]) == 0
        assert (tmp_path / "out" / name).read_bytes() == alone.read_bytes()


def test_the_choice_is_told(
    models: Path, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, worn = saved("clean.png"), saved("worn.jpg", quality=30)
    command = ["upscale", str(clean), str(worn), "-o", str(tmp_path / "out"), "-m", "auto"]
    assert main([*command, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "photo: JPEG of quality 30" in out
    assert "auto (srgan or photo)" in out
    assert main([*command, "-v"]) == 0
    err = capsys.readouterr().err
    assert "photo (JPEG of quality 30)" in err
    assert "srgan (neither visibly compressed nor noisy)" in err
    assert "1 with srgan, 1 with photo" in err


def test_a_second_run_looks_at_nothing_that_is_done(
    models: Path, saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worn = saved("worn.jpg", quality=30)
    command = ["upscale", str(worn), "-o", str(tmp_path / "out/"), "-m", "auto", "--resume", "-q"]
    (tmp_path / "out").mkdir()
    assert main(command) == 0

    def never(*_: object, **__: object) -> ModelChoice:
        raise AssertionError("it is done")

    monkeypatch.setattr("srgan_cli.upscaling.session.choose_model", never)
    assert main(command) == 0


def session(source: Path, **options: object) -> Session:
    options = {"model": "auto", **options}
    return prepare(UpscaleOptions(inputs=(source,), output=source.with_name("out.png"), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scale", "model", "networks"),
    [
        (2, "srgan", "srgan-x2@0.9"),
        (1.5, "auto", "photo-x2"),
        (3, "auto", "photo-x4"),
        (4, "photo", "photo-x4"),
        (8, "photo", "photo-x2 then photo-x4"),
        (8, "auto", "photo-x2 then photo-x4"),
        (16, "fidelity", "fidelity-x4 then fidelity-x4"),
        (8, "srgan", "srgan-x2@0.6 then srgan-x4@0.9"),
        (16, "srgan", "srgan-x4@0.6 then srgan-x4@0.9"),
        (8, "srgan@1", "srgan-x2@0.6667 then srgan-x4@1.0"),
        (8, "srgan@0", "srgan-x2@0.0 then srgan-x4@0.0"),
    ],
)
def test_every_scale_takes_the_right_models(
    models: Path, saved: Saved, monkeypatch: pytest.MonkeyPatch, scale: float, model: str, networks: str
) -> None:
    """And of srgan, less detail where another pass follows, which would make patterns of it."""
    assert DEFAULT_DETAIL == 0.9
    run = session(saved("worn.jpg", quality=30), size=Size(scale=scale), model=model)
    assert run.describe(run.assigned()[0]) == f"model {networks}"


# --------------------------------------------------------------------------------------------------------------- detail


@pytest.mark.parametrize("detail", [0.0, 0.25, 1.0])
def test_detail_is_a_share_of_the_way_between_the_weights(models: Path, detail: float) -> None:
    blended = load_model(f"srgan-x2@{detail}").network.state_dict()
    begin, end = (load_generator(models / f"{name}-x2.safetensors").state_dict() for name in ("fidelity", "srgan"))
    for key, tensor in blended.items():
        torch.testing.assert_close(tensor, begin[key] * (1 - detail) + end[key] * detail, rtol=1e-5, atol=1e-7)
    assert load_model(f"srgan-x2@{detail}").adversarial == (detail > 0)


def test_a_model_without_a_number_has_the_default_detail(models: Path) -> None:
    for name in ("srgan", "srgan-x4"):
        assert load_model(name).sha256 == load_model(f"srgan-x4@{DEFAULT_DETAIL}").sha256
    assert load_model("srgan", 2).name == f"srgan-x2@{DEFAULT_DETAIL:g}"
    assert load_model("srgan@1", 2).name == "srgan-x2"
    assert load_model("srgan@0.3", 2).sha256 != load_model("srgan@0.31", 2).sha256


def test_the_option_is_the_number_behind_the_name(models: Path, saved: Saved, tmp_path: Path) -> None:
    source = saved("a.png")
    results = []
    for number, options in enumerate([("auto", 0.3), ("srgan", 0.3), ("srgan@0.3", None), ("srgan", None)]):
        target = tmp_path / f"{number}.png"
        model, detail = options
        upscale_file(source, target, UpscaleOptions(model=model, detail=detail, engine=EngineOptions("cpu", "fp32")))
        results.append(np.asarray(Image.open(target)))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[1], results[2])
    assert not np.array_equal(results[2], results[3])


def test_another_detail_is_another_result_for_resume(models: Path, saved: Saved) -> None:
    source = saved("a.png")
    keys = [session(source, detail=detail).settings_key for detail in (None, 0.9, 0.5, 0.4)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_what_makes_no_sense_is_refused(models: Path, saved: Saved) -> None:
    for error, model, detail, reason in (
        (SettingsError, "photo", 0.5, "photo has no choice of detail"),
        (SettingsError, "fidelity-x2", 0.5, "fidelity-x2 has no choice of detail"),
        (SettingsError, str(models / "srgan-x2.safetensors"), 0.5, "has no choice of detail"),
        (SettingsError, "srgan@0.2", 0.5, "give the detail once"),
        (WeightsError, "srgan@1.5", None, "goes from 0 to 1, not 1.5"),
        (WeightsError, "srgan@nan", None, "goes from 0 to 1"),
    ):
        with pytest.raises(error, match=reason):
            select(model, detail)
    with pytest.raises(WeightsError, match="no choice of detail"):
        load_model("photo@0.5", 2)
    with pytest.raises(WeightsError, match="there is no model called 'srgan@much'"):
        select("srgan@much")
    for detail in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="detail must be between 0 and 1"):
            UpscaleOptions(detail=detail)


def test_a_damaged_end_of_a_blend_is_told(models: Path) -> None:
    with (models / "fidelity-x4.safetensors").open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"abc")
    with pytest.raises(WeightsError, match=r"fidelity-x4\.safetensors is not the file that came with srgan"):
        load_model("srgan-x4")


def test_names_of_results_say_what_was_asked_for(models: Path, saved: Saved) -> None:
    source = saved("a.png")
    for model, name in (("auto", "a_auto.png"), ("srgan@0.5", "a_srgan@0.5.png"), ("photo", "a_photo.png")):
        options = UpscaleOptions(inputs=(source,), model=model, name_pattern="{stem}_{model}{ext}")
        assert prepare(options).plan.jobs[0].target.name == name
    options = UpscaleOptions(
        inputs=(source,), model=str(models / "photo-x2.safetensors"), name_pattern="{stem}_{model}{ext}"
    )
    assert prepare(options).plan.jobs[0].target.name == "a_photo-x2.png"
