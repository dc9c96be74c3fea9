"""torch is imported, and Vulkan asked for its GPUs, by threads while a run is planned and its first picture decoded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# A refusal (a misspelt name, nothing to do) takes less, and so does not wait for torch at the end of the process.
_GRACE_SECONDS = 0.05


@contextlib.contextmanager
def torch_ahead(*, vulkan: bool = False, grace_seconds: float = _GRACE_SECONDS) -> Iterator[threading.Timer]:
    """Begin to import torch after `grace_seconds`, unless the block has failed by then or cancelled the timer; with
    `vulkan`, ask for GPUs as well."""
    timer = threading.Timer(grace_seconds, _begin, [vulkan])
    timer.name = "srgan-torch"
    timer.start()
    try:
        yield timer
    except BaseException:
        timer.cancel()
        raise


def warm(device: str) -> None:
    """The same at once, for what `--device` says; returns at once."""
    vulkan = device == "auto" or device.startswith("vulkan")
    threading.Thread(target=_begin, args=[vulkan], name="srgan-torch", daemon=True).start()


def _begin(vulkan: bool) -> None:
    if vulkan:
        threading.Thread(target=_ask_vulkan, name="srgan-vulkan", daemon=True).start()
    _import_torch()


def _import_torch() -> None:
    with contextlib.suppress(Exception):  # the caller that needs it gets the same error, and can report it
        import torch  # noqa: F401


def _ask_vulkan() -> None:
    """A process of its own is asked, so that this runs beside the import."""
    from srgan_cli.networks.ncnn_process import is_installed, vulkan_devices

    if is_installed():
        with contextlib.suppress(Exception):
            vulkan_devices()
