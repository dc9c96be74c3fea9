"""How fast the last run was on this machine, kept in the user's cache: what `--dry-run` can say without torch."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from srgan_cli import stored
from srgan_cli.files import cache_folder, publish_text

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Pace:
    """What ran and how fast: megapixels of network output per second."""

    device: str
    precision: str
    tile_px: int
    megapixels_per_second: float


def recall(key: str) -> Pace | None:
    entry = _load().get(key)
    if not isinstance(entry, dict):
        return None
    with suppress(KeyError, ValueError):
        speed = stored.real(entry["megapixels_per_second"])
        device, precision = stored.text(entry["device"]), stored.text(entry["precision"])
        return Pace(device, precision, stored.whole(entry["tile_px"], 1), speed) if speed > 0 else None
    return None


def remember(key: str, pace: Pace) -> None:
    """Best effort: a cache that cannot be written is nobody's problem."""
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
