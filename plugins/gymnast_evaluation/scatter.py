"""Scatter plots of one world's rates against another's: policies with intervals, or policy x task cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from gymnast_pages.charts import ticks
from gymnast_pages.measure import SUCCESS, Measure

SIZE, LEFT, TOP, RIGHT, BOTTOM = 420, 72, 12, 24, 50
"""SVG units."""
_STANDALONE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1b1f24}.grid{stroke:#dfe2e6}.axis{fill:none;stroke:#5b636d}"
    ".same{stroke:#5b636d;stroke-dasharray:4 4}.interval{stroke:#2563c9;opacity:.45}circle{fill:#2563c9}"
    ".cell{opacity:.55}.number{font-size:10.5px;font-weight:600}</style>"
)


@dataclass(frozen=True)
class ScatterPoint:
    """One pair of means."""

    name: str
    x: float
    y: float
    x_interval: Sequence[float] | None = None
    y_interval: Sequence[float] | None = None
    number: int | None = None
    """Written beside the point, and before its name in the key."""


@dataclass(frozen=True)
class Scatter:
    """A square plot; where both sides measure the same, with the line on which they agree."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[ScatterPoint]
    x_measure: Measure = SUCCESS
    y_measure: Measure = SUCCESS

    @property
    def x_range(self) -> tuple[float, float]:
        return _range(self.x_measure, [(p.x, *(p.x_interval or ())) for p in self.points])

    @property
    def y_range(self) -> tuple[float, float]:
        return _range(self.y_measure, [(p.y, *(p.y_interval or ())) for p in self.points])

    def description(self) -> str:
        """What a screen reader says instead of the drawing."""
        shown = "; ".join(
            f"{p.name}: {self.x_measure.value(p.x)}, {self.y_measure.value(p.y)}" for p in self.points[:12]
        )
        more = f"; and {len(self.points) - 12} more" if len(self.points) > 12 else ""
        return f"{self.title}. {self.x_label} and {self.y_label} of {len(self.points)} points. {shown}{more}."

    def svg(self, *, standalone: bool = False) -> Markup:
        """The drawing; `standalone` makes it a file with its own colours."""
        body = Markup("").join([_axes(self), *(_point(point, self) for point in self.points)])
        name = Markup(' xmlns="http://www.w3.org/2000/svg"') if standalone else Markup("")
        style = Markup(_STANDALONE) if standalone else Markup("")
        return Markup('<svg{} viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
            name, SIZE, SIZE, self.description(), style, body
        )


def policy_scatter(summary: Mapping[str, Any], world: str) -> Scatter:
    """A point a policy, numbered in the order of the reference world's success."""
    found, reference = summary["agreement"][world], summary["reference"]
    rows = sorted(
        zip(found["policies"], found["reference"], found["imagined"], strict=True), key=lambda row: (-row[1], row[0])
    )
    cells = summary["results"]
    points = [
        ScatterPoint(name, x, y, cells[name][reference]["interval"], cells[name][world]["interval"], number)
        for number, (name, x, y) in enumerate(rows, start=1)
    ]
    x, y = measure_of(summary, reference), measure_of(summary, world)
    return Scatter("Policies", f"{x.name} in {reference}", f"{y.name} in {world}", points, x, y)


def task_scatter(summary: Mapping[str, Any], world: str) -> Scatter:
    """A point a policy and task, where a trial was judged in both worlds."""
    found = summary["agreement"][world]
    points = [
        ScatterPoint(f"{policy}, {task}", x, y)
        for policy, xs, ys in zip(found["policies"], found["reference_by_task"], found["imagined_by_task"], strict=True)
        for task, x, y in zip(found["tasks"], xs, ys, strict=True)
        if x is not None and y is not None
    ]
    reference = summary["reference"]
    x, y = measure_of(summary, reference), measure_of(summary, world)
    names = (f"{x.name} in {reference}, by task", f"{y.name} in {world}, by task")
    return Scatter("Policies by task", *names, points, x, y)


def measure_of(summary: Mapping[str, Any], world: str) -> Measure:
    """What the numbers of a world are."""
    judge = summary["judges"][world]
    return Measure(judge["kind"], judge["name"])


def _range(measure: Measure, values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """All of success; of other rewards, what there is and a margin."""
    if measure.is_success:
        return (0.0, 1.0)
    known = [value for row in values for value in row]
    low, high = min(known), max(known)
    margin = 0.06 * (high - low) or 1.0
    return (low - margin, high + margin)


def _x(value: float, chart: Scatter) -> float:
    low, high = chart.x_range
    return LEFT + (value - low) / (high - low) * (SIZE - LEFT - RIGHT)


def _y(value: float, chart: Scatter) -> float:
    low, high = chart.y_range
    return SIZE - BOTTOM - (value - low) / (high - low) * (SIZE - BOTTOM - TOP)


def _ticks(measure: Measure, bounds: tuple[float, float]) -> list[tuple[float, str]]:
    if measure.is_success:
        return [(tick, f"{100 * tick:g} %") for tick in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return [(tick, measure.value(tick)) for tick in ticks(*bounds)]


def _axes(chart: Scatter) -> Markup:
    parts = []
    for tick, text in _ticks(chart.x_measure, chart.x_range):
        x = _x(tick, chart)
        parts.append(Markup('<path class="grid" d="M{:.1f} {}V{}"/>').format(x, TOP, SIZE - BOTTOM))
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, SIZE - BOTTOM + 18, text
            )
        )
    for tick, text in _ticks(chart.y_measure, chart.y_range):
        y = _y(tick, chart)
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y, SIZE - RIGHT))
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 7, y + 4, text)
        )
    left, bottom, right, top = LEFT, SIZE - BOTTOM, SIZE - RIGHT, TOP
    parts.append(Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(left, top, bottom, right))
    if chart.x_measure == chart.y_measure or (chart.x_measure.is_success and chart.y_measure.is_success):
        low = max(chart.x_range[0], chart.y_range[0])
        high = min(chart.x_range[1], chart.y_range[1])
        if low < high:
            ends = (_x(low, chart), _y(low, chart), _x(high, chart), _y(high, chart))
            parts.append(Markup('<line class="same" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(*ends))
    middle = ((left + right) / 2, (top + bottom) / 2)
    parts.append(
        Markup('<text class="label" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            middle[0], SIZE - 10, chart.x_label
        )
    )
    parts.append(
        Markup('<text class="label" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            middle[1], chart.y_label
        )
    )
    return Markup("").join(parts)


def _point(point: ScatterPoint, chart: Scatter) -> Markup:
    x, y = _x(point.x, chart), _y(point.y, chart)
    bars = Markup("")
    if point.x_interval and point.y_interval:
        (left, right), (low, high) = point.x_interval, point.y_interval
        bars = Markup('<path class="interval" d="M{:.1f} {:.1f}H{:.1f}M{:.1f} {:.1f}V{:.1f}"/>').format(
            _x(left, chart), y, _x(right, chart), x, _y(low, chart), _y(high, chart)
        )
    shown = (chart.x_measure.value(point.x), chart.y_measure.value(point.y))
    tooltip = f"{point.name}: {chart.x_label} {shown[0]}, {chart.y_label} {shown[1]}"
    kind, radius = ("cell", 4) if point.number is None else ("policy", 4.5)
    dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        kind, x, y, radius, tooltip
    )
    if point.number is None:
        return bars + dot
    return (
        bars + dot + Markup('<text class="number" x="{:.1f}" y="{:.1f}">{}</text>').format(x + 6, y - 6, point.number)
    )
