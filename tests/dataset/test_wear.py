"""Learned wear: the untrained network, its random inputs, its codecs and its file."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from srgan_cli.dataset import degradation, wear_files
from srgan_cli.dataset.codecs import Compression
from srgan_cli.dataset.degradation import bicubic_down
from srgan_cli.dataset.wear import (
    CODE,
    FileSign,
    Wear,
    WearConfig,
    Wearer,
    compressed,
    drawn_compression,
    random_inputs,
)
from srgan_cli.dataset.wear_files import load_wear, save_wear, signs_of
from srgan_cli.dataset.wear_header import check_wear, wear_path
from srgan_cli.errors import SettingsError, WeightsError
from srgan_cli.training_data_config import DegradationSettings
from tests.imaging.test_drawn import tiles
from tests.imaging.test_signs import decoded, jpeg

CPU = torch.device("cpu")


def made(scale: int = 2, blur_px: int = 5) -> Wearer:
    torch.manual_seed(0)
    return Wearer(WearConfig(scale, features=4, blocks=1, blur_px=blur_px)).eval().requires_grad_(False)


def high(count: int = 2, side_px: int = 48) -> Tensor:
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, side_px, mode="bicubic").clamp(0, 1)


def worn(network: Wearer, pictures: Tensor, seeds: list[int]) -> Tensor:
    low = bicubic_down(pictures, network.scale)
    height, width = low.shape[2:]
    found: Wear = network(low, pictures, random_inputs(seeds, height, width, CPU))
    return found.worn


def test_it_begins_as_bicubic_with_a_level_of_noise() -> None:
    pictures = high()
    difference = (worn(made(), pictures, [1, 2]) - bicubic_down(pictures, 2)) * 255
    assert 0.5 < float(difference.std()) < 2.0
    assert float(difference.mean(dim=(2, 3)).abs().max()) < 0.3


def test_its_blur_moves_no_colour_and_repeats_the_border() -> None:
    network = made()
    with torch.no_grad():
        network.blur.add_(0.1 * torch.rand(network.blur.shape, generator=torch.Generator().manual_seed(2)))
    flat = torch.full((1, 3, 12, 12), 0.3)
    assert torch.allclose(network._blurred(flat, torch.randn(1, CODE)), flat, atol=1e-6)


def test_a_seed_decides_its_picture_and_nothing_else_in_the_batch() -> None:
    network, pictures = made(), high()
    both = worn(network, pictures, [7, 8])
    assert torch.allclose(worn(network, pictures[1:], [8]), both[1:], atol=1e-6)
    assert torch.equal(worn(network, pictures, [7, 8]), both)
    assert float((worn(network, pictures[:1], [9]) - both[:1]).abs().max()) > 1 / 255


def test_codes_choose_another_strength_for_each_picture() -> None:
    network = made()
    with torch.no_grad():
        network.grain_by_code.fill_(0.2)
    flat = torch.full((16, 3, 64, 64), 0.5)
    spreads = worn(network, flat, list(range(16))).std(dim=(1, 2, 3))
    assert float(spreads.max() / spreads.min()) > 3


def test_codecs_are_those_of_the_files_and_let_gradients_through() -> None:
    pictures = high(3, 24).requires_grad_()
    codecs = [Compression("JPEG", 20, True, (3, 5)), None, Compression("WEBP", 10, True, (0, 0))]
    result = compressed(pictures, codecs)
    levels = (result * 255).detach()
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    rounded = ((pictures * 255 + 0.5).floor() / 255).detach()
    assert torch.allclose(result[1].detach(), rounded[1], atol=1e-6)
    for i in (0, 2):
        assert float((result[i] - rounded[i]).detach().abs().max()) > 2 / 255
    (result * torch.arange(3.0)[:, None, None, None]).sum().backward()
    assert pictures.grad is not None
    assert torch.equal(pictures.grad, torch.arange(3.0)[:, None, None, None].expand_as(pictures))


def test_signs_are_drawn_as_often_as_files_show_them() -> None:
    signs = (FileSign("JPEG", 60, True), None, FileSign("WEBP", 30, True), None)
    drawn = [drawn_compression(signs, np.random.default_rng(i)) for i in range(400)]
    assert 150 < sum(one is None for one in drawn) < 250
    places = {one.grid_px for one in drawn if one is not None}
    assert len(places) > 100
    assert drawn_compression((), np.random.default_rng(0)) is None


# ----------------------------------------------------------------------------------------------------------- its file


def test_a_file_brings_back_the_same_network(tmp_path: Path) -> None:
    signs = (FileSign("JPEG", 60, False), None)
    save_wear(tmp_path / "wear.safetensors", made(), signs)
    found = load_wear(wear_path(str(tmp_path)))
    assert found.signs == signs
    assert found.scale == 2
    assert torch.equal(worn(found.network, high(), [1, 2]), worn(made(), high(), [1, 2]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"srgan_wear": "9"}, "holds no learned wear that this srgan can read"),
        ({"config": "{}"}, "its tensors are not those of its settings"),
        ({"config": json.dumps({"features": 10**9})}, "features of a wearer must be"),
        ({"config": '{"scale": Infinity}'}, "its settings are not valid"),
        ({"config": '{"scale": "4"}'}, "its settings are not valid"),
        ({"config": "[1"}, "its settings are not valid"),
        ({"grey": "maybe"}, "its settings are not valid"),
        ({"grey": "1"}, "grey is true or false, not 1"),
        ({"signs": json.dumps([{"codec": "GIF", "quality": 1, "halved_chroma": True}])}, "not 'GIF'"),
        ({"signs": json.dumps([{"codec": "JPEG", "quality": 0, "halved_chroma": True}])}, "from 1 to 100"),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence(tmp_path: Path, change: dict[str, str], said: str) -> None:
    path = tmp_path / "wear.safetensors"
    save_wear(path, made(), ())
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"] | change
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(data), metadata))
    with pytest.raises(WeightsError, match=said):
        load_wear(path)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = made()
    network.blur[0, 0] = float("nan")
    save_wear(tmp_path / "wear.safetensors", network, ())
    with pytest.raises(WeightsError, match="not finite"):
        load_wear(tmp_path / "wear.safetensors")


def test_what_holds_no_wear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"it holds no wear\.safetensors"):
        wear_path(str(tmp_path))
    with pytest.raises(SettingsError, match="there is no such folder or file"):
        wear_path(str(tmp_path / "nothing"))
    save_wear(tmp_path / "wear.safetensors", made(), ())
    assert not check_wear(str(tmp_path), 2).grey
    with pytest.raises(SettingsError, match="give --scale 2"):
        check_wear(str(tmp_path), 4)


# ------------------------------------------------------------------------------------------------- as a degradation


def test_a_run_that_has_learned_wear_is_a_degradation(tmp_path: Path) -> None:
    save_wear(tmp_path / "wear.safetensors", made(), (FileSign("JPEG", 30, True),))
    settings = DegradationSettings(kind="learned", wear=str(tmp_path), clean_fraction=0.5)
    pictures = high(8, 32)
    values = [degradation.sample(settings, degradation.rng_for(0, 0, i)) for i in range(8)]
    low = degradation.apply(pictures, values, 2)
    clean = degradation.apply(pictures, [degradation.Degradation.BICUBIC] * 8, 2)
    are_clean = [value.worn is None for value in values]
    assert 0 < sum(are_clean) < 8
    assert [torch.equal(low[i], clean[i]) for i in range(8)] == are_clean
    assert torch.allclose(low * 255, (low * 255).round(), atol=1e-3)
    alone = degradation.apply(pictures[5:6], values[5:6], 2)
    assert torch.allclose(alone, low[5:6], atol=1.01 / 255)  # a rounding that falls to the other side
    with pytest.raises(SettingsError, match="give --scale 2"):
        degradation.apply(high(8, 36), values, 3)


def test_wear_learned_without_colours_gives_pictures_without(tmp_path: Path) -> None:
    network = made()
    with torch.no_grad():
        network.grain_strength.fill_(0.2)  # a grain with colours, as it begins
    settings = DegradationSettings(kind="learned", wear=str(tmp_path), clean_fraction=0.0)

    def colours(*, grey: bool) -> float:
        save_wear(tmp_path / "wear.safetensors", network, (FileSign("JPEG", 90, True),), grey=grey)
        assert check_wear(str(tmp_path), 2).grey == load_wear(tmp_path / "wear.safetensors").grey == grey
        values = [degradation.sample(settings, degradation.rng_for(0, 0, i)) for i in range(2)]
        low = degradation.apply(high(2, 64), values, 2)
        return float((low - low.mean(dim=1, keepdim=True)).abs().max()) * 255

    assert colours(grey=False) > 10
    assert colours(grey=True) < 0.01


def test_a_file_without_the_mark_was_learned_in_colour(tmp_path: Path) -> None:
    path = tmp_path / "wear.safetensors"
    save_wear(path, made(), (), grey=True)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    del metadata["grey"]
    path.write_bytes(safetensors.torch.save(safetensors.torch.load(data), metadata))
    assert not load_wear(path).grey


def test_a_file_that_has_changed_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "wear.safetensors"
    save_wear(path, made(), ())
    first = wear_files.opened(str(path))
    assert wear_files.opened(str(tmp_path)) is first
    save_wear(path, made(blur_px=7), (None,))
    assert wear_files.opened(str(path)).signs == (None,)


def test_kind_and_file_go_together() -> None:
    for changes in ({"kind": "learned"}, {"wear": "runs/mine"}):
        with pytest.raises(SettingsError, match=r"degradation\.wear names a run"):
            DegradationSettings(**changes)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------ worn pictures


def test_a_clean_drawing_is_not_taken_for_an_old_jpeg(tmp_path: Path) -> None:
    Image.fromarray(tiles()).save(tmp_path / "a.png")
    Image.fromarray(decoded(jpeg(tiles(), 50))).save(tmp_path / "b.png")
    clean, once = signs_of(sorted(tmp_path.iterdir()))
    assert clean is None
    assert once is not None
    assert abs(once.quality - 50) <= 3


def test_signs_are_read_from_files_or_from_traces(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((320, 320), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=60, subsampling="4:4:4")
    picture.save(tmp_path / "b.jpg", quality=80, subsampling="4:2:0")
    picture.save(tmp_path / "c.webp", quality=50)
    picture.save(tmp_path / "d.png")
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=40)
    Image.open(data).save(tmp_path / "e.png")
    (tmp_path / "f.jpg").write_bytes(b"no picture")
    found = signs_of(sorted(tmp_path.iterdir()))
    assert found[:2] == (FileSign("JPEG", 60, False), FileSign("JPEG", 80, True))
    assert found[2] is not None
    assert found[2].codec == "WEBP"
    assert abs(found[2].quality - 50) <= 5
    assert found[3] is None
    assert found[4] is not None
    assert found[4].codec == "JPEG"
    assert abs(found[4].quality - 40) <= 3
    assert len(found) == 5
