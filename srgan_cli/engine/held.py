"""Networks that are kept between runs, for a watched folder or a server with many runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from srgan_cli.config import EngineOptions

if TYPE_CHECKING:
    from srgan_cli.engine.upscaler import Upscaler

_Key: TypeAlias = "tuple[tuple[str, ...], tuple[str, ...], EngineOptions]"


class Upscalers:
    """Upscalers by their networks. Beyond `most`, the least recently used one is dropped.

    Threads may share it. Notes by an upscaler go to the thread that took it last.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: dict[_Key, tuple[Upscaler, _Relay]] = {}

    def take(
        self,
        sources: Sequence[str | Path],
        sha256: tuple[str, ...],
        options: EngineOptions,
        on_note: Callable[[str], None],
    ) -> Upscaler:
        """The upscaler that runs `sources` (what `load_model` takes) in sequence. `sha256` shows whether a file has
        been replaced. Raises what `load_model` and `Upscaler` do."""
        key = tuple(map(str, sources)), sha256, options
        with self._lock:
            found = self._held.pop(key, None) or _made(sources, options)
            self._held[key] = found  # in order of use, most recent last
            for oldest in list(self._held)[: -self._most]:
                del self._held[oldest]
            found[1].to = on_note
            return found[0]


class _Relay:
    def __init__(self) -> None:
        self.to: Callable[[str], None] = lambda _sentence: None

    def __call__(self, sentence: str) -> None:
        self.to(sentence)


def _made(sources: Sequence[str | Path], options: EngineOptions) -> tuple[Upscaler, _Relay]:
    from srgan_cli.engine.upscaler import Upscaler
    from srgan_cli.networks.weights import load_model

    loaded = {source: load_model(source) for source in dict.fromkeys(sources)}
    relay = _Relay()
    return Upscaler([loaded[source] for source in sources], options, on_note=relay), relay
