"""One process or several: `torchrun … -m srgan_cli train …`.

Each process trains on its share of the global batch and the gradients are averaged, so that several processes compute
what one would on the whole batch. PyTorch's `DistributedDataParallel` does the same inside `backward`; here it is one
call after it, because a discriminator goes forward two or three times between its steps and its R1 penalty is a
gradient of a gradient, neither of which that class supports, and because networks of some megabytes gain nothing from
overlapping.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from srgan_cli.errors import DeviceError


@dataclass(frozen=True)
class Processes:
    """This process's number, how many there are, and its number on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0


def from_environment() -> Processes:
    """What torchrun says, or a single process."""
    try:
        return Processes(
            *(
                int(os.environ.get(name, fallback))
                for name, fallback in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
            )
        )
    except ValueError as err:
        raise DeviceError(f"RANK, WORLD_SIZE or LOCAL_RANK is not a number: {err}") from err


@contextlib.contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """The process group, while inside."""
    if processes.world == 1:
        yield
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as err:
        raise DeviceError(
            f"the {processes.world} processes cannot find each other: {str(err).splitlines()[0]}"
        ) from err
    try:
        yield
    finally:
        dist.destroy_process_group()


def average_gradients(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """The mean over all processes, as one message."""
    if processes.world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= processes.world
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
        gradient.copy_(part.view_as(gradient))


def agree(values: Tensor, processes: Processes) -> Tensor:
    """The first process's values, in all."""
    if processes.world > 1:
        dist.broadcast(values, 0)
    return values


def agree_on(value: Any, processes: Processes) -> Any:
    """The first process's plain value, in all: the checkpoint, say."""
    if processes.world == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, 0)
    return box[0]


def wait_for_all(processes: Processes) -> None:
    if processes.world > 1:
        dist.barrier()
