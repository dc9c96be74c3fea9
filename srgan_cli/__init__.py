"""srgan: enlarges pictures with neural networks, after SRGAN (Ledig et al. 2017, arXiv:1609.04802).

>>> from srgan_cli import Upscaler, load_model, upscale_file
>>> upscale_file("in.jpg", "out.png")  # the command's work, from Python
>>> high = Upscaler(load_model("srgan")).upscale(low)  # arrays: (H, W, 3) uint8 -> (4H, 4W, 3) uint8

Nothing heavy is imported until one of these names is used.
"""

from __future__ import annotations

import contextlib
import sys
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "EngineOptions",
    "Model",
    "Size",
    "SrganError",
    "UpscaleOptions",
    "Upscaler",
    "WriteOptions",
    "__version__",
    "load_model",
    "register_with_spandrel",
    "upscale_file",
]

if TYPE_CHECKING:
    from srgan_cli.config import EngineOptions, UpscaleOptions, WriteOptions
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.errors import SrganError
    from srgan_cli.networks.weights import Model, load_model
    from srgan_cli.sizes import Size
    from srgan_cli.upscaling.single import upscale_file

_HOMES = {
    "EngineOptions": "srgan_cli.config",
    "Size": "srgan_cli.sizes",
    "UpscaleOptions": "srgan_cli.config",
    "WriteOptions": "srgan_cli.config",
    "SrganError": "srgan_cli.errors",
    "Model": "srgan_cli.networks.weights",
    "load_model": "srgan_cli.networks.weights",
    "Upscaler": "srgan_cli.engine.upscaler",
    "upscale_file": "srgan_cli.upscaling.single",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from srgan_cli.threads import wait_politely

    wait_politely()
    return getattr(import_module(_HOMES[name]), name)


def register_with_spandrel() -> None:
    """Let spandrel, and thus the programs that load models with it, open srgan's `compact` and `srresnet` files.

    Importing srgan_cli does this automatically if spandrel was imported before.
    """
    import_module("srgan_cli.networks.spandrel_registration").register()


if "spandrel" in sys.modules:
    with contextlib.suppress(Exception):  # an incompatible version of spandrel must not break `import srgan_cli`
        register_with_spandrel()
