"""Progress and remaining time of a run, interpolated between reports of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable

# The maximum fraction of a picture's remaining work that is shown before it is reported: the bar may pause, but never
# goes back.
_AHEAD = 0.9
# The first layers of a network say little about its speed: until then it is that of the last run, or unknown.
_SETTLING_SECONDS = 1.0


class Estimate:
    """Output px of the networks, done and remaining. The speed is that of the last run here (`px_per_second`, if known)
    until there are measurements of this one. `startup_seconds` pass before the first picture."""

    def __init__(
        self,
        total_px: int,
        px_per_second: float | None,
        startup_seconds: float = 0.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_px = total_px
        self._known, self._startup, self._clock = px_per_second, startup_seconds, clock
        self._begun = self._last = clock()
        self._ready: float | None = None  # when the first picture began
        self._done_px = self._left_px = 0
        self._resumed_px = 0  # done by an earlier run: no measure of the speed
        self._part_px = 0  # computed, but not final yet
        self._shown_px = 0.0

    @property
    def is_loading(self) -> bool:
        return self._ready is None

    def started(self, picture_px: int) -> None:
        """A picture begins, with this many output px."""
        now = self._clock()
        if self._ready is None:
            self._ready = self._last = now
        self._left_px, self._part_px = picture_px, 0

    def advanced(self, px: int) -> None:
        """`px` more px are final; if negative, they were lost."""
        self._done_px += px
        self._left_px, self._part_px = max(0, self._left_px - px), 0
        self._last = self._clock()
        if px < 0:
            self._shown_px = 0

    def resumed(self, px: int) -> None:
        """`px` px of the picture are final already."""
        self._resumed_px += px
        self._left_px = max(0, self._left_px - px)

    def computed(self, px: int) -> None:
        """`px` of the px that are not final yet have been computed. May be less than before."""
        self._part_px = min(px, self._left_px)
        self._last = self._clock()

    def failed(self, px: int, *, begun: bool) -> None:
        """`px` px will not be computed: of the picture that began last (`begun`), or of another."""
        self.total_px -= px
        if begun:
            self._left_px = self._part_px = 0
            self._shown_px = 0

    def px_per_second(self) -> float | None:
        done = self._done_px + self._part_px
        if self._ready is None or not done or self._last <= self._ready:
            return self._known
        seconds = self._last - self._ready
        return done / seconds if self._done_px or seconds >= _SETTLING_SECONDS else self._known

    def px(self) -> float:
        """Px done, including an estimate of those since the engine's last report."""
        speed = self.px_per_second()
        done = self._resumed_px + self._done_px + self._part_px
        ahead = 0.0
        if speed is not None and self._ready is not None:
            ahead = min(speed * (self._clock() - self._last), _AHEAD * (self._left_px - self._part_px))
        self._shown_px = max(self._shown_px, done + ahead)
        return self._shown_px

    def fraction(self) -> float:
        return min(1.0, self.px() / self.total_px) if self.total_px > 0 else 0.0

    def seconds_left(self) -> float | None:
        """None if nothing is known yet."""
        speed = self.px_per_second()
        if not speed:
            return None
        startup = max(0.0, self._startup - (self._clock() - self._begun)) if self.is_loading else 0.0
        return startup + max(0.0, self.total_px - self.px()) / speed
