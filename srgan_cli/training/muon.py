"""Muon: each step of a hidden convolution is orthogonalised, so that all directions of its kernels change equally fast.

A gradient's few strongest directions also dominate AdamW's steps, and the others hardly learn. Muon (Jordan et al.
2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a weight matrix by the nearest orthogonal
one. Steps are scaled so that AdamW's learning rates are approximately right (Liu et al. 2025, arXiv:2502.16982, section
2.2). torch's own Muon supports only matrices; here a kernel (out, in, k, k) is treated as the matrix (out, in·k·k).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_MIN_CHANNELS = 8  # the first layer has three inputs, and a layer with so few has no directions to balance
_SIZE = 0.2  # size of a step per weight: that of AdamW's steps, ibid.
_MOMENTUM = 0.95
# Five iterations of a·X + b·X·Xᵀ·X + c·(X·Xᵀ)²·X move all singular values into 0.7 … 1.2 (Jordan et al. 2024).
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPSILON = 1e-8


class Muon(Optimizer):
    """Muon for hidden convolutions, AdamW for all other weights, with one learning rate for both."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": learning_rate, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the weights once, along their gradients."""
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            hidden = [parameter for parameter in moved if is_hidden(parameter)]
            self._move_hidden(hidden, group)
            self._move_others([parameter for parameter in moved if not is_hidden(parameter)], group)

    def _move_hidden(self, kernels: list[Tensor], group: dict[str, Any]) -> None:
        alike = defaultdict(list)
        for kernel in kernels:
            alike[kernel.shape].append(kernel)
        for shape, same in alike.items():
            directions = orthogonal(torch.stack([self._momentum(kernel).flatten(1) for kernel in same]))
            size = _SIZE * max(directions.shape[1:]) ** 0.5
            for kernel, direction in zip(same, directions, strict=True):
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.add_(direction.view(shape), alpha=-group["lr"] * size)

    def _momentum(self, kernel: Tensor) -> Tensor:
        """Nesterov momentum."""
        assert kernel.grad is not None
        state = self.state[kernel]
        if not state:
            state["mean"] = torch.zeros_like(kernel)
        state["mean"].lerp_(kernel.grad, 1 - _MOMENTUM)
        return kernel.grad.lerp(state["mean"], _MOMENTUM)

    def _move_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2)."""
        (first, second), rate = group["betas"], group["lr"]
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state |= {
                    "step": torch.zeros(()), "mean": torch.zeros_like(parameter), "square": torch.zeros_like(parameter),
                }  # fmt: skip
            state["step"] += 1
            steps = float(state["step"])
            state["mean"].lerp_(parameter.grad, 1 - first)
            state["square"].lerp_(parameter.grad.square(), 1 - second)
            root = (state["square"] / (1 - second**steps)).sqrt_().add_(_EPSILON)
            parameter.mul_(1 - rate * group["weight_decay"])
            parameter.addcdiv_(state["mean"], root, value=-rate / (1 - first**steps))


def is_hidden(parameter: Tensor) -> bool:
    """Whether it is a convolution's kernel between features."""
    return parameter.dim() == 4 and min(parameter.shape[:2]) >= _MIN_CHANNELS


def orthogonal(matrices: Tensor) -> Tensor:
    """Approximately the nearest orthogonal matrices, (N, rows, columns): with their singular vectors, and all singular
    values between 0.7 and 1.2."""
    a, b, c = _POLYNOMIAL
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = (matrices.mT if tall else matrices).float()
    x = x / x.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
