"""Scatter plots of one world's success against another's: policies with intervals, or policy x task cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

SIZE, LEFT, TOP, RIGHT, BOTTOM = 420, 72, 12, 24, 50
"""SVG units."""
_STANDALONE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#1b1f24}.grid{stroke:#dfe2e6}.axis{fill:none;stroke:#5b636d}"
    ".same{stroke:#5b636d;stroke-dasharray:4 4}.interval{stroke:#2563c9;opacity:.45}circle{fill:#2563c9}"
    ".cell{opacity:.55}.number{font-size:10.5px;font-weight:600}</style>"
)


@dataclass(frozen=True)
class ScatterPoint:
    """One pair of rates in [0, 1]."""

    name: str
    x: float
    y: float
    x_interval: Sequence[float] | None = None
    y_interval: Sequence[float] | None = None
    number: int | None = None
    """Written beside the point, and before its name in the key."""


@dataclass(frozen=True)
class Scatter:
    """A square plot of rates with the line on which both worlds agree."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[ScatterPoint]

    def description(self) -> str:
        """What a screen reader says instead of the drawing."""
        shown = "; ".join(f"{p.name}: {_percent(p.x)}, {_percent(p.y)}" for p in self.points[:12])
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
    return Scatter("Policies", f"success in {reference}", f"success in {world}", points)


def task_scatter(summary: Mapping[str, Any], world: str) -> Scatter:
    """A point a policy and task, where a trial was judged in both worlds."""
    found = summary["agreement"][world]
    points = [
        ScatterPoint(f"{policy}, {task}", x, y)
        for policy, xs, ys in zip(found["policies"], found["reference_by_task"], found["imagined_by_task"], strict=True)
        for task, x, y in zip(found["tasks"], xs, ys, strict=True)
        if x is not None and y is not None
    ]
    return Scatter(
        "Policies by task", f"success in {summary['reference']}, by task", f"success in {world}, by task", points
    )


def _x(value: float) -> float:
    return LEFT + value * (SIZE - LEFT - RIGHT)


def _y(value: float) -> float:
    return SIZE - BOTTOM - value * (SIZE - BOTTOM - TOP)


def _axes(chart: Scatter) -> Markup:
    parts = []
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y, text = _x(tick), _y(tick), f"{100 * tick:g} %"
        parts.append(
            Markup('<path class="grid" d="M{:.1f} {}V{}M{} {:.1f}H{}"/>').format(
                x, TOP, SIZE - BOTTOM, LEFT, y, SIZE - RIGHT
            )
        )
        parts.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x, SIZE - BOTTOM + 18, text
            )
        )
        parts.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 7, y + 4, text)
        )
    corner = (_x(0), _y(0), _x(1), _y(1))
    parts.append(Markup('<path class="axis" d="M{0} {3}V{1}H{2}"/>').format(*corner))
    parts.append(Markup('<line class="same" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(*corner))
    middle = (_x(0.5), _y(0.5))
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
    x, y = _x(point.x), _y(point.y)
    bars = Markup("")
    if point.x_interval and point.y_interval:
        (left, right), (low, high) = point.x_interval, point.y_interval
        bars = Markup('<path class="interval" d="M{:.1f} {:.1f}H{:.1f}M{:.1f} {:.1f}V{:.1f}"/>').format(
            _x(left), y, _x(right), x, _y(low), _y(high)
        )
    tooltip = f"{point.name}: {chart.x_label} {_percent(point.x)}, {chart.y_label} {_percent(point.y)}"
    kind, radius = ("cell", 4) if point.number is None else ("policy", 4.5)
    dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
        kind, x, y, radius, tooltip
    )
    if point.number is None:
        return bars + dot
    return (
        bars + dot + Markup('<text class="number" x="{:.1f}" y="{:.1f}">{}</text>').format(x + 6, y - 6, point.number)
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
