"""Line and bar charts as inline SVG: axes, labels, tooltips, colours from the page's CSS variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520, 270
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 14, 44
MARKERS_UP_TO = 60
"""Points above which a line is drawn without a marker a point."""


@dataclass(frozen=True)
class Point:
    """A value at an iteration, with its 95 % interval when it has one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """One named line, set of dots, or layer of stacked bars."""

    name: str
    points: Sequence[Point]
    style: str = "line"
    """"line", "dots", "dotted" (dots on a line) or "bars"; bars stack in the order of their series."""


@dataclass(frozen=True)
class Chart:
    """One panel."""

    title: str
    y_label: str
    series: Sequence[Series]
    y_range: tuple[float, float] | None = None
    """Fixed range of the y axis; None fits the data and includes 0."""
    percent: bool = False
    """Whether y is a fraction to be written in per cent."""
    x_label: str = "iteration"

    def svg(self) -> Markup:
        """The drawing; an empty string when no series has a point."""
        return _draw(self) if any(series.points for series in self.series) else Markup("")

    def description(self) -> str:
        """What a screen reader says instead of the drawing."""
        parts = []
        for series in self.series:
            if series.points:
                first, last = series.points[0], series.points[-1]
                parts.append(
                    f"{series.name}: {self.format(first.y)} at {self.x_label} {first.x:g}, "
                    f"{self.format(last.y)} at {self.x_label} {last.x:g}"
                )
        return f"{self.title}. {'; '.join(parts)}."

    def format(self, value: float) -> str:
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


@dataclass(frozen=True)
class _Scale:
    """Maps data to SVG units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        inside = min(max(value, self.y_low), self.y_high)
        return TOP + (self.y_high - inside) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _draw(chart: Chart) -> Markup:
    scale = _scale(chart)
    body = [_axes(chart, scale)]
    stacked: dict[float, float] = {}
    for index, series in enumerate(chart.series):
        body.append(_series(chart, series, index, scale, stacked))
    return Markup('<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}</svg>').format(
        width=WIDTH, height=HEIGHT, label=chart.description(), body=Markup("").join(body)
    )


def _scale(chart: Chart) -> _Scale:
    points = [point for series in chart.series for point in series.points]
    bars = [series for series in chart.series if series.style == "bars"]
    x_low, x_high = min(point.x for point in points), max(point.x for point in points)
    margin = 0.6 if bars or x_low == x_high else 0.02 * (x_high - x_low)
    if chart.y_range:
        y_low, y_high = chart.y_range
    else:
        totals: dict[float, float] = {}
        for series in bars:
            for point in series.points:
                totals[point.x] = totals.get(point.x, 0.0) + point.y
        values = [0.0, *totals.values(), *(point.y for point in points)]
        y_low, y_high = min(values), max(values)
        y_low, y_high = (y_low, y_low + 1.0) if y_low == y_high else (y_low, y_high + 0.05 * (y_high - y_low))
    return _Scale(x_low - margin, x_high + margin, y_low, y_high)


def _axes(chart: Chart, scale: _Scale) -> Markup:
    parts = []
    for value in ticks(scale.y_low, scale.y_high):
        y = scale.y(value)
        label = f"{100 * value:g} %" if chart.percent else f"{value:.4g}"
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, y, y)
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 7, y + 4, label)
        )
    whole = sorted({round(value) for value in ticks(scale.x_low, scale.x_high, about=6)})
    for value in (value for value in whole if scale.x_low <= value <= scale.x_high):
        x = scale.x(value)
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, HEIGHT - BOTTOM + 17, value
            )
        )
    base = HEIGHT - BOTTOM
    middle_x, middle_y = (LEFT + WIDTH - RIGHT) / 2, (TOP + base) / 2
    parts.append(Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(LEFT, TOP, base, WIDTH - RIGHT))
    parts.append(
        Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            middle_x, HEIGHT - 8, chart.x_label
        )
    )
    parts.append(
        Markup('<text class="label" transform="translate(14 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            middle_y, chart.y_label
        )
    )
    return Markup("").join(parts)


def _series(chart: Chart, series: Series, index: int, scale: _Scale, stacked: dict[float, float]) -> Markup:
    draw = {"line": _line, "dots": _dots, "dotted": _dotted}.get(series.style)
    body = draw(chart, series, scale) if draw else _bars(chart, series, scale, stacked)
    return Markup('<g class="s{}">{}</g>').format(index, body)


def _line(chart: Chart, series: Series, scale: _Scale) -> Markup:
    line = _path(series, scale)
    return line + (_markers(chart, series, scale, 2.6) if len(series.points) <= MARKERS_UP_TO else Markup(""))


def _path(series: Series, scale: _Scale) -> Markup:
    path = " ".join(
        f"{'M' if number == 0 else 'L'}{scale.x(point.x):.1f} {scale.y(point.y):.1f}"
        for number, point in enumerate(series.points)
    )
    return Markup('<path class="line" d="{}"/>').format(path)


def _dots(chart: Chart, series: Series, scale: _Scale) -> Markup:
    bars = [
        Markup('<line class="interval" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>').format(
            scale.x(point.x), scale.y(point.low), scale.y(point.high)
        )
        for point in series.points
        if point.low is not None and point.high is not None
    ]
    return Markup("").join(bars) + _markers(chart, series, scale, 4.5)


def _markers(chart: Chart, series: Series, scale: _Scale, radius: float) -> Markup:
    return Markup("").join(
        Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
            scale.x(point.x), scale.y(point.y), radius, _tooltip(chart, series, point)
        )
        for point in series.points
    )


def _dotted(chart: Chart, series: Series, scale: _Scale) -> Markup:
    return _path(series, scale) + _dots(chart, series, scale)


def _bars(chart: Chart, series: Series, scale: _Scale, stacked: dict[float, float]) -> Markup:
    width = min(26.0, 0.78 * (scale.x(1) - scale.x(0)))
    parts = []
    for point in series.points:
        bottom = stacked.get(point.x, 0.0)
        stacked[point.x] = bottom + point.y
        top = scale.y(bottom + point.y)
        parts.append(
            Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>').format(
                scale.x(point.x) - width / 2,
                top,
                width,
                scale.y(bottom) - top,
                _tooltip(chart, series, point),
            )
        )
    return Markup("").join(parts)


def _tooltip(chart: Chart, series: Series, point: Point) -> Markup:
    interval = ""
    if point.low is not None and point.high is not None:
        interval = f" (95 % interval {chart.format(point.low)} to {chart.format(point.high)})"
    return escape(f"{series.name}, {chart.x_label} {point.x:g}: {chart.format(point.y)}{interval}")
