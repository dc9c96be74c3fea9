"""torch, imported by a thread while a run is planned and its first picture decoded."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

# A refusal (a misspelt name, nothing to do) takes less, and so does not wait for torch at the end of the process.
_GRACE_SECONDS = 0.05


@contextlib.contextmanager
def torch_ahead(grace_seconds: float = _GRACE_SECONDS) -> Iterator[threading.Timer]:
    """Begin to import torch after `grace_seconds`, unless the block has failed by then or cancelled the timer."""
    timer = threading.Timer(grace_seconds, _import_torch)
    timer.name = "srgan-torch"
    timer.start()
    try:
        yield timer
    except BaseException:
        timer.cancel()
        raise


def _import_torch() -> None:
    with contextlib.suppress(Exception):  # who needs it meets the same error, in a thread that can tell of it
        import torch  # noqa: F401
