"""Registers srgan's architectures with spandrel, so that programs using it (ComfyUI, chaiNNer) can open srgan's files.

`srvgg` needs no registration: spandrel knows it as Compact. `compact` and `srresnet` are registered here and recognised
by their tensors alone, since spandrel does not read metadata.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import spandrel
from torch import Tensor

from srgan_cli.networks.generators import Generator, build

_State: TypeAlias = Mapping[str, Tensor]


def register() -> None:
    """Add our architectures to spandrel's main registry, once."""
    known = {support.architecture.id for support in spandrel.MAIN_REGISTRY.architectures()}
    for architecture in (
        _Registered("compact", _COMPACT, _compact),
        _Registered("srresnet", _SRRESNET, _srresnet),
    ):
        if architecture.id not in known:
            spandrel.MAIN_REGISTRY.add(spandrel.ArchSupport.from_architecture(architecture))


_BOTH = ("head.weight", "body.0.conv1.weight", "body.0.act.weight", "body.0.conv2.weight", "fuse.weight", "tail.weight")
_COMPACT, _SRRESNET = _BOTH, (*_BOTH, "head_act.weight", "up.0.conv.weight", "up.0.act.weight")


class _Registered(spandrel.Architecture[Generator]):  # type: ignore[misc]  # spandrel's types are not looked at
    def __init__(self, name: str, keys: tuple[str, ...], config: Any) -> None:
        others = {"head_act.weight"} - set(keys)
        super().__init__(
            id=f"srgan-{name}",
            name=f"srgan {name}",
            detect=lambda state: all(key in state for key in keys) and not any(key in state for key in others),
        )
        self._architecture, self._config = name, config

    def load(self, state_dict: dict[str, Tensor]) -> Any:
        config = self._config(state_dict)
        network = build(self._architecture, config)
        return spandrel.ImageModelDescriptor(
            network,
            state_dict,
            architecture=self,
            purpose="SR" if network.scale > 1 else "Restoration",
            tags=[f"{config['features']}nf", f"{config['blocks']}nb"],
            supports_half=True,
            supports_bfloat16=True,
            scale=network.scale,
            input_channels=3,
            output_channels=3,
        )


def _compact(state: _State) -> dict[str, object]:
    noise = {"noise": True} if "body.0.strength" in state else {}  # used without noise
    return {**_sizes(state), **noise, "scale": math.isqrt(state["tail.weight"].shape[0] // 3)}


def _srresnet(state: _State) -> dict[str, object]:
    sizes = _sizes(state)
    wide = [tensor.shape[0] for key, tensor in state.items() if key.startswith("up.") and key.endswith("conv.weight")]
    factors = [math.isqrt(outputs // state["head.weight"].shape[0]) for outputs in wide]
    return {**sizes, "scale": math.prod(factors), "batch_norm": "fuse_norm.weight" in state}


def _sizes(state: _State) -> dict[str, object]:
    blocks = {key.split(".")[1] for key in state if key.startswith("body.")}
    return {"features": state["head.weight"].shape[0], "blocks": len(blocks)}
