"""Networks without numbers: for files that bring their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# What torch.nn and torch.nn.init fill parameters with.
_FILLERS = frozenset((Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_, Tensor.mul_))


class _NoNumbers(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init" or func in _FILLERS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def without_numbers() -> Iterator[None]:
    """Modules made in here take no memory and roll no dice: their parameters lie on `meta` and are not initialised.

    Leaving the initialisation out is not only quicker: on `meta`, one `normal_` imports torch's compiler, which takes
    longer than all of torch itself. This thread only.
    """
    with _NoNumbers(), torch.device("meta"):
        yield
