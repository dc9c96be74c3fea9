"""Other programs' ncnn files: examined by running them, in a process that may crash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from srgan_cli.cli import main
from srgan_cli.errors import WeightsError
from srgan_cli.networks import ncnn_process
from srgan_cli.networks.ncnn_files import NcnnNetwork
from srgan_cli.networks.ncnn_format import ncnn_model
from srgan_cli.networks.ncnn_process import NcnnError
from srgan_cli.networks.weights import load_model
from tests.faults import quieten, tiny_generator, tiny_model

pytest.importorskip("ncnn")


def write(folder: Path, scale: int = 4, *, loud: float = 1.0) -> Path:
    generator = tiny_generator(scale=scale)
    quieten(generator, 0.1 * loud)
    written = ncnn_model(generator)
    folder.joinpath("x.param").write_text(written.param, encoding="ascii")
    folder.joinpath("x.bin").write_bytes(written.weights)
    return folder / "x.param"


@pytest.mark.parametrize("scale", [2, 4])
def test_scale_and_halo_are_found(tmp_path: Path, scale: int) -> None:
    model = load_model(write(tmp_path, scale))
    ours = tiny_model(scale=scale)
    assert (model.scale, model.halo_px, model.size_multiple, model.minimum_size_px) == (scale, ours.halo_px, 1, 1)
    assert model.name == "x"


def test_an_upscaled_picture_is_the_networks(tmp_path: Path) -> None:
    from PIL import Image

    low = np.random.default_rng(0).integers(0, 255, (21, 33, 3), np.uint8)
    Image.fromarray(low).save(tmp_path / "in.png")
    model = write(tmp_path)
    arguments = ["upscale", str(tmp_path / "in.png"), "-o", str(tmp_path / "out.png"), "-m", str(model)]
    assert main([*arguments, "--device", "cpu", "-q"]) == 0
    with Image.open(tmp_path / "out.png") as high:
        found = np.asarray(high, np.float32) / 255
    generator = tiny_generator()
    quieten(generator, 0.1)
    with torch.no_grad():
        want = generator(torch.from_numpy(low).permute(2, 0, 1)[None] / 255.0).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - want).max() < 0.6 / 255


def test_a_device_that_ncnn_does_not_have(tmp_path: Path) -> None:
    assert (
        main(["upscale", str(tmp_path), "-o", str(tmp_path / "o"), "-m", str(write(tmp_path)), "--device", "cuda"]) != 0
    )


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda param: param.with_suffix(".bin").unlink(), "not beside it"),
        (lambda param: param.with_suffix(".bin").write_bytes(b""), "empty"),
        (lambda param: param.write_bytes(b"\xff\xfe\x00"), "not an ncnn .param file"),
        (lambda param: param.write_text(param.read_text().replace("PReLU  ", "Unheard")), "not a network|cannot"),
        (lambda param: param.write_text(param.read_text().replace(" 0=4", " 0=1")), "not a network that"),
    ],
)  # fmt: skip
def test_damage_is_a_sentence(tmp_path: Path, damage: object, says: str) -> None:
    param = write(tmp_path)
    damage(param)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=says):
        load_model(param)


def test_a_file_of_weights_that_is_cut_short(tmp_path: Path) -> None:
    param = write(tmp_path)
    weights = param.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(WeightsError):
        load_model(param)


def test_what_is_no_picture_any_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not return its picture"):
        load_model(write(tmp_path, loud=200.0))


def test_without_ncnn_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.networks.ncnn_files.is_installed", lambda: False)
    with pytest.raises(WeightsError, match="pip install"):
        load_model(write(tmp_path))


# ------------------------------------------------------------------------------------------------------- its process


def network(**options: object) -> NcnnNetwork:
    written = ncnn_model(tiny_generator())
    return NcnnNetwork(written.param, written.weights, device=None, **options)  # type: ignore[arg-type]


LOW = np.zeros((3, 8, 8), np.float32)


def test_a_process_that_dies_is_an_error_and_the_next_run_begins_another() -> None:
    one = network()
    want = one.run(LOW)
    process = one._process
    assert process is not None
    process._process.kill()
    process._process.wait()
    assert np.array_equal(one.run(LOW), want)
    assert one._process is not process


def test_death_in_the_middle_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn_process, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(NcnnError, match="SIGSEGV"):
        network().run(LOW)


def test_a_driver_without_memory_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ncnn_process, "_START", "import sys; sys.stderr.write('vkAllocateMemory failed -2\\n'); sys.exit(1)"
    )
    with pytest.raises(MemoryError):
        network().run(LOW)


def test_an_error_leaves_the_process_alive() -> None:
    one = network(output_blob="no such blob")
    with pytest.raises(NcnnError, match="failed with code"):
        one.run(LOW)
    assert one._process is not None
    assert one._process.is_alive
    one.close()
    assert not one._process.is_alive
