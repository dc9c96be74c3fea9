"""Noise is a function of seed, layer and position; a network that has not learned to use it is unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from srgan_cli.errors import WeightsError
from srgan_cli.networks import noise
from srgan_cli.networks.generators import Compact, build, fold, settings_of
from srgan_cli.networks.graph import nodes_of
from srgan_cli.networks.growing import grown, with_noise, without_noise
from srgan_cli.networks.noise import Noise
from srgan_cli.networks.registry import Card, describe_file
from srgan_cli.networks.weights import load_generator, load_model, save_weights
from tests.faults import tiny_generator


def noisy(seed: int = 0) -> Compact:
    """With strengths that show."""
    network = tiny_generator("compact", 2, noise=True, blocks=3)
    assert isinstance(network, Compact)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for block in network.body:
            block.get_parameter("strength").normal_(0, 0.3)
    return network


def low(height: int = 12, width: int = 14, count: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_a_field_is_white_gaussian_noise() -> None:
    field = Noise(seed=5).field(2, torch.empty(1, 8, 300, 400))
    assert field.shape == (1, 1, 300, 400)
    assert float(field.mean()) == pytest.approx(0, abs=0.01)
    assert float(field.std()) == pytest.approx(1, abs=0.01)
    assert float((field.abs() > 2).float().mean()) == pytest.approx(0.0455, abs=0.006)
    flat = field[0, 0]
    for other in (flat.roll(1, 0), flat.roll(1, 1), flat.roll(7, 0)):
        assert abs(float((flat * other).mean())) < 0.015


def test_seeds_layers_and_passes_have_their_own() -> None:
    like = torch.empty(1, 1, 64, 64)
    first = Noise().field(0, like)
    others = [Noise(1).field(0, like), Noise(2**33).field(0, like), Noise().field(1, like),
              Noise().of_pass(1, 2).field(0, like)]  # fmt: skip
    for other in others:
        assert abs(float((first * other).mean())) < 0.06
    assert torch.equal(Noise().field(0, like), first)
    assert torch.equal(Noise(strength=0.5).field(0, like), first / 2)


def test_places_far_out_and_windows_of_one_batch() -> None:
    whole = Noise(3).field(1, torch.empty(1, 1, 40, 50))
    parts = Noise(3).at([(7, 9), (0, 30)]).field(1, torch.empty(2, 1, 20, 20))
    assert torch.equal(parts[0], whole[0, :, 7:27, 9:29])
    assert torch.equal(parts[1], whole[0, :, :20, 30:])
    assert Noise(3).at([(2**31, 2**31)]).field(1, torch.empty(1, 1, 4, 4)).isfinite().all()


def test_words_of_32_bits_are_mixed_as_in_64() -> None:
    edges = torch.tensor([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF0000, 0x8000, 0x17FFF])
    words = torch.cat([edges, torch.randint(2**32, (10_000,), generator=torch.Generator().manual_seed(2))])
    mixed = noise._mixed(words)
    assert torch.equal(noise._mixed_narrow(noise._wrapped(words)), noise._wrapped(mixed))
    assert noise._mixed(0x80000001) == int(noise._mixed(torch.tensor(0x80000001)))
    assert len(set(mixed.tolist())) > 9990


def test_without_it_nothing_changes() -> None:
    plain = tiny_generator("compact", 2, blocks=3)
    ready = with_noise(plain)
    assert ready.has_noise
    assert not plain.has_noise
    for given in (None, Noise(4)):
        assert torch.equal(ready(low(), given), plain(low())), "strengths begin at 0"
    network = noisy()
    assert torch.equal(network(low()), network(low(), Noise(0, strength=0.0)))
    assert not torch.equal(network(low()), network(low(), Noise(0)))
    assert not torch.equal(network(low(), Noise(1)), network(low(), Noise(0)))
    assert torch.equal(tiny_generator("srvgg", 2).forward(low(), Noise(1)), tiny_generator("srvgg", 2)(low()))


def test_files_without_noise_say_nothing_of_it(tmp_path: Path) -> None:
    save_weights(tmp_path / "plain.safetensors", tiny_generator("compact", 2), Card("plain", "plain"))
    assert b"noise" not in (tmp_path / "plain.safetensors").read_bytes()
    assert "noise" not in settings_of(tiny_generator("compact", 2).config)  # type: ignore[arg-type]
    save_weights(tmp_path / "noisy.safetensors", noisy(), Card("noisy", "noisy"))
    entry = describe_file(tmp_path / "noisy.safetensors")
    assert entry is not None
    assert entry.has_noise
    again, model = load_generator(tmp_path / "noisy.safetensors"), load_model(tmp_path / "noisy.safetensors")
    assert torch.equal(again(low(), Noise(2)), noisy()(low(), Noise(2)))
    assert model.network.has_noise
    assert torch.allclose(model.network(low(), Noise(2)), noisy()(low(), Noise(2)), atol=1e-6)


def test_it_grows() -> None:
    network = noisy()
    deeper = grown(network, "compact", {"scale": 2, "features": 8, "blocks": 5, "noise": True})
    assert torch.allclose(deeper(low()), network(low()), atol=1e-6)
    assert deeper.has_noise
    without = grown(network, "compact", {"scale": 2, "features": 8, "blocks": 5})
    assert not without.has_noise
    assert torch.allclose(without(low()), network(low()), atol=1e-6)
    plain = without_noise(network)
    assert not plain.has_noise
    assert torch.equal(plain(low()), network(low()))
    assert without_noise(plain) is plain
    with pytest.raises(WeightsError, match="is for compact networks"):
        with_noise(tiny_generator("srvgg", 2))
    with pytest.raises(WeightsError, match="noise must be true or false"):
        build("compact", {"noise": 3})


def test_strengths_learn() -> None:
    network = with_noise(tiny_generator("compact", 2, blocks=3))
    network(low(), Noise(1)).square().mean().backward()
    gradients = [block.get_parameter("strength").grad for block in network.get_submodule("body").children()]
    assert all(gradient is not None and bool((gradient != 0).any()) for gradient in gradients)


def test_other_formats_get_it_without() -> None:
    noisy_nodes, plain = nodes_of(noisy()), tiny_generator("compact", 2, blocks=3)
    plain.load_state_dict({key: tensor for key, tensor in noisy().state_dict().items() if "strength" not in key})
    assert [node.output for node in noisy_nodes] == [node.output for node in nodes_of(plain)]
    assert torch.equal(fold(noisy())(low()), fold(plain)(low()))
