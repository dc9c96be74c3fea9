"""Shared parts of backends that take windows from the host's memory and run them in a library."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import torch

from srgan_cli.engine.backends.protocol import Prepared
from srgan_cli.engine.backends.pytorch import inference, is_out_of_memory

HOST: Final = torch.device("cpu")


class Hosted:
    """The members of a `Backend` that are the same for all of them."""

    @property
    def device(self) -> torch.device:
        return HOST

    @property
    def windows_at_once(self) -> int:
        return 1

    @property
    def leaves_host_free(self) -> bool:
        return False

    def inference(self) -> AbstractContextManager[None]:
        return inference(HOST)

    def is_out_of_memory(self, err: BaseException) -> bool:
        return is_out_of_memory(err)

    def empty_cache(self) -> None:
        pass


class Counted(Protocol):
    """A prepared network that knows how many values its largest layers hold per px of a window."""

    values_per_px: float


def largest_values_per_px(networks: Sequence[Prepared], kinds: type[Counted] | tuple[type[Counted], ...]) -> float:
    """The maximum over those networks that are of these `kinds`; 0 if there are none."""
    return max((one.values_per_px for one in networks if isinstance(one, kinds)), default=0.0)
