"""`--grain`: the input's grain on the result, independent of how the picture is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import Upscaler
from srgan_cli.cli import main
from srgan_cli.cli.serve import parse
from srgan_cli.config import EngineOptions, UpscaleOptions, WriteOptions
from srgan_cli.errors import SettingsError
from srgan_cli.imaging.grain import measure
from srgan_cli.imaging.reading import read_image
from srgan_cli.sizes import Size
from srgan_cli.upscaling import graining, journal, plan
from srgan_cli.upscaling.session import prepare
from tests.engine.engines import fp32
from tests.faults import Blurring, Nearest, model_of, save_tiny
from tests.upscaling.crews import by_threads
from tests.upscaling.watch import Watch

pytestmark = pytest.mark.timeout(60)
SIDE, SCALE = 160, 2
Array = np.ndarray[Any, Any]


def grainy(std: float = 6.0, channels: int = 3, seed: int = 0) -> Array:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    ramp = (60 + columns * 0.6 + rows * 0.2)[:, :, None]
    noise = np.random.default_rng(seed).normal(0, std, (SIDE, SIDE, channels))
    pixels: Array = (ramp + noise).round().clip(0, 255).astype(np.uint8)
    return pixels


def saved(path: Path, pixels: Array) -> Path:
    Pillow.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(path)
    return path


def made(
    source: Path,
    target: str,
    tile_px: int | None = None,
    *,
    network: Any = None,
    watch: Watch | None = None,
    **options: Any,
) -> Array:
    """Through a network that takes grain away."""
    network = network or Blurring(3, SCALE)
    asked = UpscaleOptions(
        inputs=(source,), output=source.parent / target, size=Size(scale=SCALE), **{"grain": "auto", **options}
    )
    tally = prepare(asked, upscaler=Upscaler(model_of(network), fp32(tile_px))).run(watch or Watch())
    assert not tally.failures, tally.failures
    return np.asarray([]) if tally.interrupted else read(source.parent / target)


def read(path: Path) -> Array:
    return read_image(path, max_pixels=1 << 30).pixels


def strength(pixels: Array) -> float:
    """In px of the input."""
    height, width = pixels.shape[0] // SCALE, pixels.shape[1] // SCALE
    small = pixels.reshape(height, SCALE, width, SCALE, -1).mean((1, 3))
    found = measure([(small * 257).round().astype(np.uint16)])
    return 0.0 if found is None else found.grain.levels


@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_has_the_grain_of_the_input(tmp_path: Path, channels: int) -> None:
    source, watch = saved(tmp_path / "in.png", grainy(6, channels)), Watch()
    assert strength(made(source, "clean.png", grain=None)) < 1.5
    assert strength(made(source, "out.png", watch=watch)) == pytest.approx(6, rel=0.15)
    assert any("grain of 6." in sentence or "grain of 5." in sentence for sentence in watch.details)


def test_what_the_network_has_left_is_not_put_back(tmp_path: Path) -> None:
    source = saved(tmp_path / "in.png", grainy(6))
    np.testing.assert_array_equal(
        made(source, "out.png", network=Nearest(SCALE)), made(source, "plain.png", network=Nearest(SCALE), grain=None)
    )


def test_sixteen_bits_and_transparency(tmp_path: Path) -> None:
    alpha = np.concatenate([grainy(), np.full((SIDE, SIDE, 1), 255, np.uint8)], 2)
    alpha[:, :20, 3] = 0
    source = saved(tmp_path / "in.png", alpha)
    result, plain = made(source, "out.png"), made(source, "plain.png", grain=None)
    np.testing.assert_array_equal(result[..., 3], plain[..., 3])
    assert (result[..., :3] != plain[..., :3]).any()
    wide = made(source, "wide.tif", write=WriteOptions(bit_depth=16))
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257.0 - result).max() < 1.5


def test_tiles_do_not_matter(tmp_path: Path) -> None:
    source = saved(tmp_path / "in.png", grainy())
    whole = made(source, "whole.png")
    for tile_px in (16, 50):
        parts = made(source, f"{tile_px}.png", tile_px)
        # The network's own results agree to rounding, before what is put on.
        assert np.abs(whole.astype(int) - parts).max() <= 2


def test_faded_tiles_get_theirs_where_they_are_final(tmp_path: Path) -> None:
    class Unbounded(Blurring):
        def __init__(self) -> None:
            super().__init__(3, SCALE)
            self.halo_px = None

    source = saved(tmp_path / "in.png", grainy())
    whole, parts = made(source, "a.png", 400, network=Unbounded()), made(source, "b.png", 64, network=Unbounded())
    assert np.abs(whole.astype(int) - parts).max() <= 2


def test_a_run_that_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.upscaling.places.CANVAS_BYTES", 0)
    monkeypatch.setattr(plan, "CANVAS_BYTES", 0)
    monkeypatch.setattr(journal, "EVERY_SECONDS", 0.0)
    source = saved(tmp_path / "in.png", grainy())
    whole = made(source, "whole.png", 16)
    made(source, "out.png", 16, watch=Watch(4), resume=True)
    assert not (tmp_path / "out.png").exists()
    assert np.abs(made(source, "out.png", 16, resume=True).astype(int) - whole).max() <= 2


def test_the_grain_decides_what_is_done_already(tmp_path: Path) -> None:
    source = saved(tmp_path / "in.png", grainy())
    made(source, "out.png", resume=True)

    def left(**options: Any) -> int:
        asked = UpscaleOptions(
            inputs=(source,), output=tmp_path / "out.png", size=Size(scale=SCALE), resume=True, **options
        )
        return len(prepare(asked, upscaler=Upscaler(model_of(Blurring(3, SCALE)), fp32())).plan.jobs)

    assert left(grain="auto") == 0
    assert (left(grain="auto", seed=1), left(grain=0.5), left()) == (1, 1, 1)
    without = left(grain=None, seed=3), left(grain=None)
    assert without == (1, 1)


def test_a_crew_makes_the_same(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "tiny.safetensors", SCALE, features=4)
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "a.png", grainy())

    def asked(output: str) -> Any:
        return prepare(
            UpscaleOptions(
                inputs=(tmp_path / "in",), output=tmp_path / output, output_is_folder=True, model=str(model),
                engine=EngineOptions("cpu", "fp32", 32), size=Size(scale=SCALE), split_pixels=100, grain="auto",
            )
        )  # fmt: skip

    assert not asked("alone").run(Watch()).failures
    tally, _, crew = by_threads(asked("crew"))
    assert (tally.failures, tally.error) == ([], None)
    assert len(crew.units) > 4, "its bands were not shared out"
    np.testing.assert_array_equal(read(tmp_path / "crew" / "a.png"), read(tmp_path / "alone" / "a.png"))


def test_pages_have_their_own_and_frames_share_one(tmp_path: Path) -> None:
    pages = [Pillow.fromarray(grainy())] * 2
    pages[0].save(tmp_path / "in.tif", save_all=True, append_images=pages[1:])
    made(tmp_path / "in.tif", "out.tif")
    with Pillow.open(tmp_path / "out.tif") as out:
        first = np.asarray(out).astype(int)
        out.seek(1)
        assert (np.asarray(out) != first).mean() > 0.5
    pages[0].save(tmp_path / "in.png", save_all=True, append_images=[Pillow.fromarray(grainy()[::-1]), pages[0]])
    made(tmp_path / "in.png", "moving.png")
    with Pillow.open(tmp_path / "moving.png") as out:
        frames = []
        for number in range(3):
            out.seek(number)
            frames.append(np.asarray(out).astype(int))
    assert np.abs(frames[0] - frames[2]).max() <= 1, "what stands still flickers"
    assert (frames[0] != frames[1]).mean() > 0.5


def test_a_strength_of_its_own(tmp_path: Path) -> None:
    flat = np.full((SIDE, SIDE, 3), 118, np.uint8)
    source = saved(tmp_path / "in.png", flat)
    assert made(source, "auto.png").std() == 0, "grain where there is none"
    weak, strong = (made(source, f"{amount}.png", grain=amount) for amount in (0.25, 1.0))
    assert weak[..., 0].std() == pytest.approx(3, rel=0.1)
    assert strong[..., 0].std() == pytest.approx(12, rel=0.1)
    assert made(source, "none.png", grain=0.0).std() == 0
    np.testing.assert_array_equal(made(source, "again.png", grain=1.0), strong)
    assert (made(source, "other.png", grain=1.0, seed=1) != strong).any()


def test_large_and_narrow_pictures_are_looked_at_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graining, "_LOOKED_AT_PX", SIDE * SIDE // 2)
    monkeypatch.setattr(graining, "_STRIP_ROWS", 48)
    assert strength(made(saved(tmp_path / "in.png", grainy(6)), "out.png")) == pytest.approx(6, rel=0.2)
    narrow = saved(tmp_path / "narrow.png", np.concatenate([grainy(6)[:20]] * 4, 1))
    assert made(narrow, "narrow-out.png").shape == (40, SIDE * 8, 3)


@pytest.mark.parametrize("options", [{"grain": 1.5}, {"grain": -0.1}, {"grain": "much"}, {"seed": -1}])
def test_what_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"grain must be auto or between|seed must be"):
        UpscaleOptions(**options)


def test_as_options_of_the_command_and_of_a_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = saved(tmp_path / "in.png", grainy())
    assert main(["upscale", str(source), "--grain", "much"]) == 2
    assert "'much' is neither auto nor a number from 0 to 1" in capsys.readouterr().err
    assert main(["upscale", str(source), "--grain", "auto", "--dry-run"]) == 0
    asked = parse({"grain": "auto", "seed": "3"})
    assert (asked.grain, asked.seed) == ("auto", 3)
    assert parse({"grain": "0.4"}).grain == 0.4
