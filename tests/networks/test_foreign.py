"""Other programs' weights: real architectures with random weights, and malicious files."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from srgan_cli.errors import WeightsError
from srgan_cli.networks.weights import Model, load_generator, load_model

spandrel = pytest.importorskip("spandrel")
from spandrel.architectures.Compact import Compact  # noqa: E402
from spandrel.architectures.DnCNN import DnCNN  # noqa: E402
from spandrel.architectures.ESRGAN import ESRGAN  # noqa: E402
from spandrel.architectures.RCAN import RCAN  # noqa: E402
from spandrel.architectures.SPAN import SPAN  # noqa: E402
from spandrel.architectures.SwinIR import SwinIR  # noqa: E402


def srvgg(**more: int) -> nn.Module:
    return Compact(**{"num_feat": 4, "num_conv": 3, "upscale": 4, **more})


def rrdb(**more: int) -> nn.Module:
    return ESRGAN(**{"num_filters": 4, "num_blocks": 1, "scale": 4, **more})


def swinir() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of torch; we load it without a word
        return SwinIR(
            depths=[2],
            num_heads=[2],
            embed_dim=8,
            window_size=4,
            mlp_ratio=2,
            upscale=2,
            upsampler="pixelshuffledirect",
        )


def rcan() -> nn.Module:
    return RCAN(n_colors=3, n_feats=8, n_resgroups=1, n_resblocks=1, reduction=4, scale=2)


def loaded(module: nn.Module, path: Path) -> Model:
    """The module's weights, written as other programs write them, and read by us."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(module.state_dict(), path)
    else:
        torch.save({"params_ema": module.state_dict()}, path)
    return load_model(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_a_foreign_model_runs_as_its_own_program_would(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    module = rrdb().eval()
    model = loaded(module, tmp_path / f"4x_Foreign{suffix}")
    low = torch.rand(2, 3, 11, 7)
    with torch.no_grad():
        assert torch.equal(model.network(low), module(low).clamp(0, 1))
        assert torch.equal(model.subpixels(low), model.network(low))
    assert (model.name, model.architecture, model.scale, model.shuffle) == ("4x_Foreign", "ESRGAN", 4, 1)
    assert (model.input_channels, model.output_channels, model.entry, model.adversarial) == (3, 3, None, False)
    assert not any(p.requires_grad for p in model.network.parameters())
    assert len(model.sha256) == 64


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".safetensors"])
def test_an_srvgg_of_another_program_is_one_of_ours(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)  # it is not needed
    torch.manual_seed(1)
    module = srvgg().eval()
    model = loaded(module.half(), tmp_path / f"4x_Foreign{suffix}")
    low = torch.rand(2, 3, 11, 7)
    with torch.no_grad():
        torch.testing.assert_close(model.network(low), module.float()(low), atol=1e-6, rtol=0)
    assert (model.name, model.architecture, model.scale, model.shuffle) == ("4x_Foreign", "srvgg", 4, 4)
    assert (model.input_channels, model.output_channels, model.entry, model.adversarial) == (3, 3, None, False)
    assert not any(p.requires_grad for p in model.network.parameters())
    trained = load_generator(tmp_path / f"4x_Foreign{suffix}")
    trained(low).mean().backward()
    assert all(p.grad is not None for p in trained.parameters())


def test_other_networks_are_not_trained(tmp_path: Path) -> None:
    loaded(rrdb(), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="cannot train a network of its kind: ESRGAN"):
        load_generator(tmp_path / "a.pth")


def test_a_copy_runs_in_half_precision_on_its_own(tmp_path: Path) -> None:
    model = loaded(rrdb(), tmp_path / "a.pth")
    low = torch.rand(1, 3, 9, 9)
    half = copy.deepcopy(model.network).to(torch.bfloat16)
    with torch.no_grad():
        assert half(low).dtype == torch.float32
        assert float((half(low) - model.network(low)).abs().max()) < 0.1
    assert next(model.network.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "halo_px"),
    [
        # 3×3 convolutions only: first, body and last, all at low resolution.
        (srvgg, 5),
        (lambda: srvgg(num_conv=16, upscale=2), 18),
        # First; one block of three times five; the trunk's last; then 1/2 + three times 1/4, so 19 in whole px.
        (rrdb, 19),
        # At scale 2, three times 1/2.
        (lambda: rrdb(scale=2), 19),
        # First, six blocks of three, last and the one before the shuffle; a layer's 1×1 – 3×3 – 1×1 reaches 1.
        (lambda: SPAN(num_in_ch=3, num_out_ch=3, feature_channels=4, upscale=2), 21),
    ],
)
def test_the_halo_of_a_local_network_is_measured(tmp_path: Path, make: Callable[[], nn.Module], halo_px: int) -> None:
    model = loaded(make(), tmp_path / "a.pth")
    assert model.halo_px == halo_px
    assert_tiled_equals_whole(model, halo_px)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rrdb(num_blocks=9),  # a field above 128 px
        lambda: rrdb(in_nc=12, out_nc=3, scale=4, shuffle_factor=2),  # sees pairs of pixels, so not the same everywhere
        swinir,  # windows
        rcan,  # a mean of everything
    ],
    ids=["large", "pairs", "windows", "global"],
)
def test_no_halo_is_promised_where_there_is_none(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    assert loaded(make(), tmp_path / "a.pth").halo_px is None


def assert_tiled_equals_whole(model: Model, halo_px: int) -> None:
    """A picture cut in two at an odd place, each part with its context, is the picture."""
    low = torch.rand(1, model.input_channels, 12, 2 * halo_px + 15)
    cut = halo_px + 7
    with torch.no_grad():
        whole = model.network(low)
        left = model.network(low[..., : cut + halo_px])[..., : cut * model.scale]
        right = model.network(low[..., cut - halo_px :])[..., halo_px * model.scale :]
    torch.testing.assert_close(torch.cat([left, right], dim=-1), whole, atol=1e-5, rtol=0)


def test_grey_models_say_so(tmp_path: Path) -> None:
    model = loaded(srvgg(num_in_ch=1, num_out_ch=1), tmp_path / "grey.pth")
    assert (model.input_channels, model.output_channels) == (1, 1)
    with torch.no_grad():
        assert model.network(torch.rand(1, 1, 5, 6)).shape == (1, 1, 20, 24)


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (8, 8)])
def test_sizes_a_network_cannot_take_are_padded(tmp_path: Path, size: tuple[int, int]) -> None:
    model = loaded(rrdb(in_nc=12, out_nc=3, scale=4, shuffle_factor=2), tmp_path / "a.pth")
    assert (model.scale, model.size_multiple, model.minimum_size_px) == (2, 4, 4)
    with torch.no_grad():
        assert model.network(torch.rand(1, 3, *size)).shape == (1, 3, 2 * size[0], 2 * size[1])


def test_precisions_a_network_cannot_take_are_told(tmp_path: Path) -> None:
    model = loaded(rcan(), tmp_path / "a.pth")
    assert (model.supports_half, model.supports_bf16) == (False, True)


def test_loading_leaves_the_dice_alone(tmp_path: Path) -> None:
    torch.save(rrdb().state_dict(), tmp_path / "a.pth")
    state = torch.get_rng_state()
    load_model(tmp_path / "a.pth")
    assert torch.equal(torch.get_rng_state(), state)


def refused(path: Path, words: str) -> None:
    with pytest.raises(WeightsError, match=words) as caught:
        load_model(path)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_networks_for_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(DnCNN(in_nc=3, out_nc=3, nc=4, nb=17, act_mode="R").state_dict(), path)
    refused(path, "restores without enlarging")
    torch.save(srvgg(num_in_ch=4, num_out_ch=4).state_dict(), path)
    refused(path, "4 colour channels")
    torch.save({"some.weight": torch.zeros(3)}, path)
    refused(path, "neither srgan nor spandrel knows")


def test_damage_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    state = srvgg().state_dict()
    torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "cannot be read as weights")
    torch.save({**state, "body.2.weight": torch.zeros(5, 5, 3, 3)}, path)
    refused(path, "does not fit")
    torch.save({**state, "body.2.weight": "hello"}, path)
    refused(path, "does not fit")
    torch.save({**state, "body.0.bias": torch.full((4,), float("nan"))}, path)
    refused(path, "not finite")
    torch.save([1, 2, 3], path)
    refused(path, "does not contain weights, but a list")
    torch.save({}, path)
    refused(path, "neither srgan nor spandrel knows")
    torch.save({1: torch.zeros(1), 2: torch.zeros(1)}, path)
    refused(path, r"a\.pth")


def test_a_network_much_larger_than_its_file_is_not_built(tmp_path: Path) -> None:
    """Sizes come from names and shapes in the file. With a block's number that high, building it would never end."""
    shapes = {"conv_first": (64, 3), "conv_body": (64, 64), "conv_up1": (64, 64), "conv_up2": (64, 64),
              "conv_hr": (64, 64), "conv_last": (3, 64), "body.0.rdb1.conv1": (32, 64),
              "body.1000000000.rdb1.conv1": (32, 64)}  # fmt: skip
    torch.save({f"{name}.weight": torch.zeros(*shape, 3, 3) for name, shape in shapes.items()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "much larger than the file")


class Malice:
    """Unpickled without care, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
@pytest.mark.parametrize("form", ["zip", "plain pickle", "legacy"])
def test_no_code_in_a_file_is_run(tmp_path: Path, suffix: str, form: str) -> None:
    target, path = tmp_path / "proof", tmp_path / f"evil{suffix}"
    content = OrderedDict({"body.0.weight": torch.zeros(4, 3, 3, 3), "body.1.weight": Malice(target)})
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"params": Malice(target)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refused(path, "contains code, which srgan never runs")
    assert not target.exists()
    with pytest.raises((pickle.UnpicklingError, FileExistsError, TypeError, AttributeError, RuntimeError, KeyError)):
        raise_if_harmless(path, target)
    assert target.is_dir()


def raise_if_harmless(path: Path, target: Path) -> None:
    """The test's own test: read without care, the file does its harm."""
    torch.load(path, weights_only=False)
    raise FileExistsError if target.is_dir() else AssertionError("the file was harmless, so the test proves nothing")


def test_a_torchscript_archive_is_a_program(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/constants.pkl", pickle.dumps(()))
        archive.writestr("script/data.pkl", pickle.dumps({}))
        archive.writestr("script/code/__torch__.py", "class Net: ...")
        archive.writestr("script/version", "3")
    refused(path, "contains code, which srgan never runs")


def test_without_spandrel_one_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    torch.save(rrdb().state_dict(), path)
    monkeypatch.setitem(sys.modules, "spandrel", None)  # as if it were not installed
    refused(path, r"pip install '.*\[spandrel\]'")


def test_the_result_never_leaves_the_range(tmp_path: Path) -> None:
    model = loaded(rrdb(), tmp_path / "a.pth")
    high: Tensor = model.network(10 * torch.rand(1, 3, 4, 4))
    assert 0.0 <= float(high.min()) <= float(high.max()) <= 1.0
