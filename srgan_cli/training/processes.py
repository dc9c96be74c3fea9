"""One process or several: `torchrun … -m srgan_cli train …`.

Each process trains on its part of the global batch, and gradients are averaged, so that several processes compute the
same as one would on the whole batch. PyTorch's `DistributedDataParallel` does the same inside `backward`; here it is
one call after it, because that class supports neither a discriminator's two or three forward passes per step nor the R1
penalty (a gradient of a gradient), and because networks of a few megabytes gain nothing from overlapping.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from srgan_cli.errors import DeviceError, SrganError, TrainingError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process's rank, the number of processes, and its rank on this machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


def from_environment() -> Processes:
    """From torchrun's environment variables, or a single process."""
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
    """The process group, inside this block. Plain values are exchanged between CPUs, gradients between GPUs if there
    are any."""
    if processes.world == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # before the first message, or all processes would use the first GPU
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        # The others wait while the first one scans up to a million pictures.
        dist.init_process_group(backend, timeout=datetime.timedelta(days=1))
    except (RuntimeError, ValueError) as err:
        raise DeviceError(
            f"the {processes.world} processes cannot connect to each other: {str(err).splitlines()[0]}"
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


def first_says(values: Sequence[float], processes: Processes) -> list[float]:
    """Values that all processes use: the first one's."""
    if processes.world == 1:
        return list(values)
    shared = torch.tensor(list(values) if processes.first else [0.0] * len(values), dtype=torch.float64)
    dist.broadcast(shared, 0)
    return [float(value) for value in shared]


def anyone(flag: bool, processes: Processes) -> bool:
    """Whether it is true in any process."""
    if processes.world == 1:
        return flag
    flags = torch.tensor([float(flag)])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags[0])


def least(value: int, processes: Processes) -> int:
    """The smallest value of all processes."""
    if processes.world == 1:
        return value
    found = torch.tensor([value])
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return int(found[0])


def first_does(work: Callable[[], T], processes: Processes) -> T:
    """`work`, done by the first process; all get its value, or raise its error. The others wait as long as it takes, so
    any error is passed on: a `SrganError` as it is, another one as a `TrainingError`."""
    if processes.world == 1:
        return work()
    box: list[Any] = [None, None]
    own: BaseException | None = None
    if processes.first:
        try:
            box[0] = work()
        except SrganError as err:
            own = box[1] = err
        except BaseException as err:  # noqa: BLE001 - raised again below, once the others know
            own, box[1] = err, TrainingError(f"the first process has ended with {type(err).__name__}: {err}")
    dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
    if (failed := own or box[1]) is not None:
        raise failed
    return cast(T, box[0])


def part_of(count: int) -> int:
    """This process's part of a total over all of them; at least 1."""
    joined_up = dist.is_available() and dist.is_initialized()
    return max(1, count // dist.get_world_size()) if joined_up else count


def on_this_machine() -> int:
    """How many processes of the run share this machine's memory, as torchrun says."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(said)) if said.isascii() and said.isdecimal() else 1
