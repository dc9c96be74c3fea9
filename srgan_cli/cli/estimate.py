"""Progress and remaining time of a run, interpolated between reports of the engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

# The maximum fraction of the remaining work of pictures in progress that is shown before it is reported: the bar may
# pause, but never goes back.
_AHEAD = 0.9
# The first layers of a network say little about its speed: until then it is that of the last run, or unknown.
_SETTLING_SECONDS = 1.0


@dataclass
class _Picture:
    """Output px of one picture. `part_px`: computed, but not final yet; `left_px`: not final yet."""

    left_px: int
    resumed_px: int = 0
    done_px: int = 0
    part_px: int = 0

    @property
    def is_open(self) -> bool:
        return self.left_px > 0


class Estimate:
    """Output px of the networks, done and remaining. The speed is that of the last run here (`px_per_second`, if known)
    until there are measurements of this one. `startup_seconds` pass before the first picture. Pictures may be in
    progress at the same time; each is named by any key."""

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
        self._pictures: dict[Hashable, _Picture] = {}
        self._open: dict[Hashable, _Picture] = {}  # of these, the ones in progress
        self._done_px = 0  # of all pictures
        self._resumed_px = 0  # done by an earlier run: no measure of the speed
        self._shown_px = 0.0

    @property
    def is_loading(self) -> bool:
        return self._ready is None

    def final_px(self, picture: Hashable) -> int:
        """Of one picture, by this run or an earlier one."""
        known = self._pictures.get(picture)
        return 0 if known is None else known.done_px + known.resumed_px

    def started(self, picture: Hashable, px: int) -> None:
        """A picture begins, with this many output px; what was done of it before is lost, with a worker that ended."""
        now = self._clock()
        if self._ready is None:
            self._ready = self._last = now
        before = self._pictures.get(picture)
        if before is not None:
            self._done_px -= before.done_px
            self._resumed_px -= before.resumed_px
            self._shown_px = 0
        self._pictures[picture] = self._open[picture] = _Picture(px)

    def advanced(self, picture: Hashable, px: int) -> None:
        """`px` more px of a picture are final."""
        known = self._pictures[picture]
        known.done_px += px
        self._done_px += px
        self._last = self._clock()
        self._final(picture, known, px)

    def resumed(self, picture: Hashable, px: int) -> None:
        """`px` px of a picture were final before it began."""
        known = self._pictures[picture]
        known.resumed_px += px
        self._resumed_px += px
        self._final(picture, known, px)

    def _final(self, picture: Hashable, known: _Picture, px: int) -> None:
        known.left_px, known.part_px = max(0, known.left_px - px), 0
        if not known.is_open:
            self._open.pop(picture, None)

    def computed(self, picture: Hashable, px: int) -> None:
        """`px` of a picture's px that are not final yet have been computed. May be less than before."""
        known = self._pictures[picture]
        known.part_px = min(px, known.left_px)
        self._last = self._clock()

    def failed(self, picture: Hashable, px: int) -> None:
        """The remaining `px` px of a picture, begun or not, will not be computed."""
        self.total_px -= px
        if self._open.pop(picture, None) is not None:
            self._shown_px = 0

    def _part_px(self) -> int:
        return sum(picture.part_px for picture in self._open.values())

    def px_per_second(self) -> float | None:
        done = self._done_px + self._part_px()
        if self._ready is None or not done or self._last <= self._ready:
            return self._known
        seconds = self._last - self._ready
        return done / seconds if self._done_px or seconds >= _SETTLING_SECONDS else self._known

    def px(self) -> float:
        """Px done, including an estimate of those since the engine's last report."""
        speed = self.px_per_second()
        done = self._resumed_px + self._done_px + self._part_px()
        ahead = 0.0
        if speed is not None and self._ready is not None:
            left = sum(picture.left_px - picture.part_px for picture in self._open.values())
            ahead = min(speed * (self._clock() - self._last), _AHEAD * left)
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
