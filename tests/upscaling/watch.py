"""An observer that keeps what a run reports in detail, and can interrupt it."""

from __future__ import annotations

from srgan_cli.upscaling.observer import Silent


class Watch(Silent):
    """Hears what is reported, and interrupts after some bands."""

    def __init__(self, bands: int = 10**9) -> None:
        self.bands, self.details = bands, list[str]()

    def detail(self, sentence: str) -> None:
        self.details.append(sentence)

    def advanced(self, job: object, network_pixels: int) -> None:
        self.bands -= 1
        if self.bands < 0:
            raise KeyboardInterrupt
