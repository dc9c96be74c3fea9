"""`upscale_file` for bytes and file objects, with a loaded upscaler, from several threads; and the example service."""

from __future__ import annotations

import importlib.util
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from srgan_cli import EngineOptions, Size, UpscaleOptions, Upscaler, WriteOptions, load_model, upscale_file
from srgan_cli.engine import bands
from srgan_cli.errors import SettingsError, UnreadablePictureError, UnwritablePictureError, in_python
from tests.faults import save_tiny
from tests.upscaling.pictures import picture, tree

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> UpscaleOptions:
    file = save_tiny(tmp_path_factory.mktemp("weights") / "tiny.safetensors", 4, features=4)
    return UpscaleOptions(model=str(file), engine=EngineOptions("cpu", "fp32"))


@pytest.fixture(scope="module")
def upscaler(options: UpscaleOptions) -> Upscaler:
    return Upscaler(load_model(options.model), options.engine)


def pixels(data: bytes | Path) -> Any:
    with Pillow.open(io.BytesIO(data) if isinstance(data, bytes) else data) as result:
        return np.asarray(result).astype(int)


def test_bytes_and_file_objects_in_and_out(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.png")
    data = source.read_bytes()
    expected = pixels(upscale_file(source, tmp_path / "out.png", options))
    from_bytes = upscale_file(data, None, options)
    np.testing.assert_array_equal(pixels(from_bytes), expected)
    into = io.BytesIO()
    with source.open("rb") as file:
        upscale_file(file, into, options)
    assert into.getvalue() == from_bytes
    upscale_file(memoryview(data), tmp_path / "again.png", options)
    np.testing.assert_array_equal(pixels(tmp_path / "again.png"), expected)
    assert tree(tmp_path) == {"in.png", "out.png", "again.png"}


def test_the_format_of_bytes_is_the_inputs_own_or_as_asked(tmp_path: Path, options: UpscaleOptions) -> None:
    data = picture(tmp_path / "in.jpg").read_bytes()
    for write, expected in ((WriteOptions(), "JPEG"), (WriteOptions(format="webp"), "WEBP")):
        with Pillow.open(io.BytesIO(upscale_file(data, None, replace(options, write=write)))) as result:
            assert result.format == expected


def test_a_held_upscaler_gives_the_same_and_loads_nothing(
    tmp_path: Path, options: UpscaleOptions, upscaler: Upscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = picture(tmp_path / "in.png")
    expected = pixels(upscale_file(source, None, options))
    monkeypatch.setattr("srgan_cli.networks.weights.load_model", None)
    np.testing.assert_array_equal(pixels(upscale_file(source, upscaler=upscaler)), expected)
    half = upscale_file(source, None, UpscaleOptions(size=Size(scale=2)), upscaler=upscaler)
    assert pixels(half).shape == (18, 24, 3)
    with pytest.raises(SettingsError, match="enlarges 4 times, but 8 times"):
        upscale_file(source, None, UpscaleOptions(size=Size(scale=8)), upscaler=upscaler)
    with pytest.raises(SettingsError, match="model and detail"):
        upscale_file(source, None, UpscaleOptions(model="fast"), upscaler=upscaler)


def test_how_a_held_upscaler_works_is_recorded(tmp_path: Path) -> None:
    source = picture(tmp_path / "in.png", 8, 8)
    low = pixels(source).astype(np.uint8)
    model = load_model(save_tiny(tmp_path / "noisy.safetensors", 2, noise=True))
    engine, double = EngineOptions("cpu", "fp32", ensemble=True), UpscaleOptions(size=Size(scale=2))
    plain, averaged = Upscaler(model, replace(engine, ensemble=False)), Upscaler(model, engine)
    for upscaler, asked in ((averaged, EngineOptions()), (plain, engine), (averaged, engine)):
        made = upscale_file(source, None, replace(double, engine=asked, seed=3), upscaler=upscaler)
        with Pillow.open(io.BytesIO(made)) as result:
            assert ("(ensemble)" in str(result.info)) is (upscaler is averaged)
        np.testing.assert_array_equal(pixels(made), upscaler.varied(3).upscale(low))
    target, resuming = tmp_path / "out.png", replace(double, resume=True)
    upscale_file(source, target, resuming, upscaler=plain)
    before = pixels(target)
    upscale_file(source, target, resuming, upscaler=averaged)
    assert not np.array_equal(pixels(target), before), "made again, since the settings differ"
    upscale_file(source, None, replace(double, variation=0.0), upscaler=averaged)
    with pytest.raises(SettingsError, match="averages the variants"):
        upscale_file(source, None, replace(double, variation=0.5), upscaler=averaged)


def test_progress_rises_to_the_end(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.png", 20, 90)
    seen: list[float] = []
    small_tiles = replace(options, engine=EngineOptions("cpu", "fp32", tile_px=16))
    upscale_file(source, None, small_tiles, progress=seen.append)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == 1

    def give_up(_done: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        upscale_file(source, tmp_path / "out.png", small_tiles, progress=give_up)
    assert tree(tmp_path) == {"in.png"}


def test_progress_rises_within_a_tile_and_may_end_the_work_there(
    tmp_path: Path, options: UpscaleOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bands, "FOLLOWED_PX", 1)
    source = picture(tmp_path / "in.png", 20, 90)
    seen: list[float] = []

    def tell(done: float) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise RuntimeError("which is not the device's")

    upscale_file(source, None, options, progress=seen.append)
    assert len(seen) > 4
    assert seen == sorted(set(seen))
    seen.clear()
    with pytest.raises(RuntimeError, match="which is not the device's"):
        upscale_file(source, tmp_path / "out.png", options, progress=tell)
    assert len(seen) == 3
    assert tree(tmp_path) == {"in.png"}


def test_several_threads_may_share_one(tmp_path: Path, upscaler: Upscaler) -> None:
    sources = [picture(tmp_path / f"{number}.png", 20 + number, 15).read_bytes() for number in range(8)]
    alone = [upscale_file(source, upscaler=upscaler) for source in sources]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda source: upscale_file(source, upscaler=upscaler), sources))
    assert together == alone


# -------------------------------------------------------------------------------------------------------------- errors


def test_errors_speak_python(tmp_path: Path, options: UpscaleOptions) -> None:
    source = picture(tmp_path / "in.png", mode="RGBA")
    picture(tmp_path / "there.png")
    with pytest.raises(SettingsError, match="give overwrite=True, skip_existing=True or resume=True, or another targ"):
        upscale_file(source, tmp_path / "there.png", options)
    with pytest.raises(UnwritablePictureError, match="background=COLOUR"):
        upscale_file(source, tmp_path / "out.jpg", options)
    with pytest.raises(UnreadablePictureError, match="raise max_pixels"):
        upscale_file(source, None, replace(options, max_pixels=4))
    with pytest.raises(SettingsError, match=r"^png_level must be between"):
        WriteOptions(png_level=12)
    with pytest.raises(SettingsError, match=r"^give only one of scale, width"):
        Size(scale=2, width=3)
    with pytest.raises(SettingsError, match="in mm"):
        Size(paper="A3")  # type: ignore[arg-type]
    command = "give --variants 2, or `srgan train --set a=2`, see --overwrite"
    assert in_python(command) == "give variants=2, or `srgan train --set a=2`, see overwrite=True"
    assert in_python("GIF has few colours; --format gif keeps GIF") == "GIF has few colours; format=gif keeps GIF"
    assert "--" not in in_python("give --overwrite, --tile 64, --print or -o - (see --max-pixels)")


@pytest.mark.parametrize("source", ["-", b"", b"text", io.BytesIO(b"GIF89a")])
def test_what_is_no_picture(source: Any, options: UpscaleOptions) -> None:
    with pytest.raises((SettingsError, UnreadablePictureError)):
        upscale_file(source, None, options)


# ------------------------------------------------------------------------------------------------------ the web service


@pytest.fixture
def service(upscaler: Upscaler) -> Iterator[str]:
    spec = importlib.util.spec_from_file_location("service", ROOT / "examples" / "service.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.Handler.log_message = lambda *_args: None
    with module.Service(0, upscaler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_example_service(service: str, tmp_path: Path) -> None:
    data = picture(tmp_path / "in.png").read_bytes()
    with urllib.request.urlopen(f"{service}/upscale?scale=2&format=webp", data, timeout=30) as answer:
        large = answer.read()
    with Pillow.open(io.BytesIO(large)) as result:
        assert (result.size, result.format) == ((24, 18), "WEBP")
    for path, body, status in (
        ("upscale", b"text", 415),
        ("upscale?scale=99", data, 400),
        ("upscale?scale=x", data, 400),
        ("upscale?format=psd", data, 400),
        ("nothing", data, 404),
        ("upscale", b"", 413),
    ):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{service}/{path}", body, timeout=30)
        assert caught.value.code == status
        caught.value.close()


def test_what_is_no_picture_file_is_no_defect_of_srgan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "in.png", 8, 6)
    with Path("in.png").open(errors="replace") as text, pytest.raises(TypeError, match="'rb'"):
        upscale_file(text, None)  # type: ignore[call-overload]
    for other in (None, np.zeros((6, 8, 3), np.uint8)):
        with pytest.raises(TypeError, match=r"not (NoneType|ndarray)"):
            upscale_file(other, None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="'wb'"):
        upscale_file("in.png", io.StringIO())  # type: ignore[call-overload]
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
