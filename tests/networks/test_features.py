"""VGG19's features, compared with torchvision's own network; and the messages for unsuitable files."""

from __future__ import annotations

import functools
import os
import urllib.error
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.networks.features import VGGFeatures, load_features

REPO = Path(__file__).resolve().parents[2]
TEST_DATA = Path(os.environ.get("SRGAN_TEST_DATA", REPO.parent / "shared" / "data"))
REAL = TEST_DATA.parent / "features" / "vgg19_conv1_1-conv3_4.safetensors"

# By hand from the paper's table 1, column E, with each convolution's place among convolutions, ReLUs and maxima.
PLACES = {"conv1_1": 0, "conv1_2": 2, "conv2_1": 5, "conv2_2": 7, "conv3_1": 10, "conv3_4": 16, "conv4_1": 19}


def theirs(eye: VGGFeatures, count: int) -> nn.Sequential:
    """torchvision's first layers, with the weights of `eye`, and nothing done in place."""
    with torch.device("meta"):
        layers = torchvision.models.vgg19().features[:count]
    layers = layers.to_empty(device="cpu")
    layers.load_state_dict({key.removeprefix("features."): tensor for key, tensor in eye.state_dict().items()})
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    return layers.requires_grad_(False)


def picture(*size: int) -> Tensor:
    return torch.rand(size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("activation", ["before", "after"])
@pytest.mark.parametrize("names", [["conv3_1"], ["conv2_1", "conv1_2"], list(PLACES)[:5]])
def test_features_are_torchvisions(names: list[str], activation: str) -> None:
    eye = VGGFeatures(names, activation)  # type: ignore[arg-type]
    x = (picture(2, 3, 24, 20) - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    expected = {}
    for place, layer in enumerate(theirs(eye, PLACES[eye.layers[-1]] + 2)):
        x = layer(x)
        expected[place] = x
    found = eye(picture(2, 3, 24, 20))
    assert set(found) == set(names)
    for name, tensor in found.items():
        wanted = expected[PLACES[name] + (activation == "after")]
        torch.testing.assert_close(tensor, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_the_deepest_layer_is_torchvisions_last_convolution() -> None:
    eye = VGGFeatures(["conv5_4"])
    with torch.device("meta"):
        expected = torchvision.models.vgg19().features.state_dict()
    found = {key.removeprefix("features."): tensor.shape for key, tensor in eye.state_dict().items()}
    assert found == {key: tensor.shape for key, tensor in expected.items()}
    assert eye(picture(1, 3, 16, 16))["conv5_4"].shape == (1, 512, 1, 1)


def test_gradients_reach_the_picture_and_never_the_weights() -> None:
    eye = load_features("random", ["conv1_2", "conv2_2"])
    x = picture(1, 3, 16, 16).requires_grad_()
    sum(tensor.square().mean() for tensor in eye(x).values()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert x.grad.abs().min() > 0
    assert not any(parameter.requires_grad for parameter in eye.parameters())
    assert not eye.training


def test_a_random_eye_depends_on_its_seed_only_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    shallow, deep = load_features("random", ["conv1_2"], seed=3), load_features("random", ["conv2_2"], seed=3)
    assert torch.equal(torch.rand(3), expected)
    for key, tensor in shallow.state_dict().items():
        assert torch.equal(tensor, deep.state_dict()[key])
    other = load_features("random", ["conv1_2"], seed=4).state_dict()
    assert not torch.equal(other["features.0.weight"], shallow.state_dict()["features.0.weight"])


def test_it_runs_in_half_precision_and_channels_last() -> None:
    eye, x = load_features("random", ["conv1_2", "conv2_1"]), picture(1, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = eye(x)
    for name, tensor in eye(x).items():
        assert half[name].dtype == torch.bfloat16
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert half[name].is_contiguous(memory_format=torch.channels_last)
        assert (half[name].float() - tensor).abs().mean() < 0.02 * tensor.abs().mean()


def test_pictures_that_vanish_in_the_maxima_are_refused() -> None:
    eye = VGGFeatures(["conv3_1"])
    assert eye(picture(1, 3, 4, 7))["conv3_1"].shape == (1, 256, 1, 1)
    with pytest.raises(SettingsError, match="9×3 px; they need 4 px"):
        eye(picture(1, 3, 3, 9))


@pytest.mark.parametrize("layers", [[], ["conv3_5"], ["conv1_1", "relu1_1"]])
def test_layers_that_there_are_not_are_refused(layers: list[str]) -> None:
    with pytest.raises(SettingsError, match="conv1_1 to conv5_4"):
        VGGFeatures(layers)


# -------------------------------------------------------------------------------------------------------------- files


@functools.cache
def weights(deepest: str = "conv2_2") -> dict[str, Tensor]:
    """Which no test changes."""
    return dict(VGGFeatures([deepest], seed=9).state_dict())


def unprefixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("features."): tensor for key, tensor in tensors.items()}


def with_classifier(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("change", [dict, unprefixed, with_classifier])
def test_files_of_both_kinds_and_keys_are_read(
    tmp_path: Path, suffix: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    path = tmp_path / f"vgg{suffix}"
    tensors = change(weights())
    safetensors.torch.save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    eye = load_features("vgg19", ["conv2_1"], weights_file=path)  # shallower than the file
    for key, tensor in eye.state_dict().items():
        assert torch.equal(tensor, weights()[key])


def test_a_file_that_is_too_shallow_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(weights("conv2_1"), path)
    with pytest.raises(
        WeightsError, match=r"holds VGG19's conv1_1, conv1_2, conv2_1, but not conv2_2, conv3_1, needed"
    ):
        load_features("vgg19", ["conv1_2", "conv3_1"], weights_file=path)


def spoilt(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "features.2.bias": torch.full((64,), float("nan"))}


def of_vgg16(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "features.17.weight": torch.zeros(512, 256, 3, 3), "features.17.bias": torch.zeros(512)}


def with_batch_norm(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "features.1.weight": torch.zeros(64)}


def of_something_else(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"body.{key}": tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoilt, "not finite"),
        (of_vgg16, "is not VGG19"),
        (with_batch_norm, "is not VGG19"),
        (of_something_else, "is not VGG19"),
    ],
)
def test_other_networks_and_spoilt_ones_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], words: str
) -> None:
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(change(weights()), path)
    with pytest.raises(WeightsError, match=words):
        load_features("vgg19", ["conv2_1"], weights_file=path)


@pytest.mark.parametrize("name", ["gone.pth", "gone.safetensors"])
def test_a_file_that_is_not_there_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name} cannot be read: No such file"):
        load_features("vgg19", ["conv1_1"], weights_file=tmp_path / name)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors"])
@pytest.mark.parametrize("length", [0, 7, 500])
def test_a_damaged_file_is_told(tmp_path: Path, name: str, length: int) -> None:
    path = tmp_path / name
    tensors = weights("conv1_1")
    safetensors.torch.save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(WeightsError, match=f"{name} (is damaged|cannot be read as weights: it is (damaged|empty))"):
        load_features("vgg19", ["conv1_1"], weights_file=path)


def test_a_pickle_of_something_else_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(WeightsError, match="is damaged, or it contains code, which srgan never runs"):
        load_features("vgg19", ["conv1_1"], weights_file=path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="does not hold named weights"):
        load_features("vgg19", ["conv1_1"], weights_file=path)


@pytest.mark.parametrize("err", [urllib.error.URLError("no network"), RuntimeError("invalid hash value")])
def test_without_a_network_both_ways_out_are_told(monkeypatch: pytest.MonkeyPatch, err: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise err

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(WeightsError, match=r"(no network|invalid hash).*--vgg-weights FILE.*--perceptual random"):
        load_features("vgg19", ["conv1_1"])
    load_features("random", ["conv1_1"])  # the second one


def test_torchvisions_own_weights_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: with_classifier(weights()))
    eye = load_features("vgg19", ["conv2_2"])
    assert torch.equal(eye.state_dict()["features.7.weight"], weights()["features.7.weight"])


@pytest.mark.skipif(not REAL.exists(), reason="needs VGG19's real first layers")
def test_the_real_file_serves_to_conv3_4_and_no_deeper() -> None:
    eye = load_features("vgg19", ["conv3_4"], weights_file=REAL)
    found = eye(picture(1, 3, 32, 32))["conv3_4"]
    assert 100 < found.std() < 10_000  # large, as those of the original are
    with pytest.raises(WeightsError, match=r"holds VGG19's conv1_1, .*conv3_4, but not conv4_1, needed for conv4_1"):
        load_features("vgg19", ["conv4_1"], weights_file=REAL)
