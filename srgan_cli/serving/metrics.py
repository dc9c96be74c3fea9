"""The server's metrics, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter

_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """Counters, updated by the event loop's thread only."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by route and status
        self.pictures: Counter[str] = Counter()  # by outcome
        self.megapixels = 0.0
        self._seconds = [0] * len(_BOUNDS_S)
        self._seconds_sum, self._seconds_count = 0.0, 0

    def took(self, seconds: float) -> None:
        """Record how long a picture took, without its time in the queue."""
        self._seconds_sum += seconds
        self._seconds_count += 1
        for i, bound in enumerate(_BOUNDS_S):
            self._seconds[i] += seconds <= bound

    def text(self, **gauges: float) -> str:
        """All metrics as text; `gauges` are current values, by name."""
        lines = _family("srgan_requests_total", "counter", "Requests, by route and status.")
        lines += [f'srgan_requests_total{{route="{route}",status="{status}"}} {count}'
                  for (route, status), count in sorted(self.requests.items())]  # fmt: skip
        lines += _family("srgan_pictures_total", "counter", "Pictures, by outcome.")
        lines += [f'srgan_pictures_total{{outcome="{outcome}"}} {count}'
                  for outcome, count in sorted(self.pictures.items())]  # fmt: skip
        lines += _family("srgan_result_megapixels_total", "counter", "Megapixels of results.")
        lines += [f"srgan_result_megapixels_total {self.megapixels:.6f}"]
        lines += _family(
            "srgan_picture_seconds", "histogram", "Seconds that a picture took, without its time in the queue."
        )
        lines += [f'srgan_picture_seconds_bucket{{le="{bound:g}"}} {count}'
                  for bound, count in zip(_BOUNDS_S, self._seconds, strict=True)]  # fmt: skip
        lines += [f'srgan_picture_seconds_bucket{{le="+Inf"}} {self._seconds_count}']
        lines += [f"srgan_picture_seconds_sum {self._seconds_sum:.6f}",
                  f"srgan_picture_seconds_count {self._seconds_count}"]  # fmt: skip
        for name, value in gauges.items():
            lines += [*_family(f"srgan_{name}", "gauge", _GAUGES[name]), f"srgan_{name} {value:g}"]
        return "\n".join(lines) + "\n"


_GAUGES = {
    "queue_length": "Pictures in the queue or being upscaled.",
    "queue_limit": "How many pictures may be in the queue or being upscaled.",
    "jobs": "Jobs that the server keeps.",
    "held_bytes": "Bytes of pictures in memory.",
}


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
