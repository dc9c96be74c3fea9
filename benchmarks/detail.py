"""Plots the effect of `--detail`: PSNR against VGG19's distance on Set14, from `fidelity` to `srgan` in steps of 0.1.

    python -m benchmarks.detail [--out docs/images]

The numbers are those of the manifest (written by `benchmarks.quality --write`). Writes detail-x4.svg etc.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import scores as bundled_scores
from srgan_cli.config import DEFAULT_DETAIL
from srgan_cli.networks import registry
from srgan_cli.networks.registry import Entry

IMAGES = Path(__file__).parent.parent / "docs" / "images"
_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 60


class Point(NamedTuple):
    detail: float
    psnr_db: float
    distance: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detail", description="The curve of --detail.")
    parser.add_argument("--out", type=Path, default=IMAGES, metavar="DIR")
    out = parser.parse_args().out
    for entry in registry.entries():
        if registry.start_of(entry) is not None:
            bundled_scores.write_text(out / f"detail-x{entry.scale}.svg", drawn(points(entry), f"×{entry.scale}"))
    return 0


def points(entry: Entry) -> list[Point]:
    """The points from a model's stored scores, in order of detail."""
    found = []
    for name, values in entry.scores.items():
        test_set, _, detail = name.partition("@")
        if test_set == bundled_scores.DETAIL_SET:
            found.append(Point(float(detail or 1), values["psnr_y_db"], values["vgg19_conv3_4"]))
    return sorted(found)


def drawn(curve: Sequence[Point], scale: str) -> str:
    """An SVG page, readable on light and on dark paper. `curve` must have two points or more."""
    title = f"{scale}: what detail costs and gives, on {bundled_scores.DETAIL_SET}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
            f'font-size="13" role="img" aria-label="{title}">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
            _text(_WIDTH / 2, 22, title, "middle", bold=True),
            *_marks(curve),
            "</svg>\n",
        ]
    )


def _marks(curve: Sequence[Point]) -> Iterator[str]:
    x_step, x_ticks = _ticks([point.psnr_db for point in curve])
    y_step, y_ticks = _ticks([point.distance for point in curve])

    def x(value: float) -> float:
        fraction = (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        return _LEFT + fraction * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:  # lower is better, and upwards
        fraction = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _TOP + fraction * (_HEIGHT - _TOP - _BOTTOM)

    for tick in x_ticks:
        yield _line(x(tick), _TOP, x(tick), _HEIGHT - _BOTTOM)
        yield _text(x(tick), _HEIGHT - _BOTTOM + 20, _number(tick, x_step), "middle")
    for tick in y_ticks:
        yield _line(_LEFT, y(tick), _WIDTH - _RIGHT, y(tick))
        yield _text(_LEFT - 8, y(tick) + 4, _number(tick, y_step), "end")
    yield _text(_WIDTH / 2, _HEIGHT - 14, "PSNR of Y in dB (right is truer)", "middle")
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield f'<g transform="rotate(-90 18 {middle})">{_text(18, middle, "VGG19 (up is nearer in looks)", "middle")}</g>'
    places = " ".join(f"{x(point.psnr_db):.1f},{y(point.distance):.1f}" for point in curve)
    yield f'<polyline points="{places}" fill="none" stroke="#1f6feb" stroke-width="2"/>'
    for point in curve:
        chosen = abs(point.detail - DEFAULT_DETAIL) < 1e-9
        colour, radius = ("#d1242f", 6) if chosen else ("#1f6feb", 4)
        yield f'<circle cx="{x(point.psnr_db):.1f}" cy="{y(point.distance):.1f}" r="{radius}" fill="{colour}"/>'
        label = f"{point.detail:.1f}, the default" if chosen else f"{point.detail:.1f}"
        yield _text(x(point.psnr_db) + 9, y(point.distance) - 7, label, "start")


def _ticks(values: Sequence[float]) -> tuple[float, list[float]]:
    """A round step, and four to nine round numbers that include all values between them."""
    spread = max(values) - min(values)
    step = next(s * 10.0**e for e in range(-4, 3) for s in (1, 2, 5) if spread / (s * 10.0**e) <= 6)
    first = int(min(values) // step)
    last = int(-(-max(values) // step)) + (max(values) % step == 0)
    return step, [round(i * step, 6) for i in range(first, last + 1)]


def _number(value: float, step: float) -> str:
    places = max(0, -next(e for e in range(-4, 3) if step < 9.9 * 10.0**e))
    return f"{value:.{places}f}"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#d8dee4"/>'


def _text(x: float, y: float, text: str, anchor: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#24292f"{weight}>{text}</text>'


if __name__ == "__main__":
    raise SystemExit(main())
