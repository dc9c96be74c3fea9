"""Networks without allocated weights, to be filled from files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# The functions that torch.nn and torch.nn.init use to fill parameters.
_FILLERS = frozenset((Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_, Tensor.mul_))


class _NoNumbers(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_numbers() -> Iterator[None]:
    """Modules created inside this block use no memory and no random numbers: their parameters are on `meta` and are not
    initialised.

    Skipping the initialisation is also necessary for speed: on `meta`, a single `normal_` imports torch's compiler,
    which takes longer than importing torch itself. Affects this thread only.
    """
    with _NoNumbers(), torch.device("meta"):
        yield
