"""Line charts, laid out and then drawn as inline SVG for the report.

Independent of training. A layout is a list of strokes and texts in logical px; their colours are roles, which the
page's style sheet maps to colours. Lines are labelled at their ends instead of in a legend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from PIL import ImageFont

from srgan_cli.comparison.embedding import render
from srgan_cli.runlog.scales import Point, kept_apart, log_ticks, number, smoothed, thinned, tick_labels, ticks

if TYPE_CHECKING:
    from markupsafe import Markup

SeriesKind: TypeAlias = Literal["line", "main", "baseline"]

COLOURS = 8  # roles s0 … s7, in the order of a chart's lines


@dataclass(frozen=True)
class Series:
    """One line. `main` is drawn in the ink colour, `baseline` grey and dashed. `smooth` draws the points faintly and
    adds a running mean."""

    name: str
    points: Sequence[Point]
    kind: SeriesKind = "line"
    smooth: bool = False
    colour: int = 0


@dataclass(frozen=True)
class Chart:
    """`parts` begin at these x (phases of a run), each with a name; `marks` are highlighted positions on the x axis."""

    title: str
    unit: str
    series: Sequence[Series]
    x_label: str = "step"
    logarithmic: bool = False
    least: float | None = None  # limits of the y axis (with `most`); None: those of the values
    most: float | None = None
    parts: Sequence[tuple[float, str]] = ()
    marks: Sequence[float] = ()
    about: str = ""  # a sentence on how to read it


# -------------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class Stroke:
    points: Sequence[Point]
    role: str
    width: float = 1.0
    dashed: bool = False

    @property
    def path(self) -> str:
        """In SVG syntax."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Text:
    """`anchor` as in SVG; y is the middle of the letters."""

    x: float
    y: float
    text: str
    role: str
    anchor: Literal["start", "middle", "end"] = "start"


Shape: TypeAlias = Stroke | Text

_FONT_PX = 12
_LINE_PX = 15.0  # between labels at the ends of lines
_HEAD_PX, _FOOT_PX = 24.0, 36.0
_PARTS_PX = 16.0  # additional height for the names of parts
_LEFT_PX, _RIGHT_PX = 46.0, 122.0  # minimum width, so that charts below each other are aligned
_TICK_X_PX, _TICK_Y_PX = 70.0, 36.0  # minimum distance
_MAX_POINTS = 480  # maximum points of one line: more would not be visible and make the page large
_MAX_SMOOTHED = 200


@dataclass(frozen=True)
class _Axis:
    """Maps values to px along one side of the plot."""

    least: float
    most: float
    first_px: float
    last_px: float
    logarithmic: bool = False

    def px(self, value: float) -> float:
        least, most = self.least, self.most
        if self.logarithmic:
            value, least, most = (math.log10(max(v, 1e-300)) for v in (value, least, most))
        fraction = (value - least) / (most - least)
        return self.first_px + min(max(fraction, 0.0), 1.0) * (self.last_px - self.first_px)

    def ticks(self, apart_px: float) -> list[float]:
        many = max(int(abs(self.last_px - self.first_px) / apart_px), 2)
        found = log_ticks(self.least, self.most, many) if self.logarithmic else ticks(self.least, self.most, many)
        return [tick for tick in found if self.least <= tick <= self.most * (1 + 1e-9)]


def layout(chart: Chart, width: float, height: float) -> list[Shape]:
    """Everything to be drawn, in an area of `width` × `height` px, without the title."""
    x_most = max((x for series in chart.series for x, _ in series.points), default=1.0)
    y_values = [y for series in chart.series for _, y in series.points]
    top = _HEAD_PX + (_PARTS_PX if len(chart.parts) > 1 else 0)
    y_axis = _y_axis(chart, y_values, height - _FOOT_PX, top)
    y_ticks = y_axis.ticks(_TICK_Y_PX)
    labels = tick_labels(y_ticks, even=not chart.logarithmic)
    left = max([_LEFT_PX, *(_text_px(label) + 10 for label in labels)])
    names = [_text_px(_name(series, x_most)) + 12 for series in chart.series if series.points]
    x_axis = _Axis(0.0, max(x_most, 1.0), left, width - max([min(_RIGHT_PX, width / 3), *names]))
    right = x_axis.last_px

    shapes: list[Shape] = [Text(0, 8, chart.unit, "quiet")]
    for tick, label in zip(y_ticks, labels, strict=True):
        y = y_axis.px(tick)
        shapes += [Stroke([(left, y), (right, y)], "rule"), Text(left - 8, y, label, "quiet", "end")]
    shapes += _x_scale(chart, x_axis, top, height - _FOOT_PX)
    shapes += _parts(chart, x_axis, top, height - _FOOT_PX)
    lines = [line for series in chart.series for line in _lines(series, chart.parts, x_axis, y_axis)]
    shapes += sorted(lines, key=lambda line: not line.role.endswith("faint"))  # behind all others
    return shapes + _end_names(chart.series, x_axis, y_axis)


def _y_axis(chart: Chart, values: Sequence[float], low_px: float, high_px: float) -> _Axis:
    """The y axis with some margin, and tick marks at round numbers; the lowest and highest thousandth of a long log may
    be outside."""
    ordered = sorted(values) or [0.0, 1.0]
    spare = len(ordered) // 1000
    least, most = ordered[spare], ordered[-1 - spare]
    if chart.logarithmic:
        least, most = max(least, 1e-12) / 1.15, max(most, 1e-12) * 1.15
        return _Axis(least, max(most, least * 4), low_px, high_px, logarithmic=True)
    air = 0.06 * (most - least) or 0.1 * abs(most) or 1.0
    least = least - air if chart.least is None else chart.least
    most = most + air if chart.most is None else chart.most
    return _Axis(least, max(most, least + 1e-12), low_px, high_px)


def _x_scale(chart: Chart, axis: _Axis, top: float, base: float) -> list[Shape]:
    shapes: list[Shape] = [Stroke([(axis.first_px, base), (axis.last_px, base)], "quiet")]
    found = axis.ticks(_TICK_X_PX)
    for tick, label in zip(found, tick_labels(found), strict=True):
        x = axis.px(tick)
        shapes += [Stroke([(x, base), (x, base + 4)], "quiet"), Text(x, base + 13, label, "quiet", "middle")]
    shapes.append(Text(axis.last_px, base + 29, chart.x_label, "quiet", "end"))
    for mark in chart.marks:
        x = axis.px(mark)
        shapes += [
            Stroke([(x, top), (x, base)], "warn", 1.0, dashed=True),
            Stroke([(x - 4, base + 1), (x, base - 6), (x + 4, base + 1), (x - 4, base + 1)], "warn", 1.5),
        ]
    return shapes


def _parts(chart: Chart, axis: _Axis, top: float, base: float) -> list[Shape]:
    shapes: list[Shape] = []
    for begin, name in chart.parts if len(chart.parts) > 1 else ():
        x = axis.px(begin)
        if begin > 0:
            shapes.append(Stroke([(x, top - _PARTS_PX), (x, base)], "quiet"))
        shapes.append(Text(x + (6 if begin > 0 else 0), top - 9, name, "quiet"))
    return shapes


def _lines(series: Series, parts: Sequence[tuple[float, str]], x_axis: _Axis, y_axis: _Axis) -> list[Stroke]:
    def drawn(points: Sequence[Point]) -> list[Point]:
        return [(x_axis.px(x), y_axis.px(y)) for x, y in points]

    role = _role(series)
    if series.kind == "baseline":
        return [Stroke(drawn(series.points), role, 1.25, dashed=True)]
    if not series.smooth:
        return [Stroke(drawn(thinned(series.points, _MAX_POINTS)), role, 1.75)]
    strokes = []
    for points in _by_part(series.points, [begin for begin, _ in parts]):
        strokes.append(Stroke(drawn(thinned(points, _MAX_POINTS)), f"{role} faint", 1.0))
        strokes.append(Stroke(drawn(thinned(smoothed(points), _MAX_SMOOTHED)), role, 1.75))
    return strokes


def _by_part(points: Sequence[Point], begins: Sequence[float]) -> list[list[Point]]:
    """Values measured differently in each part of a run must not be joined, or smoothed, across the border."""
    found: dict[int, list[Point]] = {}
    for point in points:
        found.setdefault(sum(point[0] > begin for begin in begins), []).append(point)
    return list(found.values())


def _end_names(series: Sequence[Series], x_axis: _Axis, y_axis: _Axis) -> list[Shape]:
    """A line's name beside its end, in its colour; overlapping names are moved apart."""
    shown = [one for one in series if one.points]
    wanted = [y_axis.px(_last(one)) for one in shown]
    places = kept_apart(wanted, _LINE_PX, y_axis.last_px - 4, y_axis.first_px)
    return [
        Text(x_axis.last_px + 8, y, _name(one, x_axis.most), _role(one)) for one, y in zip(shown, places, strict=True)
    ]


def _role(series: Series) -> str:
    return {"main": "ink", "baseline": "quiet"}.get(series.kind, f"s{series.colour % COLOURS}")


def _last(series: Series) -> float:
    points = smoothed(series.points) if series.smooth else series.points
    return points[-1][1]


def _name(series: Series, x_most: float) -> str:
    """With its last value, if the line continues to the end."""
    goes_on = series.points[-1][0] >= 0.9 * x_most
    return f"{series.name} {number(_last(series))}" if goes_on else series.name


# ----------------------------------------------------------------------------------------------------------------- SVG


def svg(chart: Chart, width: int, height: int, css_class: str = "") -> Markup:
    """The chart as an `<svg>` element; the page styles its classes (`ink`, `quiet`, `rule`, `warn`, `s0` …).

    Names come from a log and are escaped.
    """
    shapes = layout(chart, width, height)
    values = {"class": css_class, "width": width, "height": height}
    return render("runlog/chart.svg.jinja", chart=chart, shapes=shapes, **values)


# Pillow's built-in typeface has little more than ASCII.
_TO_ASCII = str.maketrans({"\N{MINUS SIGN}": "-", "\N{NARROW NO-BREAK SPACE}": " ", "×": "x", "–": "-", "…": "..."})


@cache
def _font(size_px: int) -> Any:
    return ImageFont.load_default(size_px)


def _text_px(text: str) -> float:
    """Approximate width of a text, also in the page's typeface."""
    length: Callable[[str], float] = _font(_FONT_PX).getlength
    return length(text.translate(_TO_ASCII)) * 1.04
