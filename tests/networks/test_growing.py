"""A larger network starts where the smaller one ended, and one for another scale starts near it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from srgan_cli.errors import WeightsError
from srgan_cli.networks.generators import Generator, build
from srgan_cli.networks.growing import grown
from tests.faults import stirred

COMPACT: dict[str, object] = {"scale": 4, "features": 4, "blocks": 3}
CHAIN: dict[str, object] = {"scale": 4, "features": 4, "blocks": 3}
PAPER: dict[str, object] = {"scale": 4, "features": 4, "blocks": 2, "batch_norm": True}


def learned(architecture: str, config: dict[str, object]) -> Generator:
    """A generator whose every tensor says something."""
    torch.manual_seed(1)
    return stirred(build(architecture, config)).eval()


@pytest.mark.parametrize(("architecture", "config"), [("compact", COMPACT), ("srvgg", CHAIN), ("srresnet", PAPER)])
@pytest.mark.parametrize("more", [0, 1, 4])
def test_more_blocks_change_nothing_until_they_are_trained(
    architecture: str, config: dict[str, object], more: int
) -> None:
    small = learned(architecture, config)
    large = grown(small, architecture, {**config, "blocks": config["blocks"] + more}).eval()  # type: ignore[operator]
    low = torch.rand(1, 3, 9, 11)
    layers = 2 if architecture == "srvgg" else 1
    assert len(large.body) == len(small.body) + layers * more  # type: ignore[arg-type]
    torch.testing.assert_close(large(low), small(low), rtol=0, atol=1e-6)


def test_new_blocks_can_be_trained_and_stand_among_the_old() -> None:
    large = grown(learned("compact", COMPACT), "compact", {**COMPACT, "blocks": 6})
    large(torch.rand(1, 3, 8, 8)).square().mean().backward()
    silent = [block for block in large.body if not block.conv2.weight.any()]  # type: ignore[union-attr]
    assert [list(large.body).index(block) for block in silent] == [0, 2, 4]  # type: ignore[arg-type]
    assert all(bool(block.conv2.weight.grad.any()) for block in silent), "else it would never begin to learn"


def test_new_layers_of_a_chain_can_be_trained_and_stand_among_the_old() -> None:
    large = grown(learned("srvgg", CHAIN), "srvgg", {**CHAIN, "blocks": 5})
    large(torch.rand(1, 3, 8, 8)).square().mean().backward()
    slopes = large.body[3::2]  # type: ignore[index]  # each block's PReLU
    new = [block for block, act in enumerate(slopes) if bool((act.weight == 1).all())]
    assert new == [1, 3] or new == [0, 2]
    for block in new:
        assert all(bool(p.grad.any()) for layer in large.body[2 + 2 * block :][:2] for p in layer.parameters())  # type: ignore[index]


@pytest.mark.parametrize("architecture", ["compact", "srvgg"])
@pytest.mark.parametrize(("before", "after"), [(4, 2), (2, 4), (4, 3), (2, 8)])
def test_another_scale_begins_near_the_same_picture(architecture: str, before: int, after: int) -> None:
    source = learned(architecture, {**COMPACT, "scale": before})
    with torch.no_grad():
        source.tail.weight.mul_(4)  # type: ignore[operator, union-attr]  # what was learned outweighs the plain enlargement
    target = grown(source, architecture, {**COMPACT, "scale": after})
    low = F.interpolate(torch.rand(1, 3, 4, 4), (16, 16), mode="bicubic", align_corners=False)
    theirs = F.interpolate(source(low), (16 * after, 16 * after), mode="bilinear", antialias=True)
    plain = build(architecture, {**COMPACT, "scale": after})
    inside = slice(2 * after, -2 * after)

    def off(network: Generator) -> float:
        return float((network(low) - theirs)[..., inside, inside].abs().mean().detach())

    assert off(target) < 0.5 * off(plain)


def test_what_does_not_fit_is_refused() -> None:
    source = learned("compact", COMPACT)
    for architecture, config, reason in (
        ("srresnet", PAPER, "cannot start from a compact one"),
        ("compact", {**COMPACT, "features": 5}, "features cannot change from 4 to 5"),
        ("compact", {**COMPACT, "blocks": 2}, "blocks cannot change from 3 to 2"),
    ):
        with pytest.raises(WeightsError, match=reason):
            grown(source, architecture, config)
    with pytest.raises(WeightsError, match="scale cannot change from 4 to 2"):
        grown(learned("srresnet", PAPER), "srresnet", {**PAPER, "scale": 2})
    with pytest.raises(WeightsError, match="batch_norm cannot change"):
        grown(learned("srresnet", PAPER), "srresnet", {**PAPER, "batch_norm": False})
