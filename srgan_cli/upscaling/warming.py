"""Imports torch, and lists Vulkan's GPUs, in threads while a run is planned and its first picture decoded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# Refusals (a misspelt name, nothing to do) come sooner than this, and so do not wait for torch when the process ends.
_GRACE_SECONDS = 0.05


@contextlib.contextmanager
def torch_ahead(*, vulkan: bool = False, grace_seconds: float = _GRACE_SECONDS) -> Iterator[threading.Timer]:
    """Start to import torch after `grace_seconds`, unless the block has failed or cancelled the timer by then. With
    `vulkan`, list GPUs as well."""
    timer = threading.Timer(grace_seconds, _begin, [vulkan])
    timer.name = "srgan-torch"
    timer.start()
    try:
        yield timer
    except BaseException:
        timer.cancel()
        raise


def warm(device: str) -> None:
    """The same without delay, for the given `--device`. Returns immediately."""
    vulkan = device == "auto" or device.startswith("vulkan")
    threading.Thread(target=_begin, args=[vulkan], name="srgan-torch", daemon=True).start()


def _begin(vulkan: bool) -> None:
    if vulkan:
        threading.Thread(target=_ask_vulkan, name="srgan-vulkan", daemon=True).start()
    _import_torch()


def _import_torch() -> None:
    with contextlib.suppress(Exception):  # the caller that needs it gets the same error and can report it
        import torch  # noqa: F401


def _ask_vulkan() -> None:
    """List GPUs in a separate process, so that this runs in parallel with the import."""
    from srgan_cli.networks.ncnn_process import is_installed, vulkan_devices

    if is_installed():
        with contextlib.suppress(Exception):
            vulkan_devices()
