"""Other programs' ONNX files: their requirements are found by running them, and unsuitable ones are one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srgan_cli.cli import main
from srgan_cli.config import EngineOptions
from srgan_cli.engine.upscaler import Upscaler
from srgan_cli.errors import DeviceError, WeightsError
from srgan_cli.networks.onnx_files import OnnxError, OnnxNetwork
from srgan_cli.networks.onnx_format import onnx_model
from srgan_cli.networks.onnx_references import refers_to_files
from srgan_cli.networks.outside import Array
from srgan_cli.networks.weights import Model, load_model
from tests.faults import quieten, tiny_generator

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FLOAT, HALF = 1, 10
Shape = Sequence["str | int"]
ANY: Shape = ("n", 3, "h", "w")


def resize(
    path: Path,
    scale: int = 2,
    *,
    into: Shape = ANY,
    kind: int = FLOAT,
    gain: float | None = None,
    before: Sequence[Any] = (),
    domain: str = "",
    last: str = "",
    **settings: int,
) -> Path:
    """A file whose network repeats pixels, or something near it. `last` is one more operation, with `settings`."""
    make = onnx.helper
    nodes, blob = list(before), before[-1].output[0] if before else "input"
    constants = [onnx.numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")]
    nodes.append(make.make_node("Resize", [blob, "", "scales"], ["large"], mode="nearest", domain=domain))
    blob = "large"
    if gain is not None:
        constants.append(onnx.numpy_helper.from_array(np.array(gain, np.float32), "gain"))
        nodes.append(make.make_node("Mul", [blob, "gain"], ["loud"]))
        blob = "loud"
    result = make.make_tensor_value_info(blob, kind, None)
    if last:
        nodes.append(make.make_node(last, [blob], ["result"], **settings))
        result = onnx.ValueInfoProto(name="result")
    graph = make.make_graph(
        nodes, "g", [make.make_tensor_value_info("input", kind, list(into))],
        [result], constants,
    )  # fmt: skip
    imports = [make.make_opsetid("", 17)] + ([make.make_opsetid(domain, 1)] if domain else [])
    path.write_bytes(make.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    return path


def picture(height: int = 37, width: int = 50) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 255, (height, width, 3), np.uint8)


def upscaled(model: Model, low: np.ndarray, **options: Any) -> np.ndarray:
    return Upscaler(model, EngineOptions("cpu", "fp32", **options)).upscale(low)


@pytest.mark.parametrize(("scale", "kind", "channels"), [(2, FLOAT, 3), (3, FLOAT, 1), (4, HALF, 3), (16, FLOAT, "c")])
def test_scale_channels_and_type_are_found(tmp_path: Path, scale: int, kind: int, channels: int | str) -> None:
    model = load_model(resize(tmp_path / "a.onnx", scale, kind=kind, into=("n", channels, "h", "w")))
    assert (model.scale, model.input_channels) == (scale, 1 if channels == 1 else 3)
    assert model.halo_px is None
    low = picture()
    want = low.repeat(scale, 0).repeat(scale, 1)
    assert np.abs(upscaled(model, low).astype(int) - want).max() <= (1 if kind == HALF else 0)


def test_a_multiple_that_it_needs_is_found_and_made(tmp_path: Path) -> None:
    """Space to depth and back, as networks with an unshuffle before them have it, wants even sides."""
    make = onnx.helper
    down = make.make_node("SpaceToDepth", ["input"], ["small"], blocksize=4)
    up = make.make_node("DepthToSpace", ["small"], ["again"], blocksize=4)
    model = load_model(resize(tmp_path / "a.onnx", before=[down, up]))
    assert (model.scale, model.size_multiple) == (2, 4)
    low = picture()
    assert np.array_equal(upscaled(model, low, tile_px=64), low.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("architecture", ["compact", "srvgg"])
def test_our_export_comes_back_with_its_halo(tmp_path: Path, architecture: str) -> None:
    generator = tiny_generator(architecture)
    quieten(generator, 0.1)
    path = tmp_path / "ours.onnx"
    path.write_bytes(onnx_model(generator, {"halo_px": str(generator.halo_px)}))
    model = load_model(path)
    assert model.halo_px == generator.halo_px
    low = picture()
    with torch.no_grad():
        want = generator(torch.from_numpy(low).permute(2, 0, 1)[None] / 255.0).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(upscaled(model, low, tile_px=16) / 255.0 - want).max() < 0.6 / 255


def test_the_command_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    Image.fromarray(picture()).save(tmp_path / "in.png")
    model = resize(tmp_path / "a.onnx")
    arguments = ["upscale", str(tmp_path / "in.png"), "-m", str(model), "-o", str(tmp_path / "out.png"), "--scale", "2"]
    assert main([*arguments, "-v"]) == 0, capsys.readouterr().err
    with Image.open(tmp_path / "out.png") as high:
        assert high.size == (100, 74)
    assert main([*arguments, "--overwrite", "--device", "vulkan"]) == 5
    assert main([*arguments, "--overwrite", "--device", "cuda"]) == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"into": ("n", 3, 64, 64)}, "64×64 px only"),
        ({"into": ("n", 4, "h", "w")}, "4 channels"),
        ({"into": (2, 3, "h", "w")}, "2 pictures at a time"),
        ({"into": (3, "h", "w")}, "cannot be run"),
        ({"kind": 6}, "takes tensor"),
        ({"scale": 1}, "not a network that enlarges"),
        ({"scale": 17}, "not a network that enlarges"),
        ({"gain": 255.0}, "does not return its picture"),
        ({"gain": 0.0}, "does not return its picture"),
        ({"gain": float("nan")}, "not finite"),
        ({"domain": "com.strangers"}, "cannot be run by ONNX Runtime"),
        ({"last": "ReduceMean", "keepdims": 0}, "become a number"),
        ({"last": "SequenceConstruct"}, "gives seq"),
    ],
)
def test_what_it_is_not_is_a_sentence(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(WeightsError, match=says):
        load_model(resize(tmp_path / "a.onnx", **options))


@pytest.mark.parametrize("data", [b"", b"no model", b"\x08\x08" + b"\xff" * 99])
def test_damage_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(WeightsError):
        load_model(path)
    whole = resize(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError):
        load_model(path)


@pytest.mark.parametrize("place", ["secret.bin", "../above/secret.bin"])
def test_weights_in_another_file_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Neither beside the model, nor in or above the current folder, which are where ONNX Runtime looks."""
    here = tmp_path / "above"
    here.mkdir()
    monkeypatch.chdir(here)
    model = onnx.load(resize(here / "a.onnx", gain=1.0))
    onnx.save(model, here / "b.onnx", save_as_external_data=True, location="secret.bin", size_threshold=0)
    assert (here / "secret.bin").exists()
    model = onnx.load(here / "b.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for fact in tensor.external_data:
            fact.value = place if fact.key == "location" else fact.value
    onnx.save(model, here / "b.onnx")
    with pytest.raises(WeightsError, match="in another file"):
        load_model(here / "b.onnx")


def test_weights_in_another_file_are_found_wherever_a_tensor_may_be() -> None:
    make = onnx.helper
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    sparse = onnx.SparseTensorProto(values=tensor, dims=[1])
    constant = make.make_node("Constant", [], ["c"], value=tensor)
    graph = make.make_graph([constant], "g", [], [])
    holders = [
        make.make_graph([], "g", [], [], [tensor]),
        make.make_graph([], "g", [], [], sparse_initializer=[sparse]),
        graph,
        make.make_graph([make.make_node("If", ["a"], ["b"], then_branch=graph)], "g", [], []),
        make.make_graph([make.make_node("Constant", [], ["c"], sparse_value=sparse)], "g", [], []),
    ]
    assert all(refers_to_files(make.make_model(holder).SerializeToString()) for holder in holders)
    function = make.make_function("d", "f", [], ["c"], [constant], [])
    empty = make.make_graph([], "g", [], [])
    assert refers_to_files(make.make_model(empty, functions=[function]).SerializeToString())
    tensor.ClearField("data_location")
    assert not refers_to_files(make.make_model(make.make_graph([], "g", [], [], [tensor])).SerializeToString())


def test_too_little_memory_halves_the_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(resize(tmp_path / "a.onnx"))
    run = OnnxNetwork.run

    def scarce(self: OnnxNetwork, low: Array) -> Array:
        if low[0].size > 120 * 120:
            raise MemoryError
        return run(self, low)

    monkeypatch.setattr(OnnxNetwork, "run", scarce)
    low = picture(150, 160)
    upscaler = Upscaler(model, EngineOptions("cpu"))
    assert np.array_equal(upscaler.upscale(low), low.repeat(2, 0).repeat(2, 1))
    assert upscaler.statistics.out_of_memory


def test_a_failure_at_work_is_a_device_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upscaler = Upscaler(load_model(resize(tmp_path / "a.onnx")), EngineOptions("cpu"))

    def fail(self: OnnxNetwork, low: Array) -> Array:
        raise OnnxError("a kernel failed")

    monkeypatch.setattr(OnnxNetwork, "run", fail)
    with pytest.raises(DeviceError, match="a kernel failed"):
        upscaler.upscale(picture())


def test_without_the_runtime_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srgan_cli.networks.onnx_files.is_installed", lambda: False)
    with pytest.raises(WeightsError, match="pip install"):
        load_model(resize(tmp_path / "a.onnx"))
