"""The speed of the last run on this machine, stored in the user's cache, so that `--dry-run` can estimate without
torch."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from srgan_cli import stored
from srgan_cli.files import cache_folder, publish_text

_MAX_BYTES = 1 << 20
_COPIES = 8  # `engine.ensemble.COPIES`, without torch


@dataclass(frozen=True)
class Pace:
    """What ran and how fast: megapixels of network output per second.

    `startup_seconds` passed before the first picture. `start_bytes` of memory were in use then, and at most
    `network_bytes` later, pictures excluded, with the largest picture (or tile) of `window_px` px. `was_busy`: other
    programs used much of the machine, so the speed is unreliable. `of_one_copy`: it is an ensemble's, estimated from
    that of a run without. 0 means unknown.
    """

    device: str
    precision: str
    tile_px: int
    megapixels_per_second: float
    startup_seconds: float = 0.0
    start_bytes: int = 0
    network_bytes: int = 0
    window_px: int = 0
    was_busy: bool = False
    of_one_copy: bool = False

    def memory_bytes(self, window_px: int) -> int:
        """Estimated memory of the network and its surroundings for pictures (or tiles) of `window_px` px; 0:
        unknown."""
        if not self.network_bytes:
            return 0
        tile = min(window_px, self.tile_px**2)
        growth = max(0, self.network_bytes - self.start_bytes)
        return self.start_bytes + round(growth * tile / max(1, self.window_px))

    @property
    def measured_pixels_per_second(self) -> float:
        """The speed that was measured, perhaps without --ensemble."""
        return self.megapixels_per_second * 1e6 * (_COPIES if self.of_one_copy else 1)

    def of_ensemble(self) -> Pace:
        """Of an ensemble, before its first run; its memory is not known."""
        speed = self.megapixels_per_second / _COPIES
        return replace(self, megapixels_per_second=speed, network_bytes=0, of_one_copy=True)


def recall(key: str) -> Pace | None:
    entry = _load().get(key)
    if not isinstance(entry, dict):
        return None
    with suppress(KeyError, ValueError):
        speed = stored.real(entry["megapixels_per_second"])
        device, precision = stored.text(entry["device"]), stored.text(entry["precision"])
        if speed <= 0:
            return None
        return Pace(
            device,
            precision,
            stored.whole(entry["tile_px"], 1),
            speed,
            # Entries of earlier versions do not have these.
            startup_seconds=max(0.0, stored.real(entry.get("startup_seconds", 0.0))),
            start_bytes=stored.whole(entry.get("start_bytes", 0)),
            network_bytes=stored.whole(entry.get("network_bytes", 0)),
            window_px=stored.whole(entry.get("window_px", 0)),
            was_busy=entry.get("was_busy") is True,
        )
    return None


def remember(key: str, pace: Pace) -> None:
    """Store the pace of a run. One measured on a busy machine does not replace one measured on an idle machine.

    Best effort: if the cache cannot be written, only the estimates suffer.
    """
    known = recall(key)
    if pace.was_busy and known is not None and not known.was_busy:
        return
    entries = {**_load(), key: asdict(pace)}
    with suppress(OSError, RuntimeError):  # the latter: no home directory
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        publish_text(path, json.dumps(dict(list(entries.items())[-50:])), own=True)


def _load() -> dict[str, object]:
    with suppress(OSError, ValueError, RuntimeError):
        loaded = stored.json_of(stored.read_bytes(_path(), _MAX_BYTES))
        if isinstance(loaded, dict):
            return loaded
    return {}


def _path() -> Path:
    return cache_folder() / "pace.json"
