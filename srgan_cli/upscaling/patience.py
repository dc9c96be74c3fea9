"""Time limit for one picture: the time of its own stages, without waiting for other pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from srgan_cli.errors import PictureError, PictureTimeoutError

_SLOW = 10  # times the expected duration
_SLOW_AT_LEAST_S = 30.0  # loading a network, or a disk spinning up, should not trigger the warning


class Patience:
    """One picture's clock. `limit_s` None: no limit. `expected_s` None: unknown.

    Used by one thread at a time, since the picture's stages are sequential.
    """

    def __init__(self, limit_s: float | None, expected_s: float | None, warn: Callable[[str], None]) -> None:
        self._limit, self._warn = limit_s, warn
        self._slow = None if expected_s is None else max(_SLOW * expected_s, _SLOW_AT_LEAST_S)
        self._spent = 0.0
        self._since: float | None = None

    @contextmanager
    def working(self) -> Iterator[None]:
        """A stage: time inside this block counts."""
        self._since = time.perf_counter()
        try:
            yield
        finally:
            self._spent, self._since = self.seconds, None

    @property
    def seconds(self) -> float:
        return self._spent + (0.0 if self._since is None else time.perf_counter() - self._since)

    @property
    def is_over(self) -> bool:
        return self._limit is not None and self.seconds > self._limit

    def error(self) -> PictureError:
        return PictureTimeoutError(f"it took longer than --timeout {self._limit:g} seconds and was abandoned")

    def check(self) -> None:
        """Called between steps: raises `PictureError` if the time is over, and warns once about a slow picture."""
        if self.is_over:
            raise self.error()
        if self._slow is not None and self.seconds > self._slow:
            self._slow = None
            self._warn(
                f"it has taken {self.seconds:.0f} seconds so far, more than {_SLOW} times what was expected; "
                "--timeout SECONDS abandons such pictures"
            )
