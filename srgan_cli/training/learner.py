"""A network with its optimiser, its scaler and its moving average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from srgan_cli.networks.generators import Generator
from srgan_cli.training import checkpoint, processes
from srgan_cli.training.muon import Muon
from srgan_cli.training.processes import Processes
from srgan_cli.training.steps import Autocast
from srgan_cli.training_config import PhaseSettings

_Network = TypeVar("_Network", bound=nn.Module)


@dataclass
class Learner:
    """A network with what updates it. Each of the three has its own state in the checkpoint."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def update(self, loss: Tensor, rate: float, clip_norm: float, group: Processes) -> Tensor:
        """One step down `loss`. Returns the norm of all gradients together, before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        processes.average_gradients(
            self.network.parameters(), group
        )  # before unscaling, which must find the same in all processes
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), clip_norm, norm)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm.detach()

    def parts(self, name: str) -> dict[str, checkpoint.Stateful]:
        """All three, for the checkpoint."""
        return {name: self.network, f"{name}_optimizer": self.optimizer, f"{name}_scaler": self.scaler}


def placed(network: _Network, device: torch.device) -> _Network:
    """On the device, with the memory format in which convolutions are fastest on CPUs and on tensor cores."""
    return network.to(device=device).to(memory_format=torch.channels_last)


def make_learner(network: nn.Module, settings: PhaseSettings, autocast: Autocast) -> Learner:
    device = next(network.parameters()).device
    betas = (settings.beta1, settings.beta2)
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "muon" and isinstance(network, Generator):
        optimizer = Muon(network.parameters(), settings.learning_rate, betas, settings.weight_decay)
    else:
        fused = device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, betas, weight_decay=settings.weight_decay, fused=fused
        )
    scaler = torch.amp.GradScaler(device.type, enabled=autocast.dtype == torch.float16)
    return Learner(network, optimizer, scaler)


@torch.no_grad()
def average(ema: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """The exponential moving average of the weights; at the beginning over fewer steps, so that the initial weights are
    forgotten.

    Buffers (batch norm's statistics) are averages already, and are copied.
    """
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1.0 - decay)
    for kept, buffer in zip(ema.buffers(), network.buffers(), strict=True):
        kept.copy_(buffer)
